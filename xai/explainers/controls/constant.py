"""The map that says nothing: the same everywhere, and in every image."""

import torch
from torch import Tensor

from xai.explainers.controls.params import ControlParams
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@explainer(
    "constant",
    label="Constant",
    about="a map that is the same everywhere",
    params=ControlParams,
    kind="control",
    class_specific=False,
    passes=lambda params, patches: 0,
)
class Constant:
    """One everywhere.

    Args:
        classifier: Whose patch grid the maps are on.
        params: Patches or pixels.
    """

    def __init__(self, classifier: MaskableClassifier, params: ControlParams) -> None:
        self._grid, self._params = classifier.grid, params

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Ones [B, h, w], or [B, H, W], for images [B, 3, H, W]."""
        size = images.shape[-2:] if self._params.of_pixels else self._grid
        return images.new_ones(len(images), *size)
