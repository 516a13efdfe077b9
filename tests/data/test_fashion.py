import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tests.data.disk_forms import idx
from tests.toolbox import refusal
from xai.data.fashion import FashionParams, open_fashion_scattered
from xai.data.packaged import PackagedSet
from xai.data.registry import SPLITS

RNG = np.random.default_rng(0)
LABELS = RNG.permutation(np.arange(300) % 10).astype(np.uint8)
PIXELS = RNG.integers(0, 256, (300, 28, 28), dtype=np.uint8)
CLEAN = {"jitter": 0, "ground": 0.0, "ground_spread": 0.0, "texture": 0.0, "noise": 0.0, "object_size": 20}


def write(root: Path, pixels: np.ndarray = PIXELS, labels: np.ndarray = LABELS, packed: bool = True) -> None:
    for leaf, values in (("images-idx3", pixels), ("labels-idx1", labels)):
        path = root / f"train-{leaf}-ubyte{'.gz' if packed else ''}"
        path.write_bytes(gzip.compress(idx(values)) if packed else idx(values))


def opened(root: Path, **given: object) -> PackagedSet:
    params = FashionParams(root=str(root), **{"images": 200, **CLEAN, **given})  # type: ignore[arg-type]
    return open_fashion_scattered(params)  # type: ignore[return-value]


@pytest.mark.parametrize(("packed", "by_class"), [(True, False), (False, False), (False, True)])
def test_as_many_images_of_each_class_are_drawn_split_and_scattered(
    tmp_path: Path, packed: bool, by_class: bool
) -> None:
    order = LABELS.argsort(kind="stable") if by_class else np.arange(300)
    all_pixels, all_labels = PIXELS[order], LABELS[order]
    write(tmp_path, all_pixels, all_labels, packed=packed)
    source = opened(tmp_path)
    assert source.classes[0] == "T-shirt"
    assert source.classes[9] == "ankle boot"
    # 20 of each class: 8 % and 12 %, rounded down, for validation and test.
    assert [torch.bincount(source.labels(split)).tolist() for split in SPLITS] == [[17] * 10, [1] * 10, [2] * 10]
    wanted = torch.from_numpy(all_pixels).float()[:, None] / 255
    objects = F.interpolate(wanted, (20, 20), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)[:, 0]
    seen = []
    for split in SPLITS:
        images, regions = source.images(split, torch.arange(len(source.labels(split))), 0)
        assert regions is not None
        for image, region, label in zip(images[:, 0], regions, source.labels(split).tolist(), strict=True):
            top, left = (21 * int(region.any(axis).nonzero()[0] >= 21) for axis in (1, 0))
            place = int((objects - image[top : top + 20, left : left + 20]).abs().amax((1, 2)).argmin())
            torch.testing.assert_close(image[top : top + 20, left : left + 20], objects[place], rtol=0, atol=1e-5)
            assert all_labels[place] == label
            seen.append(place)
    assert len(set(seen)) == 200
    # Drawn, not the first of a file that may be sorted in some way.
    assert sorted(seen) != sorted(row for label in range(10) for row in np.flatnonzero(label == all_labels)[:20])


def test_the_fingerprint_is_that_of_pixels_and_labels(tmp_path: Path) -> None:
    write(tmp_path)
    first = opened(tmp_path).fingerprint
    write(tmp_path, packed=False)
    assert opened(tmp_path).fingerprint == first
    other = PIXELS ^ 128
    write(tmp_path, pixels=other, packed=False)
    second = opened(tmp_path).fingerprint
    write(tmp_path, labels=LABELS[::-1].copy(), packed=False)
    assert len({first, second, opened(tmp_path).fingerprint}) == 3


def test_missing_files_name_the_package(tmp_path: Path) -> None:
    message = refusal(lambda: opened(tmp_path))
    assert "train-images-idx3-ubyte.gz; not found in" in message
    assert "apt install dataset-fashion-mnist" in message
    assert str(tmp_path) in message
    write(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte.gz").unlink()
    assert "or train-labels-idx1-ubyte.gz; not found in" in refusal(lambda: opened(tmp_path))


def test_what_cannot_be_used_is_said_in_one_line(tmp_path: Path) -> None:
    write(tmp_path)
    assert "fewer than 31 images of some class" in refusal(lambda: opened(tmp_path, images=310))
    assert "clutter=-1" in refusal(lambda: FashionParams(clutter=-1))
    write(tmp_path, labels=LABELS[:-1])
    assert "one label from 0 to 9 for each of the 300 images" in refusal(lambda: opened(tmp_path))
    write(tmp_path, labels=LABELS + 1)
    assert "one label from 0 to 9" in refusal(lambda: opened(tmp_path))
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(b"no gzip")
    assert refusal(lambda: opened(tmp_path)).startswith("data=fashion_scattered: ")
