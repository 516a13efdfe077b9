"""Two objects of different classes in one image: what speaks for one of them must lie on that one.

Rows come in twos. Rows 2i and 2i + 1 show the same pixels; row 2i has the label and the region of the first object, row
2i + 1 those of the second. So whoever explains, trains or measures by rows needs to know nothing of pairs, and an
explanation that is the same for both rows is wrong about at least one of them.
"""

import torch
from torch import Tensor

from xai.core.settings import FieldError, settings
from xai.data.packaged import PackagedSet, mnist_objects, rgb
from xai.data.registry import SPLITS, Images, register
from xai.data.scatter import ScatterParams, Scene, cell_masks, scatter_groups


@settings
class PairParams(ScatterParams):
    """How a scene of two objects is laid out: as `ScatterParams`, with two cells or more along a side."""

    def __post_init__(self) -> None:
        """Refuse layouts that cannot hold two objects."""
        super().__post_init__()
        if self.cells < 2:
            raise FieldError("cells", "leaves no room for the second object of a pair: use 2 or more")


class PairSet(PackagedSet):
    """Scenes of two objects: each object of a split is the first of one pair, with a partner of another class.

    Who is paired with whom is fixed, and both are of the same split; where they lie differs from epoch to epoch. Pairs
    are in random order, so that the first rows of a split are a fair sample of it.

    Args:
        objects: [N, s, s] in [0, 1], ink is 1, with s = `params.object_size`.
        labels: [N] class indices.
        params: The layout.
    """

    def __init__(self, objects: Tensor, labels: Tensor, params: PairParams) -> None:
        super().__init__(objects, labels, "mnist", params)
        self._pairs = {
            split: _pairs(rows, labels[rows], torch.Generator().manual_seed(SPLITS.index(split)))
            for split, rows in self._rows.items()
        }

    def labels(self, split: str) -> Tensor:
        """Class asked for in each row of a split, [2 N]."""
        return self._labels[self._pairs[split]].flatten()

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The scenes at `indices` [B], with the region of the object asked for."""
        scenes = self._scenes(split, epoch)
        pair, place = indices // 2, indices % 2
        return Images(rgb(scenes.images[pair]), scenes.regions[pair, place])

    def cells(self, split: str, indices: Tensor, epoch: int) -> Tensor:
        """The cell of the object asked for, bool [B, H, W]: what the grid pointing game counts as right.

        The game (Böhle et al., "Convolutional Dynamic Alignment Networks for Interpretable Classifications", CVPR 2021)
        takes the share of positive attribution that falls into it.
        """
        assert self._params is not None
        corners = self._scenes(split, epoch).corners[indices // 2, indices % 2]
        return cell_masks(corners, self._params)

    def _draw(self, split: str, generator: torch.Generator) -> Scene:
        assert self._params is not None
        return scatter_groups(self._pixels[self._pairs[split]], self._params, generator)


def _pairs(rows: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Each row [N] and a random one of another class, in random order: [N, 2]; there are two classes or more."""
    order = torch.randperm(len(rows), generator=generator)
    rows, labels = rows[order], labels[order]
    partner = torch.randint(len(rows), (len(rows),), generator=generator)
    while (same := labels[partner] == labels).any():
        partner[same] = torch.randint(len(rows), (int(same.sum()),), generator=generator)
    return torch.stack([rows, rows[partner]], dim=1)


@register("mnist_pair", "two digits of different classes in one image; rows in twos, one asking for each", PairParams)
def open_mnist_pair(params: PairParams) -> PairSet:
    """Pairs of the digits of mnist_scattered."""
    return PairSet(*mnist_objects(params.object_size), params)
