"""Brightness as a map: how far a place is from the ground, seen without any classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.explainers.block import OfClassifier
from xai.explainers.params import MapParams
from xai.explainers.registry import explainer


@explainer(
    "brightness",
    label="Brightness",
    about="how far the brightness of a place is from that of the ground; no model is asked",
    params=MapParams,
    kind="control",
    class_specific=False,
    passes=lambda params, patches: 0,
)
class Brightness(OfClassifier[MapParams]):
    """The distance from the median brightness, whichever of the two is brighter."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Distances [B, h, w], or [B, H, W], of images [B, 3, H, W]; `targets` [B] take no part."""
        pixels = distance_from_ground(images)
        return pixels if self.params.of_pixels else F.adaptive_avg_pool2d(pixels, self.classifier.grid)


def distance_from_ground(images: Tensor) -> Tensor:
    """|grey level - median grey level of the image| of every pixel, [B, H, W], of images [B, 3, H, W] in [0, 1]."""
    grey = images.mean(1)
    median = grey.flatten(1).median(1).values[:, None, None]
    return (grey - median).abs()
