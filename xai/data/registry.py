"""The registry of data sets: a name, its parameters, how to open it; and its images at the size a model wants."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.core import plugins
from xai.core.errors import UserError
from xai.core.settings import unknown
from xai.data.facts import SPLITS as SPLITS
from xai.data.facts import Split as Split


class Images(NamedTuple):
    """A batch of images: pixels [B, 3, H, W] in [0, 1], and where known the region of the object [B, H, W] bool."""

    pixels: Tensor
    regions: Tensor | None


class ImageSource(Protocol):
    """What every data set can do. Splits are fixed; the same arguments give the same images on every machine."""

    @property
    def classes(self) -> Sequence[str]:
        """The C class names."""

    @property
    def templates(self) -> Sequence[str]:
        """Captions with `{}` where a class name goes."""

    @property
    def varies(self) -> bool:
        """Whether an image differs from epoch to epoch (a new place, a new ground)."""

    def labels(self, split: str) -> Tensor:
        """Class indices [N] of a split."""

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The images at `indices` [B] of a split as they look in an epoch."""


@dataclass(frozen=True)
class Entry:
    """One line of the registry; `made_by` is the module that has registered it."""

    name: str
    about: str
    params: type
    open: Callable[[Any], ImageSource]
    made_by: str


_ENTRIES: dict[str, Entry] = {}


def register(
    name: str, about: str, params: type
) -> Callable[[Callable[[Any], ImageSource]], Callable[[Any], ImageSource]]:
    """Add a data set: decorates the function that opens it from its parameters (a dataclass).

    Raises:
        UserError: The name is taken.
    """

    def add(function: Callable[[Any], ImageSource]) -> Callable[[Any], ImageSource]:
        if name in _ENTRIES:
            both = f"{_ENTRIES[name].made_by} and {function.__module__}"
            raise UserError(f"the name {name} is taken: {both} both register a data set of that name, choose another")
        _ENTRIES[name] = Entry(name, about, params, function, plugins.registered())
        return function

    return add


def entry(name: str) -> Entry:
    """Look a data set up by name; an unknown name is a `UserError` that suggests the nearest."""
    if name not in _ENTRIES:
        raise UserError(unknown(f"data={name}", name, _ENTRIES, "data set", "choose from"))
    return _ENTRIES[name]


def names() -> list[str]:
    """All registered data sets, sorted."""
    return sorted(_ENTRIES)


def subset(source: ImageSource, split: str, images: int | None, seed: int) -> Tensor:
    """Row numbers of a random subset of a split, sorted; all of them where `images` is None.

    Raises:
        UserError: Where the split has fewer images.
    """
    available = len(source.labels(split))
    if images is None:
        return torch.arange(available)
    if not 1 <= images <= available:
        raise UserError(f"{images} images were asked for, the {split} split has {available}; null takes all")
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(available, generator=generator)[:images].sort().values


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
