"""Banzhaf values: what a player adds to a coalition that every other player has joined by the toss of a coin."""

from typing import Literal

import torch
from torch import Tensor

from xai.shapley.design import Game, with_complements

Solver = Literal["least_squares", "reuse"]

_SINGULAR = 1e-9
"""A direction that the design weighs less than this, relative to the heaviest, counts as not sampled at all."""


def banzhaf(game: Game, coalitions: int, generator: torch.Generator, solver: Solver = "least_squares") -> Tensor:
    """Estimate the Banzhaf values of all players from coalitions drawn evenly, each with its complement.

    Where `coalitions` allows all 2^M of them, every one is asked once, and the values are exact.

    Args:
        game: B games of M players.
        coalitions: S, even.
        generator: Source of the coalitions.
        solver: `least_squares` or `reuse`; see `by_least_squares`, `by_reuse`.

    Returns:
        [B, M, C] or [B, M] in the dtype of the values.

    Raises:
        ValueError: Where S is odd, or less than 2.
    """
    if coalitions < 2 or coalitions % 2:
        raise ValueError(f"coalitions={coalitions} must be even and at least 2: each is asked with its complement")
    players = game.players
    if coalitions >= 2**players:
        # One of each pair of complements: the one without the last player.
        drawn = (torch.arange(2 ** (players - 1))[:, None] >> torch.arange(players) & 1).bool()
    else:
        drawn = torch.rand(coalitions // 2, players, generator=generator) < 0.5
    design = with_complements(drawn)
    return (by_least_squares if solver == "least_squares" else by_reuse)(game.value(design), design)


def by_reuse(values: Tensor, coalitions: Tensor) -> Tensor:
    """Maximum sample reuse (Wang and Jia 2023): the mean answer with a player, less that without.

    Unbiased, each coalition serving every player; what others are worth is its noise.

    Args:
        values: v(S), [B, S] or [B, S, C].
        coalitions: Bool [S, M], drawn evenly.

    Returns:
        [B, M] or [B, M, C] in the dtype of `values`; computed in float64. A player who is in all coalitions, or in
        none, gets 0.
    """
    z = coalitions.to(values.device, torch.float64)
    have = z.sum(0)
    share = z / have.clamp(min=1) - (1 - z) / (len(z) - have).clamp(min=1)
    share[:, (have == 0) | (have == len(z))] = 0
    return torch.einsum("sm,bs...->bm...", share, values.double()).to(values.dtype)


def by_least_squares(values: Tensor, coalitions: Tensor) -> Tensor:
    """The additive game that is nearest to v over coalitions drawn evenly (Hammer and Holzman 1992).

    Over all 2^M coalitions its weights are the Banzhaf values themselves. What others are worth is explained, and no
    noise: far less variance than reuse, for a bias that vanishes as 1 / S (Kernel Banzhaf, Liu et al. 2024).

    Args and returns are those of `by_reuse`; players that the coalitions do not tell apart get the same.
    """
    z = coalitions.to(values.device, torch.float64)
    centred = z - z.mean(0)
    inverse = torch.linalg.pinv(centred.T @ centred, rtol=_SINGULAR, hermitian=True) @ centred.T
    return torch.einsum("ms,bs...->bm...", inverse, values.double()).to(values.dtype)
