"""Images of a split at the size that a model wants."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.data.registry import Images, ImageSource


def load_images(source: ImageSource, split: str, indices: Tensor, epoch: int, size: int, threads: int = 0) -> Images:
    """Read images of a split at the size a model wants: pixels [B, 3, size, size], regions [B, size, size] or None.

    Threads decode side by side; what they read does not depend on how many they are.
    """
    if threads > 1 and len(indices) > 1:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(partial(load_images, source, split, epoch=epoch, size=size), indices.chunk(threads)))
        found = [part.regions for part in parts if part.regions is not None]
        return Images(torch.cat([part.pixels for part in parts]), torch.cat(found) if found else None)
    pixels, regions = source.images(split, indices, epoch)
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True, align_corners=False).clamp(
            0, 1
        )
        if regions is not None:
            regions = F.interpolate(regions[:, None].float(), size=(size, size), mode="nearest")[:, 0] > 0.5
    return Images(pixels, regions)
