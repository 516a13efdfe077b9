"""RISE with the masks of its paper, against a literal float64 version of its section 3.2 and equation 6."""

import math

import pytest
import torch
from torch import Tensor

from tests.explainers.networks import TARGETS, cnn
from tests.explainers.settings import configured, explainer
from tests.toolbox import refusal, seeded
from xai.explainers.posthoc.rise import draw, smooth_masks


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
    found = ours.attribute(case.images, TARGETS, seeded(3))
    grids, offsets = draw(masks, 3, (12, 20), 0.4, seeded(3))
    mean = torch.tensor(case.mean, dtype=torch.float64)[:, None, None]
    for image, target in enumerate(TARGETS.tolist()):
        total, shown = torch.zeros(12, 20, dtype=torch.float64), torch.zeros(12, 20, dtype=torch.float64)
        for grid, offset in zip(grids, offsets.tolist(), strict=True):
            mask = literal_mask(grid, offset, (12, 20))
            logits = case.logits((case.images[image] * mask + mean * (1 - mask))[None])[0]
            total += (logits if output == "logit" else logits.softmax(0))[target] * mask
            shown += mask
        torch.testing.assert_close(found[image], total / (shown if normalise else masks * 0.4))
    patches = explainer("rise_smooth", case.model, **settings).attribute(case.images, TARGETS, seeded(3))
    torch.testing.assert_close(patches, found.unflatten(2, (5, 4)).unflatten(1, (2, 6)).mean((2, 4)))


def test_an_unknown_baseline_is_refused() -> None:
    assert "baseline=purple is unknown: use black, mean, blur" in refusal(configured, "rise_smooth", baseline="purple")
