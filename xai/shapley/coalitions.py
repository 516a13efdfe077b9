"""Samplers of coalitions."""

import torch
from torch import Tensor


def shapley_kernel_sizes(players: int) -> Tensor:
    """Probabilities [M - 1] of the coalition sizes 1 ... M - 1 under the Shapley kernel.

    The kernel of a coalition of size s is (M - 1) / (C(M, s) s (M - s)) (Lundberg and Lee 2017, theorem 2), and there
    are C(M, s) of them: p(s) is proportional to 1 / (s (M - s)).
    """
    sizes = torch.arange(1, players, dtype=torch.float64)
    weights = 1 / (sizes * (players - sizes))
    return weights / weights.sum()


def paired_coalitions(players: int, coalitions: int, generator: torch.Generator) -> Tensor:
    """Sample coalitions from the Shapley kernel, each followed by its complement (Covert and Lee 2021).

    Args:
        players: M, at least 2.
        coalitions: S, even.
        generator: Source of all randomness.

    Returns:
        Bool [S, M]; rows 2i and 2i + 1 are complements. Neither the empty nor the full coalition occurs.
    """
    if players < 2 or coalitions < 2 or coalitions % 2:
        raise ValueError(
            f"paired sampling needs 2 or more players and an even number of coalitions, not {players}, {coalitions}"
        )
    sizes = 1 + torch.multinomial(shapley_kernel_sizes(players), coalitions // 2, replacement=True, generator=generator)
    ranks = torch.rand(coalitions // 2, players, generator=generator).argsort(1).argsort(1)
    chosen = ranks < sizes[:, None]
    return torch.stack([chosen, ~chosen], dim=1).reshape(coalitions, players)
