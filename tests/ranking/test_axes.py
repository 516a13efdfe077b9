import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from tests.toolbox import randn
from xai.ranking.axes import apply_axes, cells_to_pixels, moving_mean, pixels_to_cells

LIKE = torch.empty(0, dtype=torch.float64)


@pytest.mark.parametrize(("pixels", "cells"), [(12, 4), (13, 5), (23, 6), (7, 7), (42, 9), (224, 28)])
def test_cells_are_those_of_adaptive_pooling_and_nearest_neighbours(pixels: int, cells: int) -> None:
    maps, coarse = randn(2, 1, pixels, 31), randn(2, 1, cells, 3)
    pooled = apply_axes(pixels_to_cells(pixels, cells, LIKE), maps, pixels_to_cells(31, 3, LIKE))
    torch.testing.assert_close(pooled, F.adaptive_avg_pool2d(maps, (cells, 3)))
    spread = apply_axes(cells_to_pixels(cells, pixels, 0.0, LIKE), coarse, cells_to_pixels(3, 31, 0.0, LIKE))
    assert torch.equal(spread, F.interpolate(coarse, (pixels, 31), mode="nearest"))


def test_a_margin_repeats_the_first_and_the_last_pixel() -> None:
    maps = randn(2, 1, 14, 11)
    found = apply_axes(pixels_to_cells(14, 4, LIKE, (3, 1)), maps, pixels_to_cells(11, 3, LIKE, (0, 2)))
    padded = F.pad(maps, (0, 2, 3, 1), mode="replicate")
    torch.testing.assert_close(found, F.adaptive_avg_pool2d(padded, (4, 3)))


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.3])
def test_gaussian_is_that_of_scipy(sigma: float) -> None:
    found = cells_to_pixels(20, 20, sigma, LIKE) @ randn(20)
    reach = -int(-3 * sigma // 1)
    expected = ndimage.gaussian_filter1d(randn(20).numpy(), sigma, mode="mirror", radius=reach)
    torch.testing.assert_close(found, torch.from_numpy(expected))


@pytest.mark.parametrize("window", [1, 3, 15])
def test_moving_mean_is_that_of_scipy(window: int) -> None:
    expected = ndimage.uniform_filter1d(randn(20).numpy(), window, mode="mirror")
    torch.testing.assert_close(moving_mean(20, window, LIKE) @ randn(20), torch.from_numpy(expected))


def test_a_neighbourhood_wider_than_the_image_is_cut_to_what_can_be_reflected() -> None:
    assert torch.equal(moving_mean(4, 99, LIKE), moving_mean(4, 7, LIKE))
    wide = cells_to_pixels(4, 4, 50.0, LIKE)
    torch.testing.assert_close(wide.sum(1), torch.ones(4).double())
    torch.testing.assert_close(wide, moving_mean(4, 7, LIKE), rtol=0, atol=1e-3)


def test_autocast_rounds_nothing() -> None:
    maps = randn(2, 9, 9).float()

    def there_and_back() -> torch.Tensor:
        small, large = pixels_to_cells(9, 3, maps), cells_to_pixels(3, 9, 1.0, maps)
        return apply_axes(moving_mean(9, 3, maps), apply_axes(large, apply_axes(small, maps, small), large), large.mT)

    expected = there_and_back()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(there_and_back(), expected)
