"""SESS, against its steps written out for one image and one piece at a time."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.explainers.context import Context
from tests.explainers.settings import configured, explainer, small_clip, small_pictures
from tests.explainers.test_submodular import Contrast
from tests.toolbox import refusal, seeded, there
from xai.explainers.block import Block, explain
from xai.explainers.posthoc.sess import starts
from xai.explainers.registry import entry
from xai.explainers.rows import load_row
from xai.metrics.functional import enlarge_map
from xai.models.maskable import PaintedClassifier

TARGETS = torch.tensor([4, 0])


def literal(image: Tensor, target: int, scales: int, dropped: float, theta: float) -> Tensor:
    model, pieces = small_clip(), []
    ours = explainer("input_x_gradient", model)
    for number in range(scales):
        size = round(12 * (1 + number * 2 / 7))
        large = F.interpolate(image[None], (size, size), mode="bilinear", align_corners=False)[0]
        for y in starts(size, 12):
            for x in starts(size, 12):
                piece = large[:, y : y + 12, x : x + 12]
                score = float(model(piece[None]).softmax(-1)[0, target])
                pieces.append((score, size, y, x, piece))
    best = max(score for score, *_ in pieces)
    kept = sorted(pieces, key=lambda piece: -piece[0])[: max(1, round(len(pieces) * (1 - dropped)))]
    total, count = torch.zeros(12, 12, dtype=torch.float64), torch.zeros(12, 12, dtype=torch.float64)
    for score, size, y, x, piece in kept:
        found = ours.attribute(piece[None], torch.tensor([target]))
        wide = enlarge_map(found.double(), (12, 12))[0].clamp(min=0)
        whole = torch.zeros(size, size, dtype=torch.float64)
        whole[y : y + 12, x : x + 12] = wide / wide.max() * score / best
        small = F.interpolate(whole[None, None], (12, 12), mode="bilinear", align_corners=False)[0, 0]
        total[small > theta] += small[small > theta]
        count[small > theta] += 1
    return total / count.clamp(min=1)


@pytest.mark.parametrize(("scales", "dropped", "theta"), [(1, 0.0, 0.0), (4, 0.5, 0.0), (5, 0.8, 0.2)])
def test_it_is_the_mean_of_weighed_maps_of_the_pieces(scales: int, dropped: float, theta: float) -> None:
    context = Context({"input_x_gradient": load_row("input_x_gradient")}, model=SimpleNamespace(image_size=12))
    settings = {"of": "input_x_gradient", "scales": scales, "dropped": dropped, "theta": theta}
    made = entry("sess").prepare(context, configured("sess", **settings, resolution="pixel"))
    block = Block(small_pictures(2), TARGETS, None, None, torch.arange(2), seeded())
    found = there(explain(made.build(), block).maps)
    for image, target, each in zip(small_pictures(2), TARGETS.tolist(), found, strict=True):
        expected = literal(image, target, scales, dropped, theta)
        torch.testing.assert_close(each.double(), expected, rtol=1e-4, atol=1e-5)
    patches = explain(entry("sess").prepare(context, configured("sess", **settings)).build(), block).maps
    torch.testing.assert_close(patches, F.adaptive_avg_pool2d(found, (3, 3)))
    pieces = sum(len(starts(round(12 * (1 + number * 2 / 7)), 12)) ** 2 for number in range(scales))
    assert made.passes == pieces + 3 * max(1, round(pieces * (1 - dropped)))


def test_windows_stand_side_by_side_and_the_last_ends_with_the_image() -> None:
    assert starts(12, 12) == [0]
    assert starts(15, 12) == [0, 3]
    assert starts(24, 12) == [0, 12]
    assert starts(25, 12) == [0, 12, 13]


def test_a_row_that_is_made_from_another_is_refused() -> None:
    rows = {name: load_row(name) for name in ("saliency_pixels", "saliency_pixels_pooled")}
    context = Context(rows, model=SimpleNamespace(image_size=12))
    told = refusal(entry("sess").check, context, configured("sess", of="saliency_pixels_pooled"))
    assert told.startswith("sess: of=saliency_pixels_pooled is a pooled row")


def test_pieces_that_have_no_answer_are_refused() -> None:
    model = PaintedClassifier(Contrast(), (3, 3), (0.5,) * 3, (0.5,) * 3).double()
    context = Context({"brightness": load_row("brightness")}, model=SimpleNamespace(image_size=12), classifier=model)
    made = entry("sess").prepare(context, configured("sess", of="brightness")).build()
    block = Block(torch.zeros_like(small_pictures(2)), TARGETS, None, None, torch.arange(2), seeded())
    assert "answers to pieces of the image hold NaN" in refusal(explain, made, block)
