"""How far the maps point at a known region of each image.

Maps `attr` are [N, h, w], regions boolean pixel masks [N, H, W] whose sides are multiples of the maps'; a `UserError`
says where they are not. Results are float64 [N] in [0, 1], NaN where an image has no region or its map says nothing.
"""

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.metrics.functional.agreement import largest
from xai.rounding import is_constant

_PIXEL_BUDGET = 2**24
"""Pixels of the masks widened to a number at once in `patch_coverage`."""


def patch_coverage(regions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Share of each patch's pixels that lie in the region.

    Args:
        regions: Bool [N, H, W].
        grid: (h, w), the patches a column and a row; they divide H and W.

    Returns:
        Float64 [N, h, w] in [0, 1].
    """
    h, w = grid
    _check_grid((len(regions), h, w), regions)
    height, width = regions.shape[1:]
    tiles = regions.reshape(-1, h, height // h, w, width // w)
    step = max(1, _PIXEL_BUDGET // (height * width))
    counts = torch.cat([part.sum((2, 4), dtype=torch.int32) for part in torch.split(tiles, step)])
    return counts.double() / ((height // h) * (width // w))


def relevance_mass_accuracy(attr: Tensor, regions: Tensor) -> Tensor:
    """RMA (Arras et al. 2022): the share of all positive attribution that falls inside the region.

    The map is read as if every pixel had its patch's value, so a patch counts by the share of its pixels in the region.

    NaN without positive attribution or with an empty region.
    """
    coverage = _coverage(attr, regions)
    positive = attr.double().clamp(min=0).flatten(1)
    # Dividing by zero is how an image without positive attribution becomes NaN.
    share = (positive * coverage).sum(1) / positive.sum(1)
    return share.masked_fill(coverage.sum(1) == 0, torch.nan)


def relevance_rank_accuracy(attr: Tensor, regions: Tensor) -> Tensor:
    """RRA (Arras et al. 2022): the share of the K pixels of largest attribution that lie in a region of K pixels.

    The map is read as if every pixel had its patch's value. Which of the pixels of equal value at the edge of the top K
    are meant is open; they count by their expectation, all choices equally likely, so a constant map gets the share of
    the image that is region.

    NaN for a map that is not finite, or an empty region.
    """
    coverage = _coverage(attr, regions)
    maps = attr.detach().flatten(1)
    # K in patches. Rounding may put it beside a whole number, which changes the share by no more than that rounding.
    size = coverage.sum(1, keepdim=True)
    last = size.ceil().long().clamp(1, maps.shape[1]) - 1
    edge = maps.sort(dim=1, descending=True).values.gather(1, last)
    above, at_edge = (maps > edge).double(), (maps == edge).double()
    drawn = (size - above.sum(1, keepdim=True)) / at_edge.sum(1, keepdim=True)
    share = ((above + drawn * at_edge) * coverage).sum(1) / size[:, 0]
    return share.masked_fill(~maps.isfinite().all(1), torch.nan)


def pointing_game(attr: Tensor, regions: Tensor) -> Tensor:
    """Pointing game (Zhang et al. 2018): 1 where the patch of the largest attribution touches the region, else 0.

    Touching is holding at least one pixel of it: a tolerance of about half a patch, where Zhang et al. allow 15 pixels
    (at 224). Of several largest patches the first in patch order is meant.

    NaN for a constant map, a map that is not finite, or an empty region.
    """
    touches = _coverage(attr, regions) > 0
    maps = attr.flatten(1)
    hit = touches.gather(1, largest(maps, 1))[:, 0].double()
    undefined = is_constant(maps) | ~maps.isfinite().all(1) | ~touches.any(1)
    return hit.masked_fill(undefined, torch.nan)


def _coverage(attr: Tensor, regions: Tensor) -> Tensor:
    """The share of each patch of the maps [N, M] that lies in the region; a `UserError` where they do not fit."""
    _check_grid(tuple(attr.shape), regions)
    return patch_coverage(regions, (attr.shape[1], attr.shape[2])).flatten(1)


def _check_grid(maps: tuple[int, ...], regions: Tensor) -> None:
    """Raise UserError unless bool regions [N, H, W] split evenly into the patches of maps of shape [N, h, w]."""
    if regions.dtype != torch.bool or regions.ndim != 3:
        raise UserError(
            f"regions are {regions.dtype} of shape {tuple(regions.shape)}; they have to be boolean masks [N, H, W]"
        )
    if len(maps) != 3 or maps[0] != regions.shape[0] or 0 in maps[1:]:
        raise UserError(
            f"maps of shape {maps} do not belong to regions of shape {tuple(regions.shape)}; "
            f"they have to be [{regions.shape[0]}, h, w] with at least one patch"
        )
    height, width = regions.shape[1:]
    if height % maps[1] or width % maps[2] or 0 in (height, width):
        raise UserError(
            f"regions of {height} x {width} pixels do not split into {maps[1]} x {maps[2]} patches; "
            "each side has to be a multiple of the grid's"
        )
