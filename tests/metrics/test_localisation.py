"""Regions and chance levels, against loops over pixels and enumeration of all subsets."""

import itertools

import numpy as np
import pytest
import torch

from tests.toolbox import refusal
from xai.metrics import functional as F
from xai.metrics.functional import localisation


def scene(images=6, h=3, w=4, patch=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    attr = torch.randn(images, h, w, generator=generator)
    regions = torch.zeros(images, h * patch, w * patch, dtype=torch.bool)
    for i in range(images):
        y, x = (int(torch.randint(side - 4, (), generator=generator)) for side in regions.shape[1:])
        regions[i, y : y + 4, x : x + 3] = True
    return attr, regions


def pixel_map(attr, regions):
    patch = regions.shape[1] // attr.shape[1], regions.shape[2] // attr.shape[2]
    return np.kron(attr.double().numpy(), np.ones(patch))


@pytest.mark.parametrize("budget", [1, 2**24])
def test_coverage_counts_pixels(budget, monkeypatch):
    monkeypatch.setattr(localisation, "_PIXEL_BUDGET", budget)
    _, regions = scene()
    coverage = F.patch_coverage(regions, (3, 4))
    for i, y, x in np.ndindex(6, 3, 4):
        inside = regions[i, 5 * y : 5 * y + 5, 5 * x : 5 * x + 5]
        assert coverage[i, y, x].item() == pytest.approx(inside.float().mean().item())


def test_coverage_of_patches_with_many_pixels():
    regions = torch.ones(1, 40, 60, dtype=torch.bool)
    regions[0, :20, :10] = False
    assert F.patch_coverage(regions, (2, 3)).flatten().tolist() == [0.5, 1, 1, 1, 1, 1]


def test_rma_on_the_upsampled_map():
    attr, regions = scene()
    expected = []
    for pixels, region in zip(pixel_map(attr, regions), regions.numpy(), strict=True):
        positive = np.maximum(pixels, 0)
        expected.append(positive[region].sum() / positive.sum())
    np.testing.assert_allclose(F.relevance_mass_accuracy(attr, regions), expected, rtol=1e-12)


@pytest.mark.parametrize("levels", [None, 2, 4])
@pytest.mark.parametrize("patch", [2, 3])  # a region of 3 patches, and one of 4 / 3
def test_rra_counts_pixels_of_the_upsampled_map(patch, levels):
    attr, regions = scene(images=60, patch=patch)
    attr = attr if levels is None else (attr * levels / 2).round()
    expected = []
    for pixels, region in zip(pixel_map(attr, regions), regions.numpy(), strict=True):
        k = region.sum()
        # A pixel is among the first k for sure, or with the chance of all pixels that are equal to it.
        chance = [np.clip((k - (pixels > p).sum()) / (pixels == p).sum(), 0, 1) for p in pixels[region]]
        expected.append(np.sum(chance) / k)
    assert len(set(expected)) > 4
    np.testing.assert_allclose(F.relevance_rank_accuracy(attr, regions), expected, rtol=1e-12)


def test_pointing_game_looks_for_a_region_pixel_in_the_largest_patch():
    attr, regions = scene(images=40)
    pixels = pixel_map(attr, regions)
    expected = [bool(region[p == p.max()].any()) for p, region in zip(pixels, regions.numpy(), strict=True)]
    assert 0 < sum(expected) < 40
    assert F.pointing_game(attr, regions).tolist() == expected


def test_pointing_game_takes_the_first_of_equal_patches():
    regions = torch.zeros(1, 4, 4, dtype=torch.bool)
    regions[0, 0, 3] = True
    attr = torch.tensor([[[0.0, 1.0], [1.0, 1.0]]])
    assert F.pointing_game(attr, regions).item() == 1.0
    assert F.pointing_game(attr, regions.flip(1)).item() == 0.0


def test_undefined_images_are_nan():
    attr, regions = scene(images=5)
    attr[0] = -attr[0].abs()
    attr[1] = 0.25
    regions[2] = False
    attr[3, 0, 0] = torch.nan
    assert F.relevance_mass_accuracy(attr, regions).isnan().tolist() == [True, False, True, True, False]
    assert F.pointing_game(attr, regions).isnan().tolist() == [False, True, True, True, False]
    assert F.relevance_rank_accuracy(attr, regions).isnan().tolist() == [False, False, True, True, False]


def test_no_images():
    attr, regions = scene()
    assert F.relevance_mass_accuracy(attr[:0], regions[:0]).shape == (0,)
    assert F.pointing_game(attr[:0], regions[:0]).shape == (0,)
    assert F.relevance_rank_accuracy(attr[:0], regions[:0]).shape == (0,)


@pytest.mark.parametrize("metric", [F.relevance_mass_accuracy, F.relevance_rank_accuracy, F.pointing_game])
@pytest.mark.parametrize(
    ("attr", "regions", "message"),
    [
        (torch.zeros(2, 3, 3), torch.zeros(2, 9, 9), "boolean"),
        (torch.zeros(2, 3, 3), torch.zeros(9, 9, dtype=torch.bool), "boolean"),
        (torch.zeros(2, 3, 3), torch.zeros(2, 10, 9, dtype=torch.bool), "multiple"),
        (torch.zeros(2, 3, 3), torch.zeros(2, 9, 8, dtype=torch.bool), "multiple"),
        (torch.zeros(2, 3, 3), torch.zeros(3, 9, 9, dtype=torch.bool), "do not belong"),
        (torch.zeros(2, 9), torch.zeros(2, 9, 9, dtype=torch.bool), "do not belong"),
        (torch.zeros(2, 0, 3), torch.zeros(2, 9, 9, dtype=torch.bool), "do not belong"),
    ],
)
def test_regions_that_do_not_fit_are_refused(metric, attr, regions, message):
    assert message in refusal(metric, attr, regions)


@pytest.mark.parametrize(("patches", "k"), [(1, 1), (5, 2), (6, 5), (6, 6)])
def test_chance_iou_is_the_mean_over_all_subsets(patches, k):
    fixed = set(range(k))
    ious = [len(fixed & set(s)) / len(fixed | set(s)) for s in itertools.combinations(range(patches), k)]
    assert F.expected_iou(patches, k) == pytest.approx(np.mean(ious), rel=1e-12)


def test_chance_iou_is_known_of_many_patches():
    assert F.expected_iou(1369, 684) == pytest.approx(342 / 1026, rel=1e-2)
