import functools
import pickle

import pytest
import torch
from torch import Tensor

from tests.toolbox import there
from xai.data.packaged import NoParams, mnist_objects, open_mnist5k, open_mnist_scattered
from xai.data.pair import PairParams, PairSet, open_mnist_pair
from xai.data.registry import SPLITS
from xai.data.scatter import ScatterParams

CLEAN = PairParams(jitter=0, ground=0.0, ground_spread=0.0, texture=0.0, noise=0.0)


@functools.cache
def clean() -> PairSet:
    """Pairs on empty ground, each object at the corner of its cell."""
    return open_mnist_pair(CLEAN)  # type: ignore[return-value]


def everything(source: PairSet, split: str, epoch: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels [2 N, H, W], regions and cells of all rows."""
    rows = torch.arange(len(source.labels(split)))
    images, regions = source.images(split, rows, epoch)
    return images[:, 0], there(regions), source.cells(split, rows, epoch)


def objects_asked_for(source: PairSet, split: str) -> Tensor:
    """What lies in the cell of each row, cut out of the image: [2 N, 20, 20]."""
    pixels, _, cells = everything(source, split)
    return pixels[cells].reshape(-1, 21, 21)[:, :20, :20]


def test_rows_come_in_twos_of_the_same_pixels_and_different_classes() -> None:
    source = open_mnist_pair(PairParams(clutter=3, polarity="random"))
    for split in SPLITS:
        first, second = source.labels(split).reshape(-1, 2).unbind(1)
        assert (first != second).all()
        # Every other class is a partner; none of the 90 ordered couples is missing where there are thousands.
        assert split != "train" or len((10 * first + second).unique()) == 90
        assert torch.equal(first.sort().values, open_mnist5k(NoParams()).labels(split).sort().values)
        # Whoever takes the first rows meets every class.
        assert len(first[:100].unique()) == 10
    pixels, regions, cells = (part.unflatten(0, (-1, 2)) for part in everything(source, "validation"))
    assert torch.equal(pixels[:, 0], pixels[:, 1])
    assert not (regions[:, 0] & regions[:, 1]).any()
    assert not (cells[:, 0] & cells[:, 1]).any()
    assert (regions <= cells).all()
    assert (cells.flatten(2).sum(2) == 21 * 21).all()


@pytest.mark.parametrize("split", SPLITS)
def test_the_object_of_a_row_is_a_digit_of_its_class_and_split(split: str) -> None:
    found = objects_asked_for(clean(), split).flatten(1)
    digits, labels = mnist_objects(20)
    # The rows of the splits, and where each digit is in the package, by way of the centred digits.
    rows = {name: open_mnist5k(NoParams())._rows[name] for name in SPLITS}  # type: ignore[attr-defined]
    place = torch.cdist(found, digits.flatten(1)).argmin(1)
    # `cdist` multiplies: the distance it gives of equal images is the root of what rounding leaves.
    assert float((found - digits.flatten(1)[place]).norm(dim=1).max()) < 1e-2
    assert set(place.tolist()) <= set(rows[split].tolist())
    assert torch.equal(labels[place], clean().labels(split))
    # Each digit of the split is the first of one pair.
    assert torch.equal(place[::2].sort().values, rows[split])


def test_pairs_stay_and_places_change_from_epoch_to_epoch() -> None:
    source, again = open_mnist_pair(PairParams()), open_mnist_pair(PairParams())
    assert source.varies
    rows = torch.tensor([301, 4, 5, 4])
    for split in SPLITS:
        assert torch.equal(source.labels(split), again.labels(split))
    whole = everything(source, "validation", 2)
    part = again.images("validation", rows, 2)
    assert torch.equal(part.pixels[:, 0], whole[0][rows])
    assert torch.equal(part.regions, whole[1][rows])
    assert torch.equal(again.cells("validation", rows, 2), whole[2][rows])
    moved = (whole[1] != everything(source, "validation", 3)[1]).flatten(1).any(1)
    assert moved.float().mean() > 0.7


def test_workers_can_be_sent_the_pairs() -> None:
    rows = torch.arange(3)
    for source in (open_mnist_pair(PairParams()), open_mnist_scattered(ScatterParams())):
        images = source.images("test", rows, 1).pixels
        sent = pickle.loads(pickle.dumps(source))
        assert torch.equal(sent.images("test", rows, 1).pixels, images)
        assert not torch.equal(sent.images("test", rows, 2).pixels, images)
