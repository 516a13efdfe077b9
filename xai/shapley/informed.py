"""Attribution-guided sampling of training masks: Algorithm 3 of SALVAGE (Naouar et al. 2025)."""

import torch
from torch import Tensor

from xai.sampling import importance_weights, weighted_ranks


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
