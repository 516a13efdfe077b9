"""Occlusion (Zeiler and Fergus 2014) as an explainer, by windows of patches."""

import math

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import Count, FieldError, settings
from xai.explainers.params import GameParams
from xai.explainers.posthoc.game_values import OfGame
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier
from xai.shapley.design import Game


@settings
class OcclusionParams(GameParams):
    """The window that is removed, and how far it moves.

    Args:
        size: Its side, in patches.
        stride: Patches between a window and the next, down and across.
    """

    size: Count = 1
    stride: Count = 1

    def __post_init__(self) -> None:
        """Refuse windows that leave patches out."""
        if self.stride > self.size:
            raise FieldError("stride", f"leaves patches out between windows of size={self.size}: do not exceed it")


@explainer(
    "occlusion",
    label="Occlusion",
    about="what the answer loses with a window of patches, averaged over the windows that a patch is in",
    params=OcclusionParams,
    needs={"game"},
    passes=lambda params, patches: _starts(math.isqrt(patches), params) ** 2 + 1,
)
class Occlusion(OfGame[OcclusionParams]):
    """Removes one window after the other.

    Raises:
        UserError: Where a window would cover the whole image.
    """

    def __init__(self, classifier: MaskableClassifier, params: OcclusionParams) -> None:
        down, across = classifier.grid
        if params.size >= max(down, across):
            raise UserError(
                f"occlusion: a window of size={params.size} covers the grid of {down} x {across} patches: use "
                f"{max(down, across) - 1} at most"
            )
        super().__init__(classifier, params)

    def values(self, game: Game, generator: torch.Generator) -> Tensor:
        """What the answer loses with each window, the mean over those that a patch is in; nothing is drawn."""
        removed = windows(self.classifier.grid, self.params)
        answers = game.value(torch.cat([torch.ones(1, game.players, dtype=torch.bool), ~removed]))
        values, weights = answers.double(), (removed / removed.sum(0)).to(answers.device, torch.float64)
        return ((values[:, :1] - values[:, 1:]) @ weights).to(answers.dtype)


def windows(grid: tuple[int, int], params: OcclusionParams) -> Tensor:
    """The patches in each position of the window, Bool [W, M]; a window that reaches over the edge is cut off there."""
    sides = []
    for length in grid:
        start = torch.arange(_starts(length, params))[:, None] * params.stride
        place = torch.arange(length)
        sides.append((place >= start) & (place < start + params.size))
    down, across = sides
    return (down[:, None, :, None] & across[None, :, None, :]).flatten(2, 3).flatten(0, 1)


def _starts(length: int, params: OcclusionParams) -> int:
    """Positions of the window along a side."""
    return max(0, math.ceil((length - params.size) / params.stride)) + 1
