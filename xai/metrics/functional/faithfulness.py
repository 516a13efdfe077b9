"""Whether attributions foretell what the classifier says with patches removed, beyond their order at the two ends.

Maps are [B, M], values of the game [B, S]; numbers are float64 [B].
"""

import torch
from torch import Tensor

from xai.metrics.functional.robustness import spearman
from xai.rounding import is_constant


def infidelity(attributions: Tensor, removed: Tensor, drops: Tensor) -> Tensor:
    """Infidelity (Yeh et al. 2019, equation 1) over sets of removed patches, under the best scale of the map.

    The mean of (beta sum of the removed attributions - drop)^2, with the beta of each image that makes it least: a map
    of another unit says the same. A map that foretells nothing scores the mean of the squared drops.

    Args:
        attributions: [B, M].
        removed: Bool [B, S, M], True where a patch is gone.
        drops: [B, S], v(N) less v of what is left.
    """
    told = (removed.double() @ attributions.double()[..., None])[..., 0]
    drops = drops.double()
    size = told.square().sum(1)
    scale = torch.where(size > 0, (told * drops).sum(1) / size.masked_fill(size == 0, 1.0), 0.0)
    return (scale[:, None] * told - drops).square().mean(1)


def monotonicity(curves: Tensor) -> Tensor:
    """Share of steps that do not lower the value, as patches come in, the least important first (Arya et al. 2019).

    Arya et al. ask whether all steps do, which is a share of 1.

    Args:
        curves: [B, M + 1], values with 0, 1, ..., M patches present.
    """
    return (curves.double().diff(dim=1) >= 0).double().mean(1)


def monotonicity_of_effects(attributions: Tensor, drops: Tensor) -> Tensor:
    """Spearman's correlation of the sizes of attributions and of effects (Nguyen and Martinez 2020, section 4.2).

    The effect of a patch is the square of what its removal alone changes. NaN where a map is constant.

    Args:
        attributions: [B, M].
        drops: [B, M], v(N) less v of all but the patch.
    """
    return spearman(attributions.abs(), drops.square())


def retained(ranks: Tensor, shares: Tensor) -> Tensor:
    """The most important patches of each image, for each share: bool [B, K, M], ceil(share M) of them.

    Args:
        ranks: [B, M], 0 for the most important patch.
        shares: [K] in (0, 1], by six digits.
    """
    # In whole numbers up to the last division: 7 % of 100 patches are 7, and 0.07 times 100 is more than that.
    counts = (shares.double().mul(1e6).round() * ranks.shape[1] / 1e6).ceil().long()
    return ranks[:, None] < counts[None, :, None].to(ranks.device)


def comprehensiveness(full: Tensor, without: Tensor, attributions: Tensor) -> Tensor:
    """Comprehensiveness (DeYoung et al. 2020, equation 1, averaged over shares): v(N) less v without the top patches.

    Sufficiency is the same of v of the top patches alone. NaN where a map is constant.

    Args:
        full: v(N), [B].
        without: [B, K], one for each share.
        attributions: [B, M].
    """
    return (full[:, None] - without).double().mean(1).masked_fill(is_constant(attributions), torch.nan)
