"""Designs: the coalitions that are evaluated, and what each of them counts."""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Game(Protocol):
    """B games over the same M players, answered together; `xai.games.PatchGame` is one."""

    @property
    def players(self) -> int:
        """M, the number of players."""

    def value(self, coalitions: Tensor) -> Tensor:
        """The values [B, S, C] or [B, S] of coalitions, Bool [S, M], that all games share."""


def shapley_kernel_sizes(players: int) -> Tensor:
    """Probabilities [M - 1] of the coalition sizes 1 ... M - 1 under the Shapley kernel.

    The kernel of a coalition of size s is (M - 1) / (C(M, s) s (M - s)) (Lundberg and Lee 2017, theorem 2), and there
    are C(M, s) of them: p(s) is proportional to 1 / (s (M - s)).

    Raises:
        ValueError: Where there are fewer than two players.
    """
    if players < 2:
        raise ValueError(f"the Shapley kernel needs 2 or more players, not {players}")
    sizes = torch.arange(1, players, dtype=torch.float64)
    weights = 1 / (sizes * (players - sizes))
    return weights / weights.sum()


@dataclass(frozen=True)
class Design:
    """Coalitions, neither empty nor full, and their weights.

    The weights make a design stand for the Shapley kernel p: for every f, the sum over rows of w_i f(S_i) is in
    expectation the sum over all coalitions of p(S) f(S) (Horvitz and Thompson 1952).

    Attributes:
        coalitions: Bool [S, M].
        weights: [S] float64, positive. 1 / S for draws from the kernel, p(S) / inclusion for draws that are not
            repeated.
        inclusion: [S] float64, the probability that the coalition came to be in the design: 1 where it is there for
            certain, 0 for draws with replacement, from which every coalition can come again.
        paired: Whether rows 2i and 2i + 1 are complements of one weight and one inclusion.
    """

    coalitions: Tensor
    weights: Tensor
    inclusion: Tensor
    paired: bool

    def __post_init__(self) -> None:
        """Refuse tensors that do not belong together."""
        shapes = [list(t.shape) for t in (self.coalitions, self.weights, self.inclusion)]
        rows = shapes[0][:1]
        if self.coalitions.ndim != 2 or not self.coalitions.numel() or shapes[1:] != [rows, rows]:
            raise ValueError(
                f"coalitions, weights and inclusion are {shapes}, they must be [S, M], [S] and [S], S >= 1"
            )
        if self.paired and len(self.coalitions) % 2:
            raise ValueError(f"a paired design has an even number of rows, not {len(self.coalitions)}")

    @classmethod
    def drawn(cls, coalitions: Tensor, *, paired: bool = False) -> "Design":
        """Coalitions [S, M] that were drawn from the Shapley kernel, with replacement: each counts the same."""
        weights = torch.full(coalitions.shape[:1], 1 / max(len(coalitions), 1), dtype=torch.float64)
        return cls(coalitions, weights, torch.zeros_like(weights), paired)


def with_complements(coalitions: Tensor) -> Tensor:
    """Bool [..., 2S, M] from [..., S, M]: each row is followed by its complement."""
    return torch.stack([coalitions, ~coalitions], dim=-2).flatten(-3, -2)


def check_pairs(players: int, coalitions: int) -> None:
    """Raise ValueError where so many coalitions cannot be drawn in pairs of complements."""
    if players < 2 or coalitions < 2 or coalitions % 2:
        raise ValueError(
            f"paired sampling needs 2 or more players and an even number of coalitions, not {players}, {coalitions}"
        )
