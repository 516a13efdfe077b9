import pytest
import torch

from tests.toolbox import there
from xai.core.errors import UserError
from xai.data import catalogue
from xai.data.copies import CopiesParams, CopiesSet, open_mnist_copies
from xai.data.packaged import NoParams, mnist_objects, open_mnist5k
from xai.data.registry import SPLITS

CLEAN = CopiesParams(jitter=0, ground=0.0, ground_spread=0.0, texture=0.0, noise=0.0)


def found(source: CopiesSet, split: str, epoch: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """What lies in each of the four cells of each image, [N, 4, 20, 20], and where it is in the package, [N, 4]."""
    pixels = source.images(split, torch.arange(len(source.labels(split))), epoch).pixels[:, 0]
    cells = pixels.unfold(1, 21, 21).unfold(2, 21, 21).flatten(1, 2)[..., :20, :20]
    place = torch.cdist(cells.flatten(0, 1).flatten(1), mnist_objects(20)[0].flatten(1)).argmin(1)
    return cells, place.unflatten(0, (-1, 4))


def test_an_image_shows_different_digits_of_its_class_and_split() -> None:
    source = open_mnist_copies(CLEAN)
    centred = open_mnist5k(NoParams())
    digits, classes = mnist_objects(20)
    for split in SPLITS[1:]:
        assert torch.equal(source.labels(split), centred.labels(split))
        cells, place = found(source, split)
        shown = cells.amax((2, 3)) > 0.5
        assert (shown.sum(1) == 3).all()
        assert float((cells - digits[place])[shown].abs().max()) < 1e-6
        assert torch.equal(classes[place[shown]], source.labels(split).repeat_interleave(3))
        rows = centred._rows[split]  # type: ignore[attr-defined]
        assert set(place[shown].tolist()) == set(rows.tolist())
        for own, seen, row in zip(place, shown, rows, strict=True):
            assert row in own[seen]
            assert len(own[seen].unique()) == 3


def test_groups_stay_and_places_change_from_epoch_to_epoch() -> None:
    source, again = open_mnist_copies(CLEAN), open_mnist_copies(CLEAN)
    assert source.varies
    rows = torch.arange(20)
    (first, regions), other = source.images("test", rows, 0), source.images("test", rows, 1)
    assert torch.equal(first, again.images("test", rows, 0).pixels)
    assert not torch.equal(first, other.pixels)
    # The region is what the objects cover, whichever they are.
    assert ((first[:, 0] > 0.25) <= regions).all()
    cells = regions.unfold(1, 21, 21).unfold(2, 21, 21).flatten(1, 2)
    assert (cells.flatten(2).any(2).sum(1) == 3).all()
    groups = [found(source, "test", epoch)[1].sort(1).values[:20] for epoch in (0, 1)]
    assert torch.equal(*groups)


def test_more_digits_than_cells_are_refused() -> None:
    with pytest.raises(UserError, match=r"data.copies=5 must be at most 4, the cells of 2 x 2"):
        catalogue.open_data({"name": "mnist_copies", "copies": 5}, "data")


def test_more_digits_than_a_class_has_in_a_split_are_refused() -> None:
    wide = {"name": "mnist_copies", "canvas": 70, "cells": 7, "object_size": 8}
    with pytest.raises(UserError, match=r"data.copies=41 must be at most 40, the digits of a class in the validation"):
        catalogue.check_data({**wide, "copies": 41}, "data")
    source = catalogue.open_data({**wide, "copies": 40}, "data").source
    assert min(int(torch.bincount(source.labels(split)).min()) for split in SPLITS) == 40
    regions = there(source.images("validation", torch.tensor([0]), 0).regions)
    cells = regions.unfold(1, 10, 10).unfold(2, 10, 10).flatten(1, 2)
    assert int(cells.flatten(2).any(2).sum()) == 40
