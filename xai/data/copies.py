"""The same digit several times in one image, each in another hand: what one of them shows, the others show again.

On one digit a classifier is at a guess as soon as its best patches are gone, whatever is removed after them. Where
evidence is redundant, removal from the most important on tells who has found all of it and who only some.
"""

import torch
from torch import Tensor

from xai.core.settings import Count, FieldError, settings
from xai.data.packaged import PackagedSet, mnist_objects
from xai.data.registry import SPLITS, register
from xai.data.scatter import ScatterParams, Scene, scatter_groups

_DIGITS = 40
"""Of each class in the smallest split."""


@settings
class CopiesParams(ScatterParams):
    """How many digits of a class are in an image, and how a scene is laid out.

    Args:
        copies: Digits in an image, each in a cell of its own.
    """

    copies: Count = 3

    def __post_init__(self) -> None:
        """Refuse layouts that cannot hold so many objects, and more than a class has in a split."""
        super().__post_init__()
        if self.copies > self.cells**2:
            raise FieldError(
                "copies",
                f"must be at most {self.cells**2}, the cells of {self.cells} x {self.cells}; got {self.copies}",
            )
        if self.copies > _DIGITS:
            raise FieldError("copies", f"must be at most {_DIGITS}, the digits of a class in the validation split")


class CopiesSet(PackagedSet):
    """Scenes of several objects of one class: each object of a split is the first of one scene.

    Which objects are together is fixed, and all are of the same split; where they lie differs from epoch to epoch. A
    region is the union of the objects' bounding boxes.

    Args:
        objects: [N, s, s] in [0, 1], ink is 1, with s = `params.object_size`.
        labels: [N] class indices; a split has `params.copies` objects of each class or more.
        params: The layout.
    """

    def __init__(self, objects: Tensor, labels: Tensor, params: CopiesParams) -> None:
        super().__init__(objects, labels, "mnist", params)
        self._groups = {
            split: _groups(rows, labels[rows], params.copies, torch.Generator().manual_seed(SPLITS.index(split)))
            for split, rows in self._rows.items()
        }

    def _draw(self, split: str, generator: torch.Generator) -> Scene:
        assert self._params is not None
        scene = scatter_groups(self._pixels[self._groups[split]], self._params, generator)
        return scene._replace(regions=scene.regions.any(1))


def _groups(rows: Tensor, labels: Tensor, k: int, generator: torch.Generator) -> Tensor:
    """Each row [N], and k - 1 others of its class drawn without replacement: [N, k]."""
    groups = rows.new_empty(len(rows), k)
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        drawn = torch.rand(len(own), len(own), generator=generator).fill_diagonal_(-1)
        groups[own] = rows[own[drawn.argsort(dim=1)[:, :k]]]
    return groups


@register("mnist_copies", "the same digit several times in one image, each in another hand", CopiesParams)
def open_mnist_copies(params: CopiesParams) -> CopiesSet:
    """The digits of mnist_scattered, in groups of one class."""
    return CopiesSet(*mnist_objects(params.object_size), params)
