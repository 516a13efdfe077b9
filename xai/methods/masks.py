"""The masks of a training step by name: what SALVAGE and ViT-Shapley can both be trained on."""

from collections.abc import Mapping

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.shapley.importance import kernel_weights
from xai.shapley.masks import informed_coalitions, kernel_sizes, paired_masks, random_masks, uniform_sizes

SAMPLINGS = ("informed", "informed_paired", "uniform", "shapley_kernel", "paired", "mixed")
"""`informed`: Algorithm 3 of SALVAGE, by the explainer's own attributions. `informed_paired`: half so, and their
complements. `uniform`: the same sizes, patches at random. `shapley_kernel`: p_w of equation 2. `paired`: the same, each
mask with its complement (ViT-Shapley). `mixed`: half of the masks informed, half paired."""

INFORMED: Mapping[str, float] = {"informed": 1.0, "mixed": 0.5}
"""The share of the masks that follow the attributions, of samplings whose density is known."""


def draw_masks(sampling: str, phi: Tensor, masks: int, common: torch.Generator, own: torch.Generator) -> Tensor:
    """Bool [B, S, M]: the coalitions of a step, one size a slot for all images.

    Args:
        sampling: One of `SAMPLINGS`.
        phi: [B, M] the explainer's attributions of the true class.
        masks: S.
        common: Source of the sizes, which all processes that share a step draw alike.
        own: Source of the patches.
    """
    images, players = phi.shape
    if sampling == "paired":
        return paired_masks(images, players, masks // 2, common, own)
    if sampling == "informed_paired":
        chosen = informed_coalitions(phi, uniform_sizes(players, masks // 2, common), own)
        return torch.cat([chosen, ~chosen], dim=1)
    if sampling == "mixed":
        half = masks // 2
        sizes = uniform_sizes(players, half, common)
        pairs = paired_masks(images, players, half // 2, common, own)
        return torch.cat([informed_coalitions(phi, sizes, own), pairs], dim=1)
    sizes = (kernel_sizes if sampling == "shapley_kernel" else uniform_sizes)(players, masks, common)
    if sampling == "informed":
        return informed_coalitions(phi, sizes, own)
    return random_masks(images, players, sizes, own)


def weights_of(sampling: str, phi: Tensor, coalitions: Tensor) -> Tensor | None:
    """What weighs coalitions [B, S, M] of `informed` or `mixed` masks back to the Shapley kernel: [B, S], float32.

    None for masks that are of the kernel already.

    Raises:
        UserError: Nobody has derived the density of such masks.
    """
    if sampling == "informed_paired":
        raise UserError(f"sampling={sampling} cannot be weighed back to the Shapley kernel: use informed or mixed")
    share = INFORMED.get(sampling)
    return None if share is None else kernel_weights(phi, coalitions, share).float()


def is_informed(sampling: str) -> bool:
    """Whether masks follow the explainer's own attributions."""
    return sampling in INFORMED or sampling == "informed_paired"
