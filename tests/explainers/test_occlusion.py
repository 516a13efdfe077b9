"""Occlusion, against captum's on the same network with the same windows of pixels."""

import captum.attr
import pytest
import torch

from tests.explainers.networks import TARGETS, Answers, cnn
from tests.explainers.settings import configured, explainer, small_clip
from tests.toolbox import refusal, there
from xai.explainers.posthoc.occlusion import windows
from xai.explainers.registry import entry


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (2, 1), (3, 2), (4, 3)])
@pytest.mark.parametrize("output", ["probability", "logit"])
def test_it_agrees_with_captum(size: int, stride: int, output: str) -> None:
    case = cnn()
    found = explainer("occlusion", case.model, size=size, stride=stride, output=output).attribute(case.images, TARGETS)
    (high, wide), mean = case.patch, torch.tensor(case.mean, dtype=torch.float64)[:, None, None]
    # Windows as high as the grid: of 2 x 5 patches one of 3 covers both rows.
    high_window = min(size, case.model.grid[0])
    theirs = captum.attr.Occlusion(Answers(case, output)).attribute(
        case.images,
        (3, high_window * high, size * wide),
        strides=(3, stride * high, stride * wide),
        target=TARGETS,
        baselines=mean.expand_as(case.images),
        perturbations_per_eval=8,
    )
    torch.testing.assert_close(found, theirs[:, 0, ::high, ::wide], rtol=1e-4, atol=1e-6)


def test_a_window_over_the_edge_is_cut_off() -> None:
    params = configured("occlusion", size=2, stride=2)
    found = windows((3, 3), params).reshape(-1, 3, 3)
    assert [int(window.sum()) for window in found] == [4, 2, 2, 1]
    assert found.any(0).all()


def test_what_it_costs_is_what_it_asks() -> None:
    passes = there(entry("occlusion").info.passes)
    for size, stride in ((1, 1), (2, 1), (2, 2)):
        params = configured("occlusion", size=size, stride=stride)
        assert passes(params, 36) == len(windows((6, 6), params)) + 1


def test_a_window_that_leaves_nothing_is_refused() -> None:
    told = refusal(explainer, "occlusion", small_clip(), size=3)
    assert told == "occlusion: a window of size=3 covers the grid of 3 x 3 patches: use 2 at most"
