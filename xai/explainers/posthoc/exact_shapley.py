"""Exact Shapley values as an explainer, for grids of few patches."""

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.explainers.block import OfClassifier
from xai.explainers.params import GameParams
from xai.explainers.registry import explainer
from xai.games import PatchGame
from xai.models.maskable import MaskableClassifier
from xai.shapley.exact import LARGEST, exact_shapley


@explainer(
    "exact_shapley",
    label="Exact Shapley",
    about="Shapley values from all 2^M coalitions, for M <= 16 patches",
    params=GameParams,
    needs={"game"},
    passes=lambda params, patches: 2**patches,
)
class ExactShapley(OfClassifier[GameParams]):
    """Explains with all coalitions there are: no sampling, no error.

    Raises:
        UserError: Where the grid has more than 16 patches.
    """

    def __init__(self, classifier: MaskableClassifier, params: GameParams) -> None:
        down, across = classifier.grid
        if down * across > LARGEST:
            raise UserError(
                f"exact_shapley asks for all 2^M coalitions of M <= {LARGEST} patches, and the model's "
                f"grid is {down} x {across}: use kernel_shap, or a model with larger patches"
            )
        super().__init__(classifier, params)

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Shapley values [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        game = PatchGame(self.classifier, images, targets, output=self.params.output)
        return exact_shapley(game).reshape(-1, *self.classifier.grid)
