"""Exact Shapley values, from every coalition there is."""

import math

import torch
from torch import Tensor

from xai.shapley.design import Game

LARGEST = 16
"""Players of the largest game that is solved exactly: 65,536 coalitions a game."""
_AT_ONCE = 1024
"""Coalitions asked for at a time; bounds the memory, and changes the result by rounding only."""


def exact_shapley(game: Game) -> Tensor:
    """The Shapley values themselves (Shapley 1953): no sampling, all 2^M coalitions.

    Args:
        game: B games of at most 16 players.

    Returns:
        [B, M, C] or [B, M], in the dtype of the values; added up in float64. Their sum over players is
        v(N) - v(empty).

    Raises:
        ValueError: Where the game is too large.
    """
    players = game.players
    if not 1 <= players <= LARGEST:
        raise ValueError(f"exact values need 1 to {LARGEST} players, the game has {players}: estimate with kernel_shap")
    joining, leaving = _marginal_weights(players)
    parts: list[Tensor] = []
    for codes in torch.arange(2**players).split(_AT_ONCE):
        coalitions = (codes[:, None] >> torch.arange(players) & 1).bool()
        sizes = coalitions.sum(1, keepdim=True)
        weights = torch.where(coalitions, joining[sizes], -leaving[sizes])
        values = game.value(coalitions)
        part = torch.einsum("sm,bs...->bm...", weights.to(values.device), values.double())
        parts = [parts[0] + part if parts else part]
    return parts[0].to(values.dtype)


def _marginal_weights(players: int) -> tuple[Tensor, Tensor]:
    """What v(S) counts for a member and against any other, by |S|, two of [M + 1].

    Of the M! orders, |T|! (M - |T| - 1)! have exactly T in front of a player. For a member, T is S without them.
    """
    orders = math.factorial(players)
    joins = [math.factorial(t) * math.factorial(players - t - 1) / orders for t in range(players)]
    return torch.tensor([0.0, *joins], dtype=torch.float64), torch.tensor([*joins, 0.0], dtype=torch.float64)
