"""Brightness as a map: how far a place is from the ground, seen without any classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.explainers.controls.params import ControlParams
from xai.explainers.registry import explainer
from xai.models.maskable import MaskableClassifier


@explainer(
    "brightness",
    label="Brightness",
    about="how far the brightness of a place is from that of the ground; no model is asked",
    params=ControlParams,
    kind="control",
    class_specific=False,
    passes=lambda params, patches: 0,
)
class Brightness:
    """The distance from the median brightness, whichever of the two is brighter.

    Args:
        classifier: Whose patch grid the maps are on.
        params: Patches or pixels.
    """

    def __init__(self, classifier: MaskableClassifier, params: ControlParams) -> None:
        self._grid, self._params = classifier.grid, params

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Distances [B, h, w], or [B, H, W], of images [B, 3, H, W]; `targets` [B] take no part."""
        pixels = distance_from_ground(images)
        return pixels if self._params.of_pixels else F.adaptive_avg_pool2d(pixels, self._grid)


def distance_from_ground(images: Tensor) -> Tensor:
    """|grey level - median grey level of the image| of every pixel, [B, H, W], of images [B, 3, H, W] in [0, 1]."""
    grey = images.mean(1)
    median = grey.flatten(1).median(1).values[:, None, None]
    return (grey - median).abs()
