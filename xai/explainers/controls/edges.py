"""Edges as a map: how steep the grey level is, seen without any classifier."""

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.explainers.block import OfClassifier
from xai.explainers.params import MapParams
from xai.explainers.registry import explainer


@explainer(
    "edges",
    label="Edges",
    about="how steeply the grey level changes, by Sobel's operator; no model is asked",
    params=MapParams,
    kind="control",
    class_specific=False,
    passes=lambda params, patches: 0,
)
class Edges(OfClassifier[MapParams]):
    """What an edge detector sees: many maps by gradients look like it, whatever was learned (Adebayo et al. 2018)."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Steepness [B, h, w], or [B, H, W], of images [B, 3, H, W]; `targets` [B] take no part."""
        pixels = sobel(images.mean(1))
        return pixels if self.params.of_pixels else F.adaptive_avg_pool2d(pixels, self.classifier.grid)


def sobel(grey: Tensor) -> Tensor:
    """Length of the gradient by Sobel's 3 x 3 operator, [B, H, W], of grey levels [B, H, W]; the border is repeated."""
    slope, blur = grey.new_tensor([-1.0, 0.0, 1.0]), grey.new_tensor([1.0, 2.0, 1.0])
    across = torch.outer(blur, slope)
    kernels = torch.stack([across, across.T])[:, None]
    gradients = F.conv2d(F.pad(grey[:, None], (1, 1, 1, 1), mode="replicate"), kernels)
    return gradients.square().sum(1).sqrt()
