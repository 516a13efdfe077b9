"""Maps drawn at random: what a metric gives to no order at all."""

import torch
from torch import Tensor

from xai.explainers.block import source
from xai.explainers.controls.params import ControlParams
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@explainer(
    "random",
    label="Random",
    about="a map drawn at random",
    params=ControlParams,
    kind="control",
    class_specific=False,
    passes=lambda params, patches: 0,
)
class RandomMap:
    """Draws every patch or pixel evenly from [0, 1).

    Args:
        classifier: Whose patch grid the maps are on.
        params: Patches or pixels.
    """

    def __init__(self, classifier: MaskableClassifier, params: ControlParams) -> None:
        self._grid, self._params = classifier.grid, params

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w], or [B, H, W], of images [B, 3, H, W]; neither they nor `targets` [B] take part."""
        size = images.shape[-2:] if self._params.of_pixels else self._grid
        return torch.rand(len(images), *size, generator=source(generator)).to(images.device)
