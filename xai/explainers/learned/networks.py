"""Trained networks as explainers: each gives in one forward pass what its training has put into it."""

import torch
from torch import Tensor

from xai.explainers.block import Block, Explanation
from xai.models.clip import SelfExplainingClip
from xai.models.dense import DenseExplainer
from xai.models.explainer import SalvageNetwork, column
from xai.models.maskable import MaskableClassifier


class Salvage:
    """SALVAGE (Naouar et al. 2025): maps phi+ - phi-, and a classifier of its own.

    Args:
        network: The trained network.
    """

    def __init__(self, network: SalvageNetwork) -> None:
        self._network = network

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        return self._explained(images, targets)[0]

    def explain(self, block: Block) -> Explanation:
        """Maps [B, h, w] and the logits [B, C] of equation 6, from one pass."""
        return Explanation(*self._explained(block.images, block.targets))

    @torch.no_grad()
    def _explained(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        present, absent = self._network.parts(images)
        maps = column(present - absent, targets).reshape(-1, *self._network.grid)
        return maps, present.sum(1)


class SelfExplaining:
    """A CLIP that has learned to explain itself, or was given the ability by an explainability vector.

    Args:
        network: The classifier.
    """

    def __init__(self, network: SelfExplainingClip) -> None:
        self._network = network

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        return self._explained(images, targets)[0]

    def explain(self, block: Block) -> Explanation:
        """Maps [B, h, w] and logits [B, C], from one pass."""
        return Explanation(*self._explained(block.images, block.targets))

    @torch.no_grad()
    def _explained(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        logits, attributions = self._network.explain(images)
        return column(attributions, targets).reshape(-1, *self._network.grid), logits


class Ranking:
    """Learn to Rank (Schinagl et al. 2026): maps of pixels, ordered by what their removal does.

    Args:
        network: The trained explainer.
    """

    def __init__(self, network: DenseExplainer) -> None:
        self.network = network

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, H, W] of images [B, 3, H, W] for the classes `targets` [B].

        Raises:
            UserError: For a class that the explainer does not know.
        """
        return self.network.attribute(images, targets)


class Classifies:
    """A classifier by itself, without maps: what the accuracy of explainers that classify is beside.

    Args:
        network: The classifier.
    """

    def __init__(self, network: MaskableClassifier) -> None:
        self._network = network

    @torch.no_grad()
    def explain(self, block: Block) -> Explanation:
        """Logits [B, C] of the whole images."""
        logits: Tensor = self._network(block.images)
        return Explanation(None, logits)
