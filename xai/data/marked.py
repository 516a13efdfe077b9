"""A white circle in the images of one class: a shortcut that a classifier learns, and an explanation has to reveal."""

import hashlib
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import Share, settings
from xai.data.registry import Images, ImageSource

Radius = Annotated[float, Field(gt=0, lt=0.5)]
"""Of a circle that fits into an image, as a share of its shorter side."""


@settings
class MarkParams:
    """The mark: a filled circle with a soft edge, wholly inside the image.

    Args:
        radius: Its radius as a share of the image's shorter side.
        level: Its grey level in [0, 1]; 1 is white.
        seed: Of its places.
    """

    radius: Radius
    level: Share = 1.0
    seed: int = 0


class MarkedSet:
    """A data set with a mark in each image of one class, or of all (Schinagl et al. 2026, Figure 5).

    Where the mark lies depends on the seed, the split, the epoch and the row alone, and says nothing of the class. It
    may lie over the object, whose region stays what it is.

    Args:
        source: The data set.
        mark: What is put into its images.
        label: The class whose images are marked; None marks all images.

    Raises:
        UserError: There is no such class.
    """

    varies = True

    def __init__(self, source: ImageSource, mark: MarkParams, label: int | None = None) -> None:
        count = len(source.classes)
        if label is not None and not 0 <= label < count:
            raise UserError(f"class {label} cannot be marked: the data set has {count}, 0 to {count - 1}")
        self.classes, self.templates = source.classes, source.templates
        self._source, self._mark, self._label = source, mark, label

    def labels(self, split: str) -> Tensor:
        """Class indices [N] of a split."""
        return self._source.labels(split)

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The images at `indices` [B] with their marks."""
        pixels, regions = self._source.images(split, indices, epoch)
        cover = self._cover(split, indices, epoch, (pixels.shape[-2], pixels.shape[-1]))[:, None]
        return Images(pixels + cover * (self._mark.level - pixels), regions)

    def marks(self, split: str, indices: Tensor, epoch: int, size: tuple[int, int]) -> Tensor:
        """The pixels of the marks, bool [B, H, W], in images of `size` (H, W); none where an image has no mark.

        Places are shares of the image, so that they are known at any size that images of the same shape are read at.
        """
        return self._cover(split, indices, epoch, size) >= 0.5

    def _cover(self, split: str, indices: Tensor, epoch: int, size: tuple[int, int]) -> Tensor:
        """The share of each pixel that the mark covers, [B, H, W]."""
        labels = self.labels(split)
        # A name of its own: the scenes of some data sets are drawn from small seeds, by which these would agree.
        name = f"mark of {self._mark.seed}, {split}, {epoch}"
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
        places = torch.rand(len(labels), 2, generator=torch.Generator().manual_seed(seed))[indices]
        radius = self._mark.radius * min(size)
        down, across = (
            torch.arange(side) + 0.5 - (radius + place * (side - 2 * radius))[:, None]
            for side, place in zip(size, places.unbind(1), strict=True)
        )
        distance = torch.hypot(down[:, :, None], across[:, None, :])
        marked = torch.ones(len(indices)) if self._label is None else (labels[indices] == self._label).float()
        return (radius + 0.5 - distance).clamp(0, 1) * marked[:, None, None]
