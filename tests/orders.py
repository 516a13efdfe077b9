"""Weighted draws without replacement, enumerated in float64: the distribution that every sampler has to have."""

import itertools

import torch
from torch import Tensor


def order_probabilities(weights: list[float]) -> dict[tuple[int, ...], float]:
    """Of each order in which all players can be drawn: one at a time, each with its share of the weight that is left.

    Players without weight come when none with weight is left, all alike.
    """
    found = {}
    for order in itertools.permutations(range(len(weights))):
        left, chance = set(order), 1.0
        for player in order:
            total = sum(weights[other] for other in left)
            chance *= weights[player] / total if total > 0 else 1 / len(left)
            left.remove(player)
        found[order] = chance
    return found


def coalition_probabilities(weights: list[float], size: int) -> Tensor:
    """[2^M]: how likely a draw of so many players is each coalition; its row number as in `tests.shapley.tables`."""
    players = len(weights)
    found = torch.zeros(2**players, dtype=torch.float64)
    for order, chance in order_probabilities(weights).items():
        found[sum(2 ** (players - 1 - player) for player in order[:size])] += chance
    return found


def min_max(phi: list[float]) -> list[float]:
    """Algorithms 2 and 3, lines 3 to 5."""
    return [(value - min(phi)) / (max(phi) - min(phi)) for value in phi]
