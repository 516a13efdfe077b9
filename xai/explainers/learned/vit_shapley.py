"""ViT-Shapley (Covert et al. 2023) as an explainer."""

import torch
from torch import Tensor

from xai.explainers.block import Block, Explanation
from xai.methods.vit_shapley import efficient, predictions_with_ends
from xai.models.explainer import ShapleyNetwork, column
from xai.models.maskable import MaskableClassifier


class VitShapleyExplainer:
    """A trained network's values, normalised with two answers of the surrogate, so that they add up exactly.

    Args:
        network: The trained network.
        surrogate: What it was trained to explain.
    """

    def __init__(self, network: ShapleyNetwork, surrogate: MaskableClassifier) -> None:
        self._network, self._surrogate = network, surrogate

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Shapley values [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        return self._explained(images, targets)[0]

    def explain(self, block: Block) -> Explanation:
        """Shapley values [B, h, w], and as logits [B, C] the raw sums that Table 4 of SALVAGE judges."""
        return Explanation(*self._explained(block.images, block.targets))

    @torch.no_grad()
    def _explained(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        none = torch.empty(len(images), 0, self._surrogate.players, dtype=torch.bool, device=images.device)
        _, grand, null = predictions_with_ends(self._surrogate, images, none)
        raw = self._network.values(images)
        maps = column(efficient(raw, grand, null), targets).reshape(-1, *self._network.grid)
        return maps, raw.sum(1)
