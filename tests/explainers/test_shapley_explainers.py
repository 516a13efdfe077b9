from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.explainers.context import Context
from tests.explainers.settings import configured, explainer, small_clip, small_pictures
from tests.shapley.tables import all_rows, shapley_by_dividends
from tests.toolbox import refusal
from xai.core.errors import UserError
from xai.explainers.registry import passes_of
from xai.explainers.rows import load_row
from xai.games import PatchGame
from xai.models.clip import SelfExplainingClip
from xai.models.maskable import Removal
from xai.shapley.kernel_shap import kernel_shap

TARGETS = torch.tensor([4, 0])


def answers(model: SelfExplainingClip, image: Tensor, target: int, output: str) -> Tensor:
    """Float64 values [2^9] of all coalitions of one image, by the classifier's own forward pass."""
    logits = model(image.expand(512, -1, -1, -1), all_rows(9))
    return (logits.softmax(1) if output == "probability" else logits)[:, target]


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_exact_shapley_is_the_definition(output: str) -> None:
    removal = Removal("pixels", "0.25")
    model, images = small_clip(removal), small_pictures(2)
    found = explainer("exact_shapley", model, output=output).attribute(images, TARGETS)
    expected = shapley_by_dividends(answers(model, images[1], 0, output)[None]).reshape(3, 3)
    torch.testing.assert_close(found[1].double(), expected, rtol=1e-4, atol=1e-5)


def test_a_finer_grid_is_refused_by_exact_shapley_in_one_line() -> None:
    model = small_clip()
    for grid in ((4, 4), (1, 16), (2, 3)):
        model.grid = grid
        explainer("exact_shapley", model)
    model.grid = (1, 17)
    with pytest.raises(UserError, match=r"^exact_shapley .* M <= 16 .*grid is 1 x 17: use .*$"):
        explainer("exact_shapley", model)


@pytest.mark.parametrize("output", ["logit", "probability"])
@pytest.mark.parametrize(
    ("sampler", "coalitions"), [("shapley_kernel", 31), ("paired", 24), ("leverage", 30), ("without_replacement", 30)]
)
def test_kernel_shap_is_the_estimator_with_these_settings(output: str, sampler: str, coalitions: int) -> None:
    model, images = small_clip(), small_pictures(2)
    found = explainer("kernel_shap", model, coalitions=coalitions, sampler=sampler, output=output)
    game = PatchGame(model, images, TARGETS, output=output)
    expected = kernel_shap(game, coalitions, torch.Generator().manual_seed(5), sampler=sampler)
    maps = found.attribute(images, TARGETS, torch.Generator().manual_seed(5))
    assert torch.equal(maps, expected.reshape(2, 3, 3))


def test_kernel_shap_draws_anew_for_each_call_and_meets_efficiency() -> None:
    model, images = small_clip(), small_pictures(2)
    ours, generator = explainer("kernel_shap", model, coalitions=20), torch.Generator()
    first, second = (ours.attribute(images, TARGETS, generator) for _ in range(2))
    assert not torch.equal(first, second)
    ends = torch.tensor([[True], [False]]).expand(2, 9)
    full, empty = (model(images, keep.expand(2, 9)).gather(1, TARGETS[:, None])[:, 0] for keep in ends)
    for maps in (first, second):
        torch.testing.assert_close(maps.sum((1, 2)).double(), full - empty, rtol=1e-4, atol=1e-4)


def test_training_images_may_cost_less_than_those_that_are_measured_against() -> None:
    params = configured("kernel_shap", coalitions=10, evaluation_coalitions=30)
    numbers = {split: params.for_split(split).coalitions for split in ("train", "validation", "test")}
    assert numbers == {"train": 10, "validation": 30, "test": 30}
    same = replace(params, evaluation_coalitions=None)
    assert [same.for_split(split).coalitions for split in ("train", "test")] == [10, 10]
    # Two settings that ask the same of a split are one: what is stored is found by them.
    assert params.for_split("train") == same.for_split("train")
    row = load_row("kernel_shap", {"kernel_shap": {"coalitions": 10, "evaluation_coalitions": 30}})
    assert [passes_of(Context(split=split), row) for split in ("train", "test")] == [12, 32]


def test_the_cost_is_that_of_the_coalitions_there_are() -> None:
    rows = [load_row("kernel_shap", {"kernel_shap": {"evaluation_coalitions": number}}) for number in (508, 510, 2000)]
    assert [passes_of(Context(), row) for row in rows] == [510, 512, 512]


def test_too_few_coalitions_for_the_criterion_of_akaike_are_refused() -> None:
    few = {"select": "aic", "coalitions": 4, "evaluation_coalitions": None}
    told = refusal(explainer, "kernel_shap", small_clip(), **few)
    assert told.startswith("kernel_shap: select=aic needs at least 6 coalitions for 9 patches, and 4 are asked: ")
    explainer("kernel_shap", small_clip(), **{**few, "evaluation_coalitions": 6})
    made = explainer("kernel_shap", small_clip(), **{**few, "coalitions": 6})
    assert made.attribute(small_pictures(2), TARGETS).isfinite().all()
