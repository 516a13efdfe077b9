import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.explainers.networks import TARGETS as FOUR_TARGETS
from tests.explainers.networks import cnn
from tests.explainers.settings import configured, explainer, small_clip, small_pictures
from tests.shapley.tables import codes
from tests.toolbox import seeded
from xai.explainers.posthoc.rise import draw, rise, smooth_masks
from xai.models.maskable import Removal

TARGETS = torch.tensor([4, 0])


def table_game(games: int = 2, seed: int = 0) -> Tensor:
    """Answers [B, 2^9] of games that are nothing but tables."""
    return torch.rand(games, 512, generator=seeded(seed), dtype=torch.float64)


def drawn(masks: int, keep_probability: float, seed: int) -> Tensor:
    return torch.rand(masks, 9, generator=seeded(seed)) < keep_probability


def answers(table: Tensor, masks: Tensor) -> Tensor:
    return table[:, codes(masks)]


@pytest.mark.parametrize("keep_probability", [0.3, 0.5])
def test_it_is_equation_6_of_the_paper_term_by_term(keep_probability: float) -> None:
    table, masks = table_game(), drawn(40, keep_probability, seed=1)
    expected, counted = [[0.0] * 9 for _ in range(2)], [[0.0] * 9 for _ in range(2)]
    for game, patch in itertools.product(range(2), range(9)):
        total, times = 0.0, 0
        for mask in masks:
            value = float(table[game, int("".join(str(int(shown)) for shown in mask), 2)])
            total += value * bool(mask[patch])
            times += bool(mask[patch])
        expected[game][patch] = total / (40 * keep_probability)
        counted[game][patch] = total / times
    values = answers(table, masks)
    torch.testing.assert_close(rise(values, masks, keep_probability), torch.tensor(expected, dtype=torch.float64))
    torch.testing.assert_close(rise(values, masks), torch.tensor(counted, dtype=torch.float64))


def test_counting_shifts_with_the_value_and_a_patch_never_shown_gets_the_mean() -> None:
    masks = drawn(30, 0.5, seed=2)
    masks[:, 4] = False
    values = answers(table_game(), masks)
    found = rise(values, masks)
    torch.testing.assert_close(rise(values - 7, masks), found - 7)
    torch.testing.assert_close(found[:, 4], values.mean(1))


def test_values_keep_their_type_and_sums_are_taken_in_float64() -> None:
    masks = drawn(2**14, 0.5, seed=3)
    values = 1000 + answers(table_game(), masks)
    found = rise(values.float(), masks)
    assert found.dtype == torch.float32
    assert torch.equal(found, rise(values.float().double(), masks).float())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rise(values.float(), masks), found)


@pytest.mark.parametrize("output", ["probability", "logit"])
@pytest.mark.parametrize("normalise", [False, True])
def test_the_explainer_asks_the_classifier_with_the_masks_it_draws(output: str, normalise: bool) -> None:
    removal = Removal("pixels", "0.25")
    model, images = small_clip(removal), small_pictures(2)
    settings: dict[str, Any] = {"masks": 30, "keep_probability": 0.4, "normalise": normalise, "output": output}
    found = explainer("rise", model, **settings).attribute(images, TARGETS, torch.Generator().manual_seed(5))
    masks = drawn(30, 0.4, seed=5)
    for image, target in enumerate(TARGETS.tolist()):
        logits = model(images[image].expand(30, -1, -1, -1), masks)
        value = (logits if output == "logit" else logits.softmax(1))[:, target]
        for patch in range(9):
            shown = masks[:, patch]
            expected = value[shown].sum() / (shown.sum() if normalise else 30 * 0.4)
            torch.testing.assert_close(found[image].flatten()[patch].double(), expected, rtol=1e-4, atol=1e-6)


def test_the_file_of_the_configuration_is_the_papers_probability() -> None:
    params = configured("rise")
    assert (params.keep_probability, params.output) == (0.5, "probability")


def literal_mask(grid: Tensor, offset: list[int], size: tuple[int, int]) -> Tensor:
    """Bilinear interpolation between the centres of cells, pixel by pixel; what is beyond them is as at the border."""
    cells = len(grid)
    sides = [math.ceil(length / cells) for length in size]
    scale = [(cells + 1) * side / cells for side in sides]
    mask = torch.zeros(size, dtype=torch.float64)
    for row in range(size[0]):
        for column in range(size[1]):
            at = [(place + shift + 0.5) / s - 0.5 for place, shift, s in zip((row, column), offset, scale, strict=True)]
            at = [min(max(place, 0.0), cells - 1.0) for place in at]
            low = [int(place) for place in at]
            high = [min(place + 1, cells - 1) for place in low]
            (y, x) = (place - floor for place, floor in zip(at, low, strict=True))
            mask[row, column] = (
                (1 - y) * ((1 - x) * grid[low[0], low[1]] + x * grid[low[0], high[1]])
                + y * ((1 - x) * grid[high[0], low[1]] + x * grid[high[0], high[1]])
            )  # fmt: skip
    return mask


@pytest.mark.parametrize(("size", "cells"), [((12, 20), 3), ((10, 10), 4)])
def test_masks_are_enlarged_and_cut_out_as_in_the_paper(size: tuple[int, int], cells: int) -> None:
    grids, offsets = draw(5, cells, size, 0.5, seeded())
    found = smooth_masks(grids, offsets, size)
    expected = torch.stack([literal_mask(grid, at, size) for grid, at in zip(grids, offsets.tolist(), strict=True)])
    torch.testing.assert_close(found, expected)


def test_offsets_are_all_those_within_a_cell_and_cells_are_shown_with_their_probability() -> None:
    grids, offsets = draw(3000, 4, (10, 21), 0.3, seeded())
    assert offsets[:, 0].unique().tolist() == [0, 1, 2]
    assert offsets[:, 1].unique().tolist() == [0, 1, 2, 3, 4, 5]
    assert grids.unique().tolist() == [0, 1]
    assert float(grids.mean()) == pytest.approx(0.3, abs=0.01)


@pytest.mark.parametrize("normalise", [False, True])
@pytest.mark.parametrize("output", ["probability", "logit"])
def test_it_is_equation_6_on_blended_images(normalise: bool, output: str) -> None:
    case, masks = cnn(), 11
    settings = {"masks": masks, "cells": 3, "keep_probability": 0.4, "normalise": normalise, "output": output}
    ours = explainer("rise_smooth", case.model, **settings, resolution="pixel")
    found = ours.attribute(case.images, FOUR_TARGETS, seeded(3))
    grids, offsets = draw(masks, 3, (12, 20), 0.4, seeded(3))
    mean = torch.tensor(case.mean, dtype=torch.float64)[:, None, None]
    for image, target in enumerate(FOUR_TARGETS.tolist()):
        total, shown = torch.zeros(12, 20, dtype=torch.float64), torch.zeros(12, 20, dtype=torch.float64)
        for grid, offset in zip(grids, offsets.tolist(), strict=True):
            mask = literal_mask(grid, offset, (12, 20))
            logits = case.logits((case.images[image] * mask + mean * (1 - mask))[None])[0]
            total += (logits if output == "logit" else logits.softmax(0))[target] * mask
            shown += mask
        torch.testing.assert_close(found[image], total / (shown if normalise else masks * 0.4))
    patches = explainer("rise_smooth", case.model, **settings).attribute(case.images, FOUR_TARGETS, seeded(3))
    torch.testing.assert_close(patches, found.unflatten(2, (5, 4)).unflatten(1, (2, 6)).mean((2, 4)))
