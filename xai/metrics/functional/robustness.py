"""How far two maps of one image are apart: what a metric asks that has an image explained again.

Maps are [B, ...] and numbers [B] float64, NaN where the first map says nothing.
"""

from typing import cast

import torch
from torch import Tensor

from xai.metrics.functional.agreement import places
from xai.rounding import is_constant

_WINDOW = 11
"""Pixels a side of the window of SSIM: a Gaussian of deviation 1.5, as Wang et al. 2004 have it."""


def relative_change(maps: Tensor, others: Tensor) -> Tensor:
    """||A - B|| / ||A||, what is maximised in equation 5 of Yeh et al. 2019, as a share of the map's own size."""
    first, second = (each.double().flatten(1) for each in (maps, others))
    # Dividing by zero is how a map that is zero everywhere becomes NaN.
    return torch.where(first.norm(dim=1) > 0, (first - second).norm(dim=1) / first.norm(dim=1), torch.nan)


def spearman(maps: Tensor, others: Tensor) -> Tensor:
    """Spearman's rank correlation, equal values sharing their mean rank.

    NaN where the first map is constant; 0 where only the second is: it has no order, and so none in common.
    """
    # Ranks from 0, the mean of their places for equal values.
    both = (torch.stack(places(each.flatten(1))).sum(0) for each in (maps, others))
    first, second = ((each - 1).double() / 2 for each in both)
    first, second = (each - each.mean(1, keepdim=True) for each in (first, second))
    found = (first * second).sum(1) / (first.norm(dim=1) * second.norm(dim=1))
    found = found.masked_fill(is_constant(others.flatten(1)), 0.0)
    return found.masked_fill(is_constant(maps.flatten(1)), torch.nan)


def structural_similarity(maps: Tensor, others: Tensor) -> Tensor:
    """SSIM (Wang et al. 2004) of maps [B, H, W], each stretched to [0, 1] as Adebayo et al. 2018 compare them.

    NaN where the first map is constant, or smaller than the window.
    """
    if min(maps.shape[-2:]) < _WINDOW:
        return torch.full((len(maps),), torch.nan, dtype=torch.float64)
    from torchmetrics.functional.image import structural_similarity_index_measure  # slow to import

    stretched = [_stretched(each.double())[:, None] for each in (maps, others)]
    found = structural_similarity_index_measure(
        stretched[0], stretched[1], gaussian_kernel=True, sigma=1.5, data_range=1.0, reduction="none"
    )
    return cast(Tensor, found).reshape(len(maps)).double().masked_fill(is_constant(maps.flatten(1)), torch.nan)


def _stretched(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    flat = is_constant(maps.flatten(1))[:, None, None]
    return ((maps - low) / (high - low).masked_fill(flat, 1.0)).masked_fill(flat, 0.0)
