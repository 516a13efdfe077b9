"""Noisy linear imputation (Rong et al. 2022, section 4): a removed pixel becomes the weighted mean of its neighbours.

What shows in place of removed pixels then has no edge that tells where they were, which is how a map can be read off a
mask that black or grey leaves.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.models.maskable import exact

_WEIGHTS = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0.0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))
"""Of the eight neighbours; where the image ends, the others share what is missing."""
_MOST_STEPS = 1000


def impute(images: Tensor, removed: Tensor, tolerance: float = 1e-4) -> Tensor:
    """Images whose removed pixels are each the weighted mean of the pixels around it, removed ones among them.

    These are as many linear equations as there are removed pixels. Their matrix is symmetric and positive, and is never
    written down: conjugate gradients ask for its product with the pixels alone, of all images at once, from a start
    that is filled in from coarse to fine.

    Args:
        images: [N, C, H, W].
        removed: Bool [N, H, W].
        tolerance: What a pixel's equation may be wrong by, in the unit of a pixel.

    Returns:
        [N, C, H, W]; an image of which nothing is left is its own mean colour.
    """
    hole = removed[:, None]
    nothing = removed.flatten(1).all(1)[:, None, None, None]
    start = torch.where(nothing, images.mean((2, 3), keepdim=True), _coarse_to_fine(images, hole))
    filled = torch.where(hole, start, images)
    own = _around(torch.ones_like(images[:1, :1]))
    inside = (hole & ~nothing).to(images)
    residual = inside * (_around(filled) - own * filled)
    along, size = residual, residual.square().sum((2, 3), keepdim=True)
    for _ in range(_MOST_STEPS):
        if residual.abs().max() <= tolerance:
            break
        pushed = inside * (own * along - _around(along))
        step = size / (along * pushed).sum((2, 3), keepdim=True).clamp(min=torch.finfo(images.dtype).tiny)
        filled, residual = filled + step * along, residual - step * pushed
        before, size = size, residual.square().sum((2, 3), keepdim=True)
        along = residual + size / before.clamp(min=torch.finfo(images.dtype).tiny) * along
    return filled


def _around(images: Tensor) -> Tensor:
    """The weighted sum of what is around each pixel, [N, C, H, W]."""
    kernel = torch.tensor(_WEIGHTS, dtype=images.dtype, device=images.device)
    flat = images.flatten(0, 1)[:, None]
    # In half precision no equation would be solved to its tolerance.
    with exact(images):
        return F.conv2d(flat, kernel[None, None], padding=1).reshape(images.shape)


def _coarse_to_fine(images: Tensor, hole: Tensor) -> Tensor:
    """A first guess: a pixel that is gone has the mean of what is known in the smallest square that knows anything."""
    known = (~hole).to(images)
    if bool(known.all()) or min(images.shape[-2:]) == 1:
        return images
    share = F.avg_pool2d(known, 2, ceil_mode=True, count_include_pad=False)
    mean = F.avg_pool2d(images * known, 2, ceil_mode=True, count_include_pad=False) / share.clamp(min=1e-6)
    below = _coarse_to_fine(mean, share == 0)
    wide = F.interpolate(below, images.shape[-2:], mode="bilinear", align_corners=False)
    return torch.where(hole, wide, images)
