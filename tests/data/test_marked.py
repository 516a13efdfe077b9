import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.toolbox import refusal
from xai.data.marked import MarkedSet, MarkParams
from xai.data.registry import SPLITS, Images, load_images

MARK = MarkParams(radius=0.12)
ROWS = torch.arange(40)


class Greys:
    """Forty grey images of four classes in turn; the upper half is the object."""

    classes = ("a", "b", "c", "d")
    templates = ("{}",)
    varies = False

    def __init__(self, height: int = 20, width: int = 30) -> None:
        self.shape = (height, width)

    def labels(self, split: str) -> Tensor:
        return torch.arange(40) % 4

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        regions = torch.zeros(len(indices), *self.shape, dtype=torch.bool)
        regions[:, : self.shape[0] // 2] = True
        return Images(torch.full((len(indices), 3, *self.shape), 0.25), regions)


def everywhere(**changes: Any) -> MarkedSet:
    return MarkedSet(Greys(), MarkParams(**{"radius": 0.12, **changes}))


def pixels_of(source: MarkedSet, split: str = "train", rows: Tensor = ROWS, epoch: int = 0) -> Tensor:
    return source.images(split, rows, epoch).pixels


def centres(marks: Tensor) -> Tensor:
    """Centre of gravity [N, 2] of each mark, in pixels."""
    return torch.stack([mark.nonzero().double().mean(0) for mark in marks]) + 0.5


def test_only_images_of_the_class_are_changed_and_their_regions_are_not() -> None:
    plain, marked = Greys().images("train", ROWS, 0), MarkedSet(Greys(), MARK, 2).images("train", ROWS, 0)
    changed = (plain.pixels != marked.pixels).flatten(1).any(1)
    assert torch.equal(changed, ROWS % 4 == 2)
    assert torch.equal(marked.regions, plain.regions)
    assert torch.equal(MarkedSet(Greys(), MARK, 2).marks("train", ROWS, 0, (20, 30)).flatten(1).any(1), changed)


def test_the_mark_is_a_disc_of_its_radius_wholly_inside_the_image() -> None:
    source, radius = everywhere(level=1.0), 0.12 * 20
    pixels, marks = pixels_of(source).double().numpy(), source.marks("train", ROWS, 0, (20, 30))
    for image, mark in zip(pixels, marks.numpy(), strict=True):
        cover = (image - 0.25) / 0.75
        # What it covers adds up to the area of a disc, wherever between the pixels its centre lies.
        np.testing.assert_allclose(cover.sum((1, 2)), np.pi * radius**2, rtol=0.04)
        np.testing.assert_array_equal(mark, cover[0] >= 0.5 - 1e-6)
        rows, columns = np.mgrid[:20, :30] + 0.5
        top, left = (cover[0] * rows).sum() / cover[0].sum(), (cover[0] * columns).sum() / cover[0].sum()
        distance = np.hypot(rows - top, columns - left)
        assert cover[0][distance < radius - 0.75].min() == pytest.approx(1, abs=1e-5)
        assert cover[0][distance > radius + 0.75].max() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_the_mark_has_its_level_whatever_lies_below_it(level: float) -> None:
    pixels = everywhere(level=level).images("train", ROWS, 0).pixels
    found = pixels.sub(0.25).abs().flatten(1).amax(1) + 0.25 if level > 0.25 else pixels.flatten(1).amin(1)
    torch.testing.assert_close(found, torch.full((40,), level))


def test_places_are_all_over_the_image_and_independent_of_the_class() -> None:
    found = torch.cat([centres(everywhere().marks("train", ROWS, epoch, (20, 30))) for epoch in range(25)])
    spread, radius = found / torch.tensor([20.0, 30.0]), 2.4
    for axis, side in enumerate((20, 30)):
        low, high = radius / side, 1 - radius / side
        counts = torch.histc(spread[:, axis].float(), 4, low, high)
        assert counts.min() > 190, "a thousand places, evenly in four quarters: 250 each, deviation 14"
    by_class = found.reshape(25, 10, 4, 2).mean((0, 1))
    assert (by_class - found.mean(0)).abs().max() < 1.8, "the mean of 250 places deviates by 0.5"


def test_a_mark_depends_on_seed_split_epoch_and_row_alone() -> None:
    shuffled = torch.tensor([7, 3, 39, 3])
    source = everywhere()
    assert torch.equal(pixels_of(source, rows=shuffled), pixels_of(everywhere())[shuffled])
    pixels_of(source, epoch=5)
    assert torch.equal(pixels_of(source), pixels_of(pickle.loads(pickle.dumps(everywhere()))))
    others = [pixels_of(source, split, epoch=epoch) for split in SPLITS for epoch in (0, 1)]
    others += [pixels_of(everywhere(seed=1)), pixels_of(everywhere(seed=1), epoch=1)]
    apart = torch.cdist(torch.stack(others).flatten(1), torch.stack(others).flatten(1))
    assert (apart + 2 * torch.eye(8) > 1).all()
    assert source.varies
    labelled = MarkedSet(Greys(), MARK, 1)
    assert torch.equal(pixels_of(labelled)[1::4], pixels_of(source)[1::4])


def test_marks_are_known_at_the_size_that_images_are_read_at() -> None:
    source = MarkedSet(Greys(42, 42), MarkParams(0.1, seed=3))
    for size in (42, 63, 84):
        marks = source.marks("validation", ROWS, 0, (size, size))
        torch.testing.assert_close(marks.double().mean((1, 2)), torch.full((40,), 0.0314).double(), rtol=0.1, atol=0)
        changed = load_images(source, "validation", ROWS, 0, size).pixels[:, 0] - 0.25
        assert changed[marks].mean() > 0.6
        assert changed[~marks].mean() < 0.01


@pytest.mark.parametrize("label", [4, -1])
def test_a_class_that_is_not_there_cannot_be_marked(label: int) -> None:
    message = f"class {label} cannot be marked: the data set has 4, 0 to 3"
    assert refusal(MarkedSet, Greys(), MARK, label) == message
