"""How far the maps point at a known region of each image.

Maps are [N, h, w], regions boolean pixel masks [N, H, W] whose sides are multiples of the maps'. Every result is
float64 [N], NaN where an image has no region or its map says nothing.
"""

import torch
from torch import Tensor

from xai.metrics.functional.agreement import is_constant, largest
from xai.metrics.functional.checks import check_grid

_PIXEL_BUDGET = 2**24
"""Pixels of the masks widened to a number at once in `patch_coverage`."""


def patch_coverage(regions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Share of each patch's pixels that lie in the region.

    Args:
        regions: Bool [N, H, W].
        grid: (h, w), the patches a column and a row; they divide H and W.

    Returns:
        Float64 [N, h, w] in [0, 1].

    Raises:
        UserError: Regions are not boolean masks, or the grid does not divide them.
    """
    h, w = grid
    check_grid((len(regions), h, w), regions)
    height, width = regions.shape[1:]
    tiles = regions.reshape(-1, h, height // h, w, width // w)
    step = max(1, _PIXEL_BUDGET // (height * width))
    counts = torch.cat([part.sum((2, 4), dtype=torch.int32) for part in torch.split(tiles, step)])
    return counts.double() / ((height // h) * (width // w))


def relevance_mass_accuracy(attr: Tensor, regions: Tensor) -> Tensor:
    """RMA (Arras et al. 2022): the share of all positive attribution that falls inside the region.

    The map is read as if every pixel had its patch's value, so a patch counts by the share of its pixels in the region.

    Args:
        attr: [N, h, w].
        regions: Bool [N, H, W].

    Returns:
        [N] in [0, 1]; NaN without positive attribution or with an empty region.

    Raises:
        UserError: Shapes do not match, or regions are not boolean.
    """
    check_grid(tuple(attr.shape), regions)
    coverage = patch_coverage(regions, (attr.shape[1], attr.shape[2])).flatten(1)
    positive = attr.double().clamp(min=0).flatten(1)
    # Dividing by zero is how an image without positive attribution becomes NaN.
    share = (positive * coverage).sum(1) / positive.sum(1)
    return share.masked_fill(coverage.sum(1) == 0, torch.nan)


def pointing_game(attr: Tensor, regions: Tensor) -> Tensor:
    """Pointing game (Zhang et al. 2018): 1 where the patch of the largest attribution touches the region, else 0.

    Touching is holding at least one pixel of it: a tolerance of about half a patch, where Zhang et al. allow 15 pixels
    (at 224). Of several largest patches the first in patch order is meant.

    Args:
        attr: [N, h, w].
        regions: Bool [N, H, W].

    Returns:
        [N] of 0 and 1; NaN for a constant map, a map that is not finite, or an empty region.

    Raises:
        UserError: Shapes do not match, or regions are not boolean.
    """
    check_grid(tuple(attr.shape), regions)
    touches = patch_coverage(regions, (attr.shape[1], attr.shape[2])).flatten(1) > 0
    maps = attr.flatten(1)
    hit = touches.gather(1, largest(maps, 1))[:, 0].double()
    undefined = is_constant(maps) | ~maps.isfinite().all(1) | ~touches.any(1)
    return hit.masked_fill(undefined, torch.nan)
