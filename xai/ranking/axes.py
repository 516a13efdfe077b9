"""Resampling along one axis of an image as small matrices: cells to pixels, pixels to cells, neighbourhoods.

All that lies between a map and its masks is separable, so two products with such matrices do it, one for each axis. A
product is much faster than a convolution of many single channels, and its derivative adds up in one order, where on a
GPU those of reflection, replication and adaptive pooling add up in any, and no run repeats another.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def apply_axes(down: Tensor, maps: Tensor, across: Tensor) -> Tensor:
    """Apply `down` [h, H] to the rows and `across` [w, W] to the columns of maps [..., H, W].

    Returns:
        [..., h, w], computed in the maps' own precision, whatever autocast says.
    """
    with torch.autocast(maps.device.type, enabled=False):
        return down @ maps @ across.mT


def cells_to_pixels(cells: int, pixels: int, sigma: float, like: Tensor) -> Tensor:
    """Nearest neighbours, then a Gaussian.

    Args:
        cells: Along the axis; as many as `pixels` leave the Gaussian alone.
        pixels: Along the axis.
        sigma: In pixels; 0 blurs nothing. The Gaussian reaches three sigma and is reflected at the border.
        like: A tensor of the data type and on the device that is asked for.

    Returns:
        [pixels, cells], rows adding up to 1.
    """
    blocks = F.interpolate(_identity(cells, like), pixels, mode="nearest")[0]
    reach = math.ceil(3 * sigma)
    offsets = torch.arange(-reach, reach + 1, device=like.device, dtype=like.dtype)
    return _filter(blocks, torch.exp(-0.5 * (offsets / sigma) ** 2)).mT if sigma > 0 else blocks.mT


def pixels_to_cells(pixels: int, cells: int, like: Tensor, margin: tuple[int, int] = (0, 0)) -> Tensor:
    """Adaptive average pooling of an axis and a margin that repeats its first and its last pixel.

    Args:
        pixels: Along the axis.
        cells: Along the axis and its margin, no more than pixels there.
        like: A tensor of the data type and on the device that is asked for.
        margin: Pixels added before and after.

    Returns:
        [cells, pixels], rows adding up to 1.
    """
    return F.adaptive_avg_pool1d(F.pad(_identity(pixels, like), margin, mode="replicate"), cells)[0].mT


def moving_mean(pixels: int, window: int, like: Tensor) -> Tensor:
    """[pixels, pixels]: the mean of a pixel and its neighbours, `window` in all (odd), reflected at the border."""
    return _filter(_identity(pixels, like)[0], torch.ones(window, device=like.device, dtype=like.dtype)).mT


def _filter(signals: Tensor, kernel: Tensor) -> Tensor:
    """Signals [n, pixels] with a symmetric kernel, reflected; the kernel is cut to what can be reflected."""
    middle = len(kernel) // 2
    reach = min(middle, signals.shape[1] - 1)
    kernel = kernel[middle - reach : middle + reach + 1]
    # Unfolded, entry [:, i] holds the pixels that the kernel meets around pixel i.
    met = F.pad(signals[None], (reach, reach), mode="reflect")[0].unfold(1, 2 * reach + 1, 1)
    return (met * (kernel / kernel.sum())).sum(-1)


def _identity(size: int, like: Tensor) -> Tensor:
    return torch.eye(size, device=like.device, dtype=like.dtype)[None]
