"""Trained networks as explainers: each gives in one forward pass what its training has put into it."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from xai.core.calling import captum_names
from xai.explainers.block import Block, Explanation, source
from xai.games import PatchGame
from xai.methods.salvage import distribution_values, shapley_distribution
from xai.methods.vit_shapley import efficient, predictions_with_ends
from xai.models.clip import SelfExplainingClip
from xai.models.explainer import SalvageNetwork, ShapleyNetwork, ShapleyParts, column
from xai.models.maskable import MaskableClassifier
from xai.models.unet import FastShapNetwork
from xai.shapley.kernel_shap import kernel_shap
from xai.shapley.permutation import antithetic_orders


class ExplainingClassifier(ABC):
    """A network that explains patches and classifies, from the same pass."""

    grid: tuple[int, int]

    @abstractmethod
    def values(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Attributions [B, M, C] and logits [B, C] of images [B, 3, H, W]."""

    @captum_names
    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        return column(self.values(images)[0], targets).reshape(-1, *self.grid)

    @torch.no_grad()
    def explain(self, block: Block) -> Explanation:
        """Maps [B, h, w] and logits [B, C]."""
        values, logits = self.values(block.images)
        return Explanation(column(values, block.targets).reshape(-1, *self.grid), logits)


class Salvage(ExplainingClassifier):
    """SALVAGE (Naouar et al. 2025): maps phi+ - phi-, and the logits of equation 6 by the temperature.

    Args:
        network: The trained network.
        pairs: 0 for the published maps; else maps are the Shapley values of u(S) itself, in probabilities, from twice
            as many orders of the patches, the same for all images. They cost no further pass.
    """

    def __init__(self, network: SalvageNetwork, pairs: int = 0) -> None:
        self._network, self.grid, self._pairs = network, network.grid, pairs

    def values(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """phi+ - phi-, or the Shapley values of u(S), and the logits of u of all patches."""
        present, absent = self._network.parts(images)
        temperature = self._network.temperature
        logits = present.sum(1) / temperature
        if not self._pairs:
            return present - absent, logits
        orders = antithetic_orders(present.shape[1], self._pairs, source(None))
        return distribution_values(present, absent, orders, temperature), logits


class SalvageAdjusted:
    """Shapley values of the surrogate itself from few passes, where SALVAGE has said the rest.

    v(S) = u(S) + (v(S) - u(S)), and Shapley values are linear in the game: those of u(S) cost no pass, and only what
    the network did not foresee is estimated, by Kernel SHAP (regression adjustment, Witter et al. 2025, with u(S) in
    place of their trees). Ours, not the paper's.

    Args:
        network: The trained SALVAGE.
        surrogate: What it was trained to explain.
        coalitions: P, the masked images asked about.
        pairs: As of `Salvage`; at least 1.
    """

    def __init__(self, network: SalvageNetwork, surrogate: MaskableClassifier, coalitions: int, pairs: int) -> None:
        self._network, self._surrogate, self._coalitions, self._pairs = network, surrogate, coalitions, pairs

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        parts, temperature = self._network.parts(images), self._network.temperature
        orders = antithetic_orders(self._surrogate.players, self._pairs, source(None))
        foreseen = column(distribution_values(*parts, orders, temperature), targets)
        rest = _Unforeseen(PatchGame(self._surrogate, images, targets), parts, targets, temperature)
        found = kernel_shap(rest, self._coalitions, source(generator))
        return (foreseen + found).reshape(-1, *self._surrogate.grid)


class _Unforeseen:
    """The game v(S) - u(S) of the targets."""

    def __init__(self, game: PatchGame, parts: ShapleyParts, targets: Tensor, temperature: float) -> None:
        self._game, self._parts, self._targets, self._temperature = game, parts, targets, temperature
        self.players = game.players

    def value(self, coalitions: Tensor) -> Tensor:
        """[B, S] of coalitions [S, M]."""
        keep = coalitions.to(self._targets.device).expand(len(self._targets), -1, -1)
        u = shapley_distribution(*self._parts, keep, self._temperature).exp()
        return self._game.value(coalitions) - column(u, self._targets)


class VitShapleyExplainer(ExplainingClassifier):
    """ViT-Shapley (Covert et al. 2023) and FastSHAP (Jethani et al. 2022).

    Values are normalised with two answers of the surrogate, so that they add up.

    Args:
        network: The trained network.
        surrogate: What it was trained to explain.
        normalised: Whether it classifies by v of no patch and the sum of its normalised values, as its authors read it;
            else by the raw sum that Table 4 of SALVAGE judges.
    """

    def __init__(
        self, network: ShapleyNetwork | FastShapNetwork, surrogate: MaskableClassifier, normalised: bool = False
    ) -> None:
        self._network, self._surrogate, self._normalised = network, surrogate, normalised
        self.grid = network.grid

    def values(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Shapley values, and their sum."""
        none = torch.empty(len(images), 0, self._surrogate.players, dtype=torch.bool, device=images.device)
        _, grand, null = predictions_with_ends(self._surrogate, images, none)
        raw = self._network.values(images)
        values = efficient(raw, grand, null)
        return values, null + values.sum(1) if self._normalised else raw.sum(1)


class SelfExplaining(ExplainingClassifier):
    """A CLIP that has learned to explain itself, or was given the ability by an explainability vector."""

    def __init__(self, network: SelfExplainingClip) -> None:
        self._network, self.grid = network, network.grid

    def values(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """What it says of itself, and of the image."""
        logits, attributions = self._network.explain(images)
        return attributions, logits


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
        return Explanation(None, self._network(block.images))
