"""Banzhaf values as an explainer."""

import torch
from torch import Tensor

from xai.core.settings import EvenCount, settings
from xai.explainers.block import OfClassifier, source
from xai.explainers.params import GameParams
from xai.explainers.registry import explainer
from xai.games import PatchGame
from xai.shapley.banzhaf import Solver, banzhaf


@settings
class BanzhafParams(GameParams):
    """How Banzhaf values are estimated.

    Args:
        coalitions: The perturbed images evaluated for each image; even, for they come with their complements.
        solver: `least_squares` (the nearest additive game) or `reuse` (mean answers with a patch less those without).
    """

    coalitions: EvenCount
    solver: Solver = "least_squares"


@explainer(
    "banzhaf",
    label="Banzhaf",
    about="what a patch adds to a coalition that every other patch joins by the toss of a coin",
    params=BanzhafParams,
    needs={"game"},
    passes=lambda params, patches: min(params.coalitions, 2**patches),
)
class Banzhaf(OfClassifier[BanzhafParams]):
    """Explains all images of a call with one design of coalitions."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Banzhaf values [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        game = PatchGame(self.classifier, images, targets, output=self.params.output)
        phi = banzhaf(game, self.params.coalitions, source(generator), self.params.solver)
        return phi.reshape(-1, *self.classifier.grid)
