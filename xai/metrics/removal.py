"""The removal metrics of SALVAGE as torchmetrics classes, for Lightning loops and several devices.

A score is the mean of a curve over sizes, so the mean curves of all images are all that has to be kept: their scores
are the means over images of each image's scores.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torchmetrics import Metric

from xai.core.errors import UserError
from xai.metrics import functional
from xai.metrics.functional import RemovalCurves


class TargetGame(Protocol):
    """The patches of B images, each with its target class; `xai.games.PatchGame` with targets is one."""

    @property
    def players(self) -> int:
        """M, the number of patches."""

    def value(self, coalitions: Tensor) -> Tensor:
        """Values [B, S] of coalitions, Bool [B, S, M]."""


class _MeanCurves(Metric, ABC):
    """Sums of the curves and the number of images, which add up over batches and devices."""

    is_differentiable: bool = False
    full_state_update: bool = False

    total: Tensor
    images: Tensor

    def __init__(self, curves: int, players: int, constant: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.players, self.constant = players, constant
        self.add_state("total", torch.zeros(curves, players, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    @abstractmethod
    def walk(self, game: TargetGame, maps: Tensor, generator: torch.Generator) -> Sequence[Tensor]:
        """The curves of each image, each [B, M], for maps [B, M]."""

    def update(self, game: TargetGame, attributions: Tensor, generator: torch.Generator) -> None:
        """Count a batch.

        Args:
            game: The patches of the images, with their target classes.
            attributions: [B, h, w] or [B, M].
            generator: Source of all draws, and of the order of ties.

        Raises:
            UserError: The maps are of another grid than the game, not finite, or constant where that is refused.
        """
        functional.check_players(attributions, game.players)
        if game.players != self.players:
            raise UserError(f"a game of {game.players} patches; this metric was made for {self.players}")
        curves = self.walk(game, attributions.flatten(1), generator)
        self.total += torch.stack([curve.sum(0) for curve in curves]).to(self.total.device)
        self.images += len(attributions)


class RankedRemovalScores(_MeanCurves):
    """LIF, MIF and SRG (Naouar et al. 2025, Algorithm 1 and eq. 7), for at most 2 M - 1 masked passes an image.

    Args:
        players: M, the number of patches.
        constant: What to do with a constant map: `refuse` it, or score it as a `random` order.
        kwargs: Passed on to torchmetrics.Metric.
    """

    def __init__(self, players: int, constant: str = "refuse", **kwargs: Any) -> None:
        super().__init__(2, players, constant, **kwargs)

    def walk(self, game: TargetGame, maps: Tensor, generator: torch.Generator) -> Sequence[Tensor]:
        """LIF and MIF of each image, each [B, M]."""
        return functional.ranked_curves(game.value, maps, generator, self.constant)

    def compute(self) -> dict[str, Tensor]:
        """lif, mif and srg, each the mean over the images counted so far; NaN where there are none."""
        lif, mif = (self.total / self.images).mean(1)
        return {"lif": lif, "mif": mif, "srg": lif - mif}


class RemovalScores(_MeanCurves):
    """All six removal metrics (Naouar et al. 2025, Algorithms 1 and 2, eq. 7 and 8).

    What an image costs says `xai.metrics.functional.passes`.

    Args:
        players: M, the number of patches.
        masks: Coalitions drawn for each size by R-LIF and by R-MIF, n_masks.
        constant: What to do with a constant map: `refuse` it, or score it as a `random` order.
        kwargs: Passed on to torchmetrics.Metric.
    """

    def __init__(self, players: int, masks: int = 128, constant: str = "refuse", **kwargs: Any) -> None:
        super().__init__(4, players, constant, **kwargs)
        self.masks = masks

    def walk(self, game: TargetGame, maps: Tensor, generator: torch.Generator) -> Sequence[Tensor]:
        """LIF, MIF, R-LIF and R-MIF of each image, each [B, M]."""
        return functional.removal_curves(game.value, maps, self.masks, generator, self.constant)

    def curves(self) -> RemovalCurves:
        """The mean curves [M] of the images counted so far, by the process that is asked (Figure 2)."""
        return RemovalCurves(*(self.total / self.images))

    def compute(self) -> dict[str, Tensor]:
        """The entries of `xai.metrics.functional.scores`, each the mean over the images counted so far."""
        return functional.scores(self.curves())
