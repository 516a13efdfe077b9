"""Maps drawn at random: what a metric gives to no order at all."""

import torch
from torch import Tensor

from xai.explainers.block import OfClassifier, source
from xai.explainers.params import MapParams
from xai.explainers.registry import explainer


@explainer(
    "random",
    label="Random",
    about="a map drawn at random",
    params=MapParams,
    kind="control",
    class_specific=False,
    passes=lambda params, patches: 0,
)
class RandomMap(OfClassifier[MapParams]):
    """Draws every patch or pixel evenly from [0, 1)."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w], or [B, H, W], of images [B, 3, H, W]; neither they nor `targets` [B] take part."""
        size = images.shape[-2:] if self.params.of_pixels else self.classifier.grid
        return torch.rand(len(images), *size, generator=source(generator)).to(images.device)
