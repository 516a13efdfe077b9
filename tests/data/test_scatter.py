from typing import Any

import pytest
import torch
from torch import Tensor

from tests.toolbox import refusal
from xai.data.scatter import ScatterParams, cell_masks, scatter, scatter_groups

PLAIN = {"ground": 0.0, "ground_spread": 0.0, "texture": 0.0, "noise": 0.0}


def objects(count: int, size: int, seed: int = 0) -> Tensor:
    """Sparse ink, so that the bounding box is smaller than the object's square."""
    generator = torch.Generator().manual_seed(seed)
    ink = torch.rand(count, size, size, generator=generator)
    return ink * (torch.rand(count, size, size, generator=generator) < 0.04)


def scene(params: ScatterParams, count: int = 40, seed: int = 3):  # type: ignore[no-untyped-def]
    return scatter(objects(count, params.object_size), params, torch.Generator().manual_seed(seed))


def test_regions_are_the_bounding_boxes_of_ink_above_a_quarter() -> None:
    params = ScatterParams(**PLAIN, jitter=1)
    ink = objects(40, params.object_size)
    ink[0] = 0.2  # nowhere above the threshold
    ink[1] = 0
    ink[1, 5, 7] = 0.26
    made = scatter(ink, params, torch.Generator().manual_seed(3))
    for image, region, (top, left), drawn in zip(made.images, made.regions, made.corners.tolist(), ink, strict=True):
        assert torch.equal(region, alone(drawn, top, left, params))
        torch.testing.assert_close(image[top : top + 20, left : left + 20], drawn)
    assert not made.regions[0].any()
    assert made.regions[1].sum() == 1
    assert len(made.regions.flatten(1).sum(1).unique()) > 5


@pytest.mark.parametrize(("canvas", "cells", "size", "jitter"), [(42, 2, 20, 1), (50, 3, 10, 6), (9, 1, 9, 0)])
def test_the_object_lies_inside_a_cell_and_every_place_occurs(canvas: int, cells: int, size: int, jitter: int) -> None:
    made = scene(ScatterParams(canvas=canvas, cells=cells, object_size=size, jitter=jitter, **PLAIN), count=600)
    cell = canvas // cells
    within = made.corners % cell
    assert within.min() == 0
    assert within.max() == jitter
    assert (within + size <= cell).all()
    assert len((made.corners // cell).unique(dim=0)) == cells * cells
    for image, (top, left) in zip(made.images[:20], made.corners[:20].tolist(), strict=True):
        outside = image.clone()
        outside[top : top + size, left : left + size] = 0
        assert not outside.any()


def test_clutter_is_drawn_but_never_within_a_pixel_of_the_region() -> None:
    plain, cluttered = scene(ScatterParams(**PLAIN)), scene(ScatterParams(**PLAIN, clutter=6))
    assert torch.equal(plain.regions, cluttered.regions)
    differs = plain.images != cluttered.images
    assert differs.flatten(1).any(1).all()
    assert cluttered.images[differs].max() == 1
    for region, changed in zip(plain.regions, differs, strict=True):
        rows, columns = region.nonzero().min(0).values, region.nonzero().max(0).values
        near = changed[max(rows[0] - 1, 0) : columns[0] + 2, max(rows[1] - 1, 0) : columns[1] + 2]
        assert not near.any()


def test_a_range_of_clutter_draws_a_number_for_each_image() -> None:
    wide = {"canvas": 84, "cells": 4, **PLAIN}
    plain = scene(ScatterParams(**wide), count=300)
    made = scene(ScatterParams(clutter=(0, 3), **wide), count=300)
    three, none = (scene(ScatterParams(clutter=(n, n), **wide), count=300) for n in (3, 0))
    assert torch.equal(three.images, scene(ScatterParams(clutter=3, **wide), count=300).images)
    assert torch.equal(none.images, plain.images)
    assert torch.equal(made.regions, plain.regions)
    ink = (made.images - plain.images).clamp(min=0).flatten(1).sum(1)
    most = (three.images - plain.images).clamp(min=0).flatten(1).sum(1)
    assert 40 < int((ink == 0).sum()) < 110  # a quarter
    assert 0.4 < float(ink.sum() / most.sum()) < 0.6


@pytest.mark.parametrize("wrong", [-1, 1.0, True, (5, 0), (0, -1), (1,), (0, 1, 2), "3"])
def test_clutter_is_a_number_or_the_least_and_the_most(wrong: Any) -> None:
    assert "least and the most, as [0, 5]" in refusal(ScatterParams, clutter=wrong)


def test_polarity_turns_all_none_or_about_half_of_the_images() -> None:
    light, dark = scene(ScatterParams(noise=0)), scene(ScatterParams(noise=0, polarity="dark"))
    torch.testing.assert_close(dark.images, 1 - light.images)
    mixed = scene(ScatterParams(noise=0, polarity="random"), count=400)
    reference = scene(ScatterParams(noise=0), count=400).images
    turned = (mixed.images - (1 - reference)).abs().amax((1, 2)) < 1e-6
    kept = (mixed.images - reference).abs().amax((1, 2)) < 1e-6
    assert (turned ^ kept).all()
    assert 150 < int(turned.sum()) < 250


def test_ground_texture_and_noise_have_the_deviations_asked_for() -> None:
    blank = torch.zeros(400, 4, 4)
    small = {"canvas": 12, "object_size": 4, "jitter": 0}

    def made(**given: float) -> Tensor:
        params = ScatterParams(**small, **{**PLAIN, "ground": 0.5, **given})
        return scatter(blank, params, torch.Generator().manual_seed(0)).images

    torch.testing.assert_close(made(), torch.full((400, 12, 12), 0.5))
    level = made(ground_spread=0.06)
    assert float(level.std((1, 2)).max()) < 1e-6
    assert float(level[:, 0, 0].std()) == pytest.approx(0.06, rel=0.15)
    assert float(made(noise=0.03).std()) == pytest.approx(0.03, rel=0.02)
    assert float(made(texture=0.05)[:, 0, 0].std()) == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize(("cells", "objects_each"), [(2, 2), (2, 4), (3, 2)])
def test_objects_of_a_group_lie_in_cells_of_their_own(cells: int, objects_each: int) -> None:
    params = ScatterParams(canvas=43, cells=cells, object_size=12, jitter=2, **PLAIN)
    drawn = objects(1000 * objects_each, 12).unflatten(0, (1000, objects_each))
    made = scatter_groups(drawn, params, torch.Generator().manual_seed(3))
    size = 43 // cells
    places = (made.corners // size) @ torch.tensor([cells, 1])
    assert all(len(set(row)) == objects_each for row in places.tolist())
    assert len({tuple(row) for row in places[:, :2].tolist()}) == cells**2 * (cells**2 - 1)
    within = made.corners % size
    assert (int(within.min()), int(within.max())) == (0, 2)
    parts = (made.images[:60], made.regions[:60], made.corners[:60].tolist(), drawn[:60])
    for image, regions, corners, group in zip(*parts, strict=True):
        expected = torch.zeros(43, 43)
        for region, (top, left), ink in zip(regions, corners, group, strict=True):
            expected[top : top + 12, left : left + 12] = ink
            assert torch.equal(region, alone(ink, top, left, params))
        assert torch.equal(image, expected)


def alone(ink: Tensor, top: int, left: int, params: ScatterParams) -> Tensor:
    """The bounding box of one object's ink above a quarter, by the least and largest row and column."""
    region = torch.zeros(params.canvas, params.canvas, dtype=torch.bool)
    rows, columns = (ink > 0.25).nonzero(as_tuple=True)
    if len(rows):
        region[top + rows.min() : top + rows.max() + 1, left + columns.min() : left + columns.max() + 1] = True
    return region


def test_clutter_keeps_clear_of_every_object_of_a_group() -> None:
    drawn = objects(80, 20).unflatten(0, (40, 2))
    plain, cluttered = (
        scatter_groups(drawn, ScatterParams(**PLAIN, clutter=clutter), torch.Generator().manual_seed(3))
        for clutter in (0, 8)
    )
    assert torch.equal(plain.regions, cluttered.regions)
    differs = plain.images != cluttered.images
    assert differs.flatten(1).any(1).all()
    assert not (differs & plain.regions.any(1)).any()


def test_cells_are_those_the_corners_lie_in() -> None:
    params = ScatterParams(canvas=50, cells=3, object_size=10, jitter=6)
    corners = torch.tensor([[0, 0], [6, 22], [38, 16], [33, 38]])
    expected = torch.zeros(4, 50, 50, dtype=torch.bool)
    # Cells of 16 pixels; the last two rows and columns are no cell's.
    for mask, (top, left) in zip(expected, ((0, 0), (0, 16), (32, 16), (32, 32)), strict=True):
        mask[top : top + 16, left : left + 16] = True
    assert torch.equal(cell_masks(corners, params), expected)


def test_images_stay_in_range_and_depend_on_the_generator_alone() -> None:
    params = ScatterParams(ground=0.9, noise=0.5, clutter=2, polarity="random")
    first, again, other = scene(params), scene(params), scene(params, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.images, other.images)
    assert not torch.equal(first.corners, other.corners)
    assert first.images.min() == 0
    assert first.images.max() == 1
