"""What explainers share that play the game of an image's patches, and give each patch a value."""

from typing import TypeVar

import torch
from torch import Tensor

from xai.explainers.block import OfClassifier, source
from xai.explainers.params import GameParams
from xai.games import PatchGame

P = TypeVar("P", bound=GameParams)


class OfGame(OfClassifier[P]):
    """Explains all images of a call by one game, with what is drawn for all of them alike."""

    def values(self, game: PatchGame, generator: torch.Generator) -> Tensor:
        """Values of the patches [B, M]: what is asked is v(S) of the output that the settings name."""
        raise NotImplementedError

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The values as maps [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        game = PatchGame(self.classifier, images, targets, output=self.params.output)
        return self.values(game, source(generator)).reshape(-1, *self.classifier.grid)
