"""The map that says nothing: the same everywhere, and in every image."""

import torch
from torch import Tensor

from xai.core.settings import settings
from xai.explainers.controls.params import ControlParams
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@settings
class ConstantParams(ControlParams):
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
class Constant:
    """One value everywhere.

    Args:
        classifier: Whose patch grid the maps are on.
        params: Patches or pixels.
    """

    def __init__(self, classifier: MaskableClassifier, params: ConstantParams) -> None:
        self._grid, self._params = classifier.grid, params

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The value, [B, h, w] or [B, H, W], for images [B, 3, H, W]."""
        size = images.shape[-2:] if self._params.of_pixels else self._grid
        return images.new_full((len(images), *size), self._params.value)
