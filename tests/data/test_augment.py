"""Variations of training pictures: where they go, the regions go, and the same address gives the same picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from tests.data.disk_forms import folders, noise, picture
from xai.data.augment import Augmentation, augmented
from xai.data.disk import DiskParams, DiskSource

PUBLISHED = Augmentation(
    crop=0.8, horizontal=0.5, vertical=0.5, jitter=0.8, brightness=0.2, contrast=0.2, saturation=0.1, hue=0.1
)


def test_regions_go_where_the_pixels_go() -> None:
    region = torch.zeros(40, 40, dtype=torch.bool)
    region[5:20, 10:25] = True
    pixels = (region.to(torch.uint8) * 255).expand(3, -1, -1)
    shown = set()
    for number in range(60):
        params = Augmentation(crop=0.5, horizontal=0.5, vertical=0.5)
        varied, found = augmented(pixels, region, 32, params, str(number))
        assert varied.shape == (3, 32, 32)
        assert found.dtype == torch.bool
        assert found[varied[0] > 230].all()
        assert not found[varied[0] < 25].any()
        centre = found.nonzero().float().mean(0)
        shown.add((bool(centre[0] > 16), bool(centre[1] > 16)))
    assert shown == {(False, False), (False, True), (True, False), (True, True)}


def test_flips_and_jitter_come_as_often_as_asked_and_no_larger() -> None:
    pixels = torch.full((3, 8, 8), 100, dtype=torch.uint8)
    pixels[:, 0, 0] = 0
    varied = [augmented(pixels, None, 8, Augmentation(horizontal=0.25), str(n))[0] for n in range(400)]
    assert sum(int(each[0, 0, 7] == 0) for each in varied) / 400 == pytest.approx(0.25, abs=0.07)
    only = Augmentation(jitter=0.5, brightness=0.2)
    levels = torch.stack([augmented(pixels, None, 8, only, str(n))[0][0, 4, 4] for n in range(400)]).float()
    assert (levels != 100).float().mean().item() == pytest.approx(0.5, abs=0.08)
    assert levels.min() >= 79
    assert levels.max() <= 121
    assert levels.max() - levels.min() > 35
    assert torch.equal(augmented(pixels, None, 8, Augmentation(), "a")[0], pixels)


def opened(root: Path, **given: Any) -> DiskSource:
    return DiskSource("folder", DiskParams(str(root), **{"size": 12, **given}))


def test_only_training_is_varied_with_the_epoch_and_always_the_same_way(tmp_path: Path) -> None:
    folders(tmp_path, {"a": 10, "b": 10})
    source, plain = opened(tmp_path, resize=16, augment=PUBLISHED), opened(tmp_path, resize=16)
    assert source.varies
    assert not plain.varies
    rows = torch.tensor([3, 0, 7])
    first = source.images("train", rows, 0).pixels
    assert torch.equal(source.images("train", rows, 0).pixels, first)
    assert torch.equal(source.images("train", rows[1:], 0).pixels, first[1:])
    assert not torch.equal(source.images("train", rows, 1).pixels, first)
    assert not torch.equal(plain.images("train", rows, 0).pixels, first)
    for split in ("validation", "test"):
        few = torch.arange(2)
        assert torch.equal(source.images(split, few, 3).pixels, plain.images(split, few, 0).pixels)


@pytest.mark.parametrize("fit", ["squash", "crop"])
def test_pictures_are_resized_and_their_centre_is_cut_out(tmp_path: Path, fit: str) -> None:
    colours = {name: picture(tmp_path / name, noise(50, 70, 3)) for name in ("a/0.png", "b/0.png")}
    for split in ("train", "val", "test"):
        for name, pixels in colours.items():
            picture(tmp_path / "set" / split / name, pixels)
    size: Any = (32, 32) if fit == "squash" else 32
    published = transforms.Compose(
        [
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(28),
            transforms.ToTensor(),
        ]
    )
    found = opened(tmp_path / "set", size=28, resize=32, fit=fit).images("test", torch.arange(2), 0).pixels
    for image, pixels in zip(found, colours.values(), strict=True):
        torch.testing.assert_close(image, published(Image.fromarray(np.asarray(pixels))), rtol=0, atol=1e-6)
