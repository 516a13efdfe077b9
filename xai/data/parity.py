"""Even against odd digits: a data set of two classes, for what treats two classes in a way of its own."""

import torch
from torch import Tensor

from xai.data.packaged import open_mnist_scattered
from xai.data.prompts import PROMPTS
from xai.data.registry import Images, ImageSource, register
from xai.data.scatter import ScatterParams


class MergedClasses:
    """A data set whose classes are merged into fewer: the same images, regions and splits under other labels.

    Args:
        source: The data set, of C classes.
        classes: The names of the merged classes.
        templates: Their captions, with `{}` where a class name goes.
        merged: [C] index into `classes` of each class of `source`.

    Raises:
        ValueError: an index is missing, or there is no such class.
    """

    def __init__(
        self, source: ImageSource, classes: tuple[str, ...], templates: tuple[str, ...], merged: Tensor
    ) -> None:
        if merged.shape != (len(source.classes),) or set(merged.tolist()) != set(range(len(classes))):
            raise ValueError(f"merged {merged.tolist()} must map {len(source.classes)} classes onto {len(classes)}")
        self.classes, self.templates, self.varies = classes, templates, source.varies
        self._source, self._merged = source, merged

    def labels(self, split: str) -> Tensor:
        """Merged class indices [N] of a split."""
        return self._merged[self._source.labels(split)]

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The images of the data set itself."""
        return self._source.images(split, indices, epoch)


@register("mnist_parity_scattered", "mnist_scattered, told apart as even and odd digits: two classes", ScatterParams)
def open_mnist_parity(params: ScatterParams) -> MergedClasses:
    """The scenes of mnist_scattered, bit by bit, labelled 0 (even) or 1 (odd)."""
    return MergedClasses(open_mnist_scattered(params), ("even", "odd"), PROMPTS["mnist_parity"], torch.arange(10) % 2)
