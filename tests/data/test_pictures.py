"""Pictures without labels: which files they are, and what is refused."""

import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.disk_forms import noise, picture
from tests.toolbox import refusal
from xai.data.catalogue import open_data
from xai.data.contents import hashes
from xai.data.photos import PHOTOS, PackagedPhotos, PhotosParams
from xai.study.case import CaseParams, check_images


def opened(path: Path | str, **given: Any) -> Any:
    return open_data({"name": "pictures", "path": str(path), "size": 4, "classes": ["cat", "dog"], **given}, "data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b.png", "a.JPG", "inner/c.png", "a.explained.png", ".hidden.png"):
        picture(tmp_path / "photos" / name, noise(4, 4, 3))
    (tmp_path / "photos" / "notes.txt").write_text("x")
    return tmp_path / "photos"


@pytest.mark.parametrize(
    ("which", "names"),
    [("", ["a.JPG", "b.png", "inner/c.png"]), ("*.*", ["a.JPG", "b.png"]), ("b.png", ["b.png"])],
)
def test_a_folder_a_glob_and_a_file(folder: Path, which: str, names: list[str]) -> None:
    data = opened(folder / which if which else folder)
    source = data.source
    assert not source.labelled
    assert [len(source.labels(split)) for split in ("train", "validation", "test")] == [0, 0, len(names)]
    found = source.images("test", torch.arange(len(names)), 0)
    assert found.regions is None

    for image, name in zip(found.pixels, names, strict=True):
        pixels = np.asarray(Image.open(folder / name)).transpose(2, 0, 1) / 255
        np.testing.assert_allclose(image.numpy(), pixels, atol=1e-6)
    before = data.spec["fingerprint"]
    picture(folder / names[0], noise(4, 4, 3))
    assert opened(folder / which if which else folder).spec["fingerprint"] != before


def test_what_is_remembered_of_a_folder_is_read_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, list[str]]] = []

    def watched(place: Path, names: list[str]) -> list[str]:
        asked.append((place.name, names))
        return hashes(place, names)

    monkeypatch.setattr("xai.data.pictures.hashes", watched)
    found = opened(folder).spec["fingerprint"]
    assert asked == [("photos", ["a.JPG", "b.png"]), ("inner", ["c.png"])]
    pictures = [folder.resolve() / name for name in ("a.JPG", "b.png", "inner/c.png")]
    held = [(str(path), hashes(path.parent, [path.name])) for path in pictures]
    assert found == hashlib.sha256(repr(held).encode()).hexdigest()[:20]


def test_what_cannot_be_explained_is_refused(folder: Path, tmp_path: Path) -> None:
    assert "leads to no picture" in refusal(opened, folder / "*.gif")
    assert "data.classes is not set" in refusal(opened, folder, classes=None)
    (folder / "x.heic").write_bytes(b"x")
    assert "x.heic is of a kind that is not read" in refusal(opened, folder)
    data = opened(folder / "a.JPG")
    told = refusal(check_images, data, CaseParams("test", None, 1, "label"))
    assert "has no labels; set case.targets=predicted" in told
    told = refusal(check_images, data, CaseParams("validation", None, 1, "predicted"))
    assert "validation split of data=pictures has no images" in told
    assert "data.path is empty: give a file, a folder or a glob" in refusal(opened, "")
    (tmp_path / "names.txt").write_text("tabby cat\n\npug\n")
    assert opened(folder / "a.JPG", classes=str(tmp_path / "names.txt")).source.classes == ("tabby cat", "pug")


def test_the_middle_square_comes_first_and_crops_lie_within_it_or_beside(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage", reason="scikit-image is not installed: pip install scikit-image")
    photos = PackagedPhotos(PhotosParams(size=32, crops=3, classes=("a", "b")))
    assert len(photos.labels("test")) == 3 * len(PHOTOS)
    assert len(photos.labels("train")) == 0
    chelsea = [name for _, name in PHOTOS].index("data/chelsea.png")
    found = photos.images("test", torch.tensor([chelsea, chelsea + len(PHOTOS)]), 0).pixels
    image = Image.open(photos._paths[chelsea]).convert("RGB")
    side = round(min(image.size) * 0.75)
    left, top = round(0.2 * (image.width - side)), round(0.5 * (image.height - side))
    square = image.crop((left, top, left + side, top + side))
    mean = torch.tensor([sum(band.tobytes()) / len(band.tobytes()) / 255 for band in square.split()])
    torch.testing.assert_close(found[1].mean((1, 2)), mean, atol=0.02, rtol=0)
    assert found.shape == (2, 3, 32, 32)
    assert (found[0] - found[1]).abs().mean() > 0.02


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    told = refusal(PackagedPhotos, PhotosParams(size=32, classes=("a", "b")))
    assert "data=photos needs the package scikit-learn, which is not installed" in told
    assert "data.classes is not set" in refusal(PackagedPhotos, PhotosParams(size=32))
