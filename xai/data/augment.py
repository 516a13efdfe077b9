"""Random crops, flips and changes of colour in training; what is drawn depends on split, epoch and row alone."""

import hashlib
import math
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from xai.core.settings import Share, settings

_RATIO = math.log(4 / 3)
"""Of the sides of a crop: its logarithm is uniform between minus this and this."""


@settings
class Augmentation:
    """How training pictures are varied; the regions of objects are cropped and flipped with them.

    Args:
        crop: The smallest share of the picture's area that is cut out, before a side that would be longer than the
            picture's is cut to it; 1 cuts nothing off. Sides differ by 4 / 3 at most.
        horizontal: How often left and right are swapped.
        vertical: How often top and bottom are.
        jitter: How often colours are changed: brightness, contrast and saturation by a factor of 1 +- what follows, and
            hue by so much of the circle.
        brightness: See `jitter`.
        contrast: See `jitter`.
        saturation: See `jitter`.
        hue: See `jitter`.
    """

    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    horizontal: Share = 0.0
    vertical: Share = 0.0
    jitter: Share = 0.0
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.0


def augmented(
    pixels: Tensor, region: Tensor | None, size: int, params: Augmentation, address: str
) -> tuple[Tensor, Tensor | None]:
    """A training picture, varied.

    Args:
        pixels: uint8 [3, H, W].
        region: bool [H, W] of the object, or None.
        size: Side of the result.
        params: How much.
        address: What the draws are determined by: the same address gives the same picture.

    Returns:
        uint8 [3, size, size], and the region, bool [size, size].
    """
    seed = int.from_bytes(hashlib.sha256(address.encode()).digest()[:8], "big") >> 1
    draws = torch.rand(12, generator=torch.Generator().manual_seed(seed)).tolist()
    area, ratio, down, across, left_right, up_down, jitter, *colours = draws
    height, width = pixels.shape[-2:]
    share = math.sqrt(params.crop + (1 - params.crop) * area)
    stretch = math.exp(_RATIO * (ratio - 0.5)) if params.crop < 1 else 1.0
    h, w = (max(1, min(side, round(side * share * f))) for side, f in ((height, 1 / stretch), (width, stretch)))
    top, left = round(down * (height - h)), round(across * (width - w))
    pixels = tv.resized_crop(pixels, top, left, h, w, [size, size], antialias=True)
    if region is not None:
        region = tv.resized_crop(region[None].float(), top, left, h, w, [size, size], antialias=True)[0] > 0.5
    for flip, wanted in (
        (tv.horizontal_flip, left_right < params.horizontal),
        (tv.vertical_flip, up_down < params.vertical),
    ):
        if wanted:
            pixels, region = flip(pixels), None if region is None else flip(region)
    return (_jittered(pixels, params, colours) if jitter < params.jitter else pixels), region


def _jittered(pixels: Tensor, params: Augmentation, draws: list[float]) -> Tensor:
    strengths = (params.brightness, params.contrast, params.saturation)
    changes = (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation)
    for change, strength, draw in zip(changes, strengths, draws, strict=False):
        pixels = change(pixels, 1 + strength * (2 * draw - 1))
    return tv.adjust_hue(pixels, params.hue * (2 * draws[3] - 1)) if params.hue else pixels
