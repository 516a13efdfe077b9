"""The map that says nothing: the same everywhere, and in every image."""

import torch
from torch import Tensor

from xai.core.settings import settings
from xai.explainers.block import OfClassifier
from xai.explainers.params import MapParams
from xai.explainers.registry import explainer


@settings
class ConstantParams(MapParams):
    """What the map is of, and what it says.

    Args:
        value: Of every patch or pixel. Shares of a map's mass need one that is not 0; refinement starts best from 0.
    """

    value: float = 1.0


@explainer(
    "constant",
    label="Constant",
    about="a map that is the same everywhere",
    params=ConstantParams,
    kind="control",
    class_specific=False,
    passes=lambda params, patches: 0,
)
class Constant(OfClassifier[ConstantParams]):
    """One value everywhere."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The value, [B, h, w] or [B, H, W], for images [B, 3, H, W]."""
        size = images.shape[-2:] if self.params.of_pixels else self.classifier.grid
        return images.new_full((len(images), *size), self.params.value)
