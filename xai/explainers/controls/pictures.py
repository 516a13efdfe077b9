"""Maps that ask no model: brightness, edges, chance, nothing at all, and the region of the object itself."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import settings
from xai.explainers.block import Block, Explanation, OfClassifier, source
from xai.explainers.params import MapParams
from xai.explainers.registry import explainer
from xai.metrics.functional import patch_coverage
from xai.models.maskable import exact

_CONTROL: dict[str, Any] = {"kind": "control", "class_specific": False, "passes": lambda params, patches: 0}


class OfImage(OfClassifier[MapParams]):
    """A map of pixels, that is averaged within patches unless pixels are asked for."""

    def pixels(self, images: Tensor) -> Tensor:
        """Maps [B, H, W] of images [B, 3, H, W] in [0, 1]."""
        raise NotImplementedError

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w], or [B, H, W], of images [B, 3, H, W]; `targets` [B] take no part."""
        pixels = self.pixels(images)
        return pixels if self.params.of_pixels else F.adaptive_avg_pool2d(pixels, self.classifier.grid)


@explainer(
    "brightness",
    label="Brightness",
    about="how far the brightness of a place is from that of the ground; no model is asked",
    params=MapParams,
    **_CONTROL,
)
class Brightness(OfImage):
    """The distance from the median brightness, whichever of the two is brighter."""

    def pixels(self, images: Tensor) -> Tensor:
        """|grey level - median grey level of the image|."""
        grey = images.mean(1)
        return (grey - grey.flatten(1).median(1).values[:, None, None]).abs()


@explainer(
    "edges",
    label="Edges",
    about="how steeply the grey level changes, by Sobel's operator; no model is asked",
    params=MapParams,
    **_CONTROL,
)
class Edges(OfImage):
    """What an edge detector sees: many maps by gradients look like it, whatever was learned (Adebayo et al. 2018)."""

    def pixels(self, images: Tensor) -> Tensor:
        """Length of the grey level's gradient by Sobel's 3 x 3 operator; the border is repeated."""
        slope, blur = images.new_tensor([-1.0, 0.0, 1.0]), images.new_tensor([1.0, 2.0, 1.0])
        across = torch.outer(blur, slope)
        kernels = torch.stack([across, across.T])[:, None]
        padded = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        with exact(images):
            return F.conv2d(padded, kernels).square().sum(1).sqrt()


@explainer("random", label="Random", about="a map drawn at random", params=MapParams, **_CONTROL)
class RandomMap(OfClassifier[MapParams]):
    """Draws every patch or pixel evenly from [0, 1)."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w], or [B, H, W], of images [B, 3, H, W]; neither they nor `targets` [B] take part."""
        size = images.shape[-2:] if self.params.of_pixels else self.classifier.grid
        return torch.rand(len(images), *size, generator=source(generator)).to(images.device)


@settings
class ConstantParams(MapParams):
    """What the map is of, and what it says.

    Args:
        value: Of every patch or pixel. Shares of a map's mass need one that is not 0; refinement starts best from 0.
    """

    value: float = 1.0


@explainer("constant", label="Constant", about="a map that is the same everywhere", params=ConstantParams, **_CONTROL)
class Constant(OfClassifier[ConstantParams]):
    """One value everywhere, and in every image."""

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The value, [B, h, w] or [B, H, W], for images [B, 3, H, W]."""
        size = images.shape[-2:] if self.params.of_pixels else self.classifier.grid
        return images.new_full((len(images), *size), self.params.value)


@explainer(
    "object_mask",
    label="Object mask",
    about="the region of the object itself as a map; its RMA and RRA are the most there is",
    params=MapParams,
    needs={"regions"},
    **_CONTROL,
)
class ObjectMask(OfClassifier[MapParams]):
    """The share of each patch that lies in the region, or for pixels whether it does."""

    def explain(self, block: Block) -> Explanation:
        """Maps in [0, 1], float32: [B, h, w] or [B, H, W]; UserError where the images have no regions."""
        if block.regions is None:
            raise UserError("object_mask needs the regions of the objects: leave it out for images without them")
        if self.params.of_pixels:
            return Explanation(block.regions.float())
        return Explanation(patch_coverage(block.regions, self.classifier.grid).float())
