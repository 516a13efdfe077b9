"""Photographs inside wheels: which squares, and what happens without the package."""

import importlib.util

import pytest
import torch
from PIL import Image

from xai.core.errors import UserError
from xai.data.photos import PHOTOS, PackagedPhotos, PhotosParams


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
    with pytest.raises(UserError, match="data=photos needs scikit-learn, which is not installed: pip install scikit-l"):
        PackagedPhotos(PhotosParams(size=32, classes=("a", "b")))
    with pytest.raises(UserError, match=r"data\.classes is not set"):
        PackagedPhotos(PhotosParams(size=32))
