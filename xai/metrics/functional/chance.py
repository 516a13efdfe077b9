"""What maps that know nothing of the image would score: the line every table is read against."""

import math
from collections.abc import Sequence

from torch import Tensor

from xai.core.errors import UserError
from xai.metrics.functional.localisation import patch_coverage


def chance_levels(
    regions: Tensor | None, patches: int | tuple[int, int], ks: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Expected score of maps drawn independently of the image, all orders of the patches equally likely.

    e_rmse is sqrt 2 (uncorrelated maps), kendall and centred_correlation 0, iou@k the exact mean over uniformly random
    k-subsets, rma the mean share of the image that is region, pointing_game the mean share of patches that touch it.

    Args:
        regions: Bool [N, H, W], or None, when rma and pointing_game are left out. Images without region do not count.
        patches: M, when patches are square in pixels, or the grid (h, w).
        ks: The k of iou@k; those above M are left out.

    Returns:
        Values by metric name; NaN where no image has a region.

    Raises:
        UserError: Not a grid, or one that does not divide the regions.
    """
    count = patches if isinstance(patches, int) else patches[0] * patches[1]
    if count < 1 or any(k < 1 for k in ks):
        raise UserError(f"chance levels of {patches} patches and k of {list(ks)}; all have to be at least 1")
    levels = {"e_rmse": math.sqrt(2), "kendall": 0.0}
    levels |= {f"iou@{k}": expected_iou(count, k) for k in ks if k <= count}
    levels["centred_correlation"] = 0.0
    if regions is not None:
        grid = _square_grid(regions, patches) if isinstance(patches, int) else patches
        coverage = patch_coverage(regions, grid).flatten(1)
        coverage = coverage[coverage.sum(1) > 0]
        levels["rma"] = coverage.mean().item()
        levels["pointing_game"] = (coverage > 0).double().mean().item()
    return levels


def expected_iou(patches: int, k: int) -> float:
    """IoU@k expected of random maps: mean of i / (2k - i), the overlap i of two k-subsets being hypergeometric."""
    ways = (math.comb(k, i) * math.comb(patches - k, k - i) * i / (2 * k - i) for i in range(1, k + 1))
    return math.fsum(ways) / math.comb(patches, k)


def _square_grid(regions: Tensor, patches: int) -> tuple[int, int]:
    height, width = regions.shape[-2:]
    side = math.isqrt(height * width // patches)
    if side == 0 or height % side or width % side or (height // side) * (width // side) != patches:
        raise UserError(
            f"regions of {height} x {width} pixels do not split into {patches} square patches; "
            "give the number of patches that belongs to them, or the grid as (rows, columns)"
        )
    return height // side, width // side
