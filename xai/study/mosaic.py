"""Images of four images: what the grid pointing game is played on where a data set has one object an image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.core.errors import UserError
from xai.data.catalogue import OpenData
from xai.data.registry import Images
from xai.study.case import Case
from xai.study.scores import Chosen

_CELLS = 4


class Tiles(NamedTuple):
    """Which images stand in the cells of each, and where the one that is asked about is.

    Attributes:
        members: [N, 4] positions in the case, cell by cell and row by row.
        place: [N] the cell of the image that is asked about.
    """

    members: Tensor
    place: Tensor


def lay_out(classes: Tensor, generator: torch.Generator) -> Tiles:
    """Each image, beside three others of other classes, in a random cell (Böhle et al. 2021).

    Args:
        classes: [N]; each image's, as the classifier has it.
        generator: Source of the draws.

    Raises:
        UserError: There is an image that has none of another class beside it.
    """
    members, places = [], []
    for position in range(len(classes)):
        others = (classes != classes[position]).nonzero()[:, 0]
        if not len(others):
            raise UserError("all images are of one class, and a grid of several objects needs two")
        order = others[torch.randperm(len(others), generator=generator)]
        # With few images some stand there twice; never one of the class that is asked about.
        three = order.repeat(-(-3 // len(order)))[:3]
        place = int(torch.randint(_CELLS, (), generator=generator))
        members.append(torch.cat([three[:place], torch.tensor([position]), three[place:]]))
        places.append(place)
    return Tiles(torch.stack(members), torch.tensor(places))


@dataclass(frozen=True)
class Mosaic:
    """The images of a case, four at a time at half their size, as a data set; see `ImageSource`.

    Args:
        case: Whose images, each of which is asked about once, for the class that the case explains.
    """

    case: Case
    templates: Sequence[str] = ("a photo of a {}.",)
    varies: bool = False

    @property
    def classes(self) -> Sequence[str]:
        """Those of the classifier."""
        return self.case.model.classes

    def labels(self, split: str) -> Tensor:
        """The class that is asked about, [N]; in the split of the case, and none in others."""
        return self.case.targets if split == self.case.split else self.case.targets[:0]

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """Grids of 2 x 2 images, and as the region the cell of the one that is asked about."""
        half = self.case.model.image_size // 2
        tiles = self._halves[self._tiles.members[indices]].unflatten(1, (2, 2))
        across = torch.cat([tiles[:, :, 0], tiles[:, :, 1, ..., :half]], dim=-1)
        whole = torch.cat([across[:, 0], across[:, 1, :, :half]], dim=-2)
        return Images(whole, self.cells(split, indices, epoch))

    def cells(self, split: str, indices: Tensor, epoch: int) -> Tensor:
        """The cell of the image that is asked about, bool [B, H, W]."""
        size = self.case.model.image_size
        half = torch.arange(size) >= size - size // 2
        place = self._tiles.place[indices]
        return (half == (place // 2)[:, None].bool())[:, :, None] & (half == (place % 2)[:, None].bool())[:, None]

    @cached_property
    def _halves(self) -> Tensor:
        """All images at half their size, rounded up: read once, however many blocks of grids there are."""
        blocks = range(len(self.case.blocks))
        return torch.cat([F.avg_pool2d(self.case.images(number).pixels, 2, ceil_mode=True) for number in blocks])

    @cached_property
    def _tiles(self) -> Tiles:
        return lay_out(self.case.targets, torch.Generator().manual_seed(self.case.seed))


def mosaic_of(case: Case) -> Case:
    """The same images in grids of four, each explained for its own class: a case for the grid pointing game alone."""
    source = Mosaic(case)
    data = OpenData(case.data.name, {"name": "mosaic", "of": case.spec}, source)
    params = replace(case.params, images=None, targets="label")
    return replace(case, data=data, params=params, name="grid", only=None, compared=None, home=case)


def probed(case: Case, probe: OpenData, images: int | None = None) -> Case:
    """Images of a data set that has several objects on each, asked about one after the other.

    Args:
        case: What is asked about them, of each for its own class.
        probe: The data set.
        images: How many; None: as many as the case has.

    Raises:
        UserError: It has not several objects on each, or has other classes than the case.
    """
    check_probe(probe, case.data.name, case.model.classes)
    # Rows in twos, two questions about one image.
    wanted = len(case.rows) + len(case.rows) % 2 if images is None else images
    params = replace(case.params, images=None, targets="label")
    only = tuple(range(min(wanted, len(probe.source.labels(case.split)))))
    return replace(case, data=probe, params=params, name="grid", only=only, compared=None, home=case)


def check_probe(probe: OpenData, data: str, classes: Sequence[str]) -> None:
    """Refuse a data set that has not several objects on each image, or other classes than those of `data`."""
    if not hasattr(probe.source, "cells"):
        raise UserError(f"probe={probe.name} has not several objects an image: use mnist_pair")
    if tuple(probe.source.classes) != tuple(classes):
        raise UserError(f"probe={probe.name} has other classes than data={data}: they have to be the same")


def with_probe(case: Case, metrics: Sequence[Chosen], probe: Case | None) -> list[tuple[Case, Sequence[Chosen]]]:
    """The case with its metrics, and a probe of it with those about several objects an image."""
    about_objects = [each for each in metrics if "cells" in each.needs]
    others = [each for each in metrics if each not in about_objects]
    return [(case, others)] if probe is None else [(case, others), (probe, about_objects)]


def no_mosaic(case: Case) -> str | None:
    """Why a case has no grids, in a line; None where it has."""
    return None if len(case.targets.unique()) > 1 else "all images are of one class, and a grid needs two"
