"""Shapley values by random orders as an explainer (Castro et al. 2009)."""

import torch
from torch import Tensor

from xai.core.settings import EvenCount, settings
from xai.explainers.block import OfClassifier, source
from xai.explainers.params import GameParams
from xai.explainers.registry import explainer
from xai.games import PatchGame
from xai.shapley.permutation import antithetic_orders, permutation_shapley


@settings
class PermutationShapleyParams(GameParams):
    """How many orders are drawn.

    Args:
        permutations: P, even: half of them are the other half backwards.
    """

    permutations: EvenCount


@explainer(
    "permutation_shapley",
    label="Perm. Shapley",
    about="Shapley values as mean gains over random orders of the patches",
    params=PermutationShapleyParams,
    needs={"game"},
    passes=lambda params, patches: params.permutations * (patches - 1) + 2,
)
class PermutationShapley(OfClassifier[PermutationShapleyParams]):
    """Explains all images of a call with the same orders."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Shapley values [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        game = PatchGame(self.classifier, images, targets, output=self.params.output)
        orders = antithetic_orders(game.players, self.params.permutations // 2, source(generator))
        return permutation_shapley(game, orders).reshape(-1, *self.classifier.grid)
