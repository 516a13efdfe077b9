"""What the estimators ask of a game."""

from typing import Protocol

from torch import Tensor


class Game(Protocol):
    """B games over the same M players, answered together; `xai.games.PatchGame` is one."""

    @property
    def players(self) -> int:
        """M, the number of players."""

    def value(self, coalitions: Tensor) -> Tensor:
        """The values [B, S, C] or [B, S] of coalitions, Bool [S, M], that all games share."""
