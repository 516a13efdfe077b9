"""Training masks of a batch of images: one size a slot, shared by all images, and patches of their own for each.

Sequences of one length are computed together without padding, so masks of S different sizes cost S passes of their own
length, where sizes of every image's own would cost as many passes as there are sizes in the batch.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.sampling import importance_weights, random_masks, weighted_ranks
from xai.shapley.design import shapley_kernel_sizes, with_complements
from xai.shapley.importance import kernel_weights


def kernel_sizes(players: int, coalitions: int, generator: torch.Generator) -> Tensor:
    """Sizes [S] drawn from the Shapley kernel, 1 to M - 1 (Lundberg and Lee 2017, theorem 2); on `generator.device`."""
    kernel = shapley_kernel_sizes(players).to(generator.device)
    return 1 + torch.multinomial(kernel, coalitions, replacement=True, generator=generator)


def paired_masks(
    images: int, players: int, pairs: int, generator: torch.Generator, own: torch.Generator | None = None
) -> Tensor:
    """Bool [B, 2 pairs, M]: coalitions of the kernel's sizes, each followed by its complement (Covert et al. 2023).

    Where several processes share a batch, sizes come from a `generator` that they have in common, patches from one of
    their `own`; None takes the first for both.
    """
    return with_complements(random_masks(images, players, kernel_sizes(players, pairs, generator), own or generator))


def uniform_sizes(players: int, coalitions: int, generator: torch.Generator) -> Tensor:
    """Sizes m ~ U(1, |N|) of coalitions (Algorithm 3, lines 6 and 11), [S]; on `generator.device`."""
    return torch.randint(1, players + 1, (coalitions,), generator=generator, device=generator.device)


def informed_coalitions(phi: Tensor, sizes: Tensor, generator: torch.Generator) -> Tensor:
    """Coalitions of the patches that seem to matter, and as many of those that seem not to (Algorithm 3).

    Args:
        phi: [B, M] present attributions of the target class of each image.
        sizes: [S] how many patches each coalition keeps, shared by all images, or [B, S]; S even. The first half of the
            coalitions draws its patches with the weights phi_norm, the second half with 1 - phi_norm.
        generator: Source of the draws.

    Returns:
        Bool [B, S, M], True where a patch is present.

    Raises:
        ValueError: Where S is odd or the shapes do not fit.
    """
    coalitions = sizes.shape[-1]
    if coalitions % 2 or phi.ndim != 2 or (sizes.ndim == 2 and len(sizes) != len(phi)):
        raise ValueError(f"attributions {list(phi.shape)}, sizes {list(sizes.shape)}: expected [B, M] and an even S")
    important = importance_weights(phi)
    halves = torch.stack([important, 1 - important], dim=1)
    ranks = weighted_ranks(halves.repeat_interleave(coalitions // 2, dim=1), generator)
    return ranks < sizes.to(phi.device)[..., None]


Sampling = Literal["informed", "informed_paired", "uniform", "shapley_kernel", "paired", "mixed"]
"""`informed`: Algorithm 3 of SALVAGE, by the explainer's own attributions. `informed_paired`: half so, and their
complements. `uniform`: the same sizes, patches at random. `shapley_kernel`: FastSHAP's p_w. `paired`: the same, each
mask with its complement (ViT-Shapley). `mixed`: half of the masks informed, half paired."""

INFORMED: Mapping[str, float] = {"informed": 1.0, "mixed": 0.5}
"""The share of the masks that follow the attributions, of samplings whose density is known."""


def draw_masks(sampling: str, phi: Tensor, masks: int, common: torch.Generator, own: torch.Generator) -> Tensor:
    """Bool [B, S, M]: the coalitions of a step, one size a slot for all images.

    Args:
        sampling: A `Sampling`.
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
