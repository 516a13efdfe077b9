import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from xai.core.errors import UserError
from xai.data import catalogue, disk, registry
from xai.data.disk import DiskParams, DiskSource
from xai.data.disk_set import DISK_SETS


@pytest.fixture
def root(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for number in range(2):
            for label in ("cat", "dog"):
                path = tmp_path / "pets" / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(rng.integers(0, 256, (9, 13, 3), dtype=np.uint8)).save(path)
    return tmp_path / "pets"


def opened(root: Path) -> DiskSource:
    return DiskSource("folder", DiskParams(str(root), 9))


def test_pictures_are_the_files_own_in_any_order_and_epoch(root: Path) -> None:
    source = opened(root)
    assert source.classes == ("cat", "dog")
    assert not source.varies
    for split, folder in (("train", "train"), ("validation", "val"), ("test", "test")):
        expected = sorted(
            (np.asarray(Image.open(path))[:, 2:11].tobytes(), label)
            for label, name in enumerate(source.classes)
            for path in (root / folder / name).iterdir()
        )
        images, regions = source.images(split, torch.arange(4), epoch=3)
        assert regions is None
        assert images.shape == (4, 3, 9, 9)
        pixels = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
        found = zip([image.tobytes() for image in pixels], source.labels(split).tolist(), strict=True)
        assert sorted(found) == expected
        backwards = source.images(split, torch.tensor([3, 1]), epoch=0).pixels
        assert torch.equal(backwards, images[[3, 1]])


def test_the_fingerprint_changes_with_the_pictures_and_only_then(root: Path) -> None:
    first = opened(root).fingerprint
    assert opened(root).fingerprint == first
    seen = {first}

    def changed() -> bool:
        new = opened(root).fingerprint
        known = new in seen
        seen.add(new)
        return not known

    picture = root / "train" / "cat" / "0.png"
    picture.rename(root / "train" / "cat" / "7.png")
    assert changed()
    (root / "train" / "cat" / "7.png").rename(root / "train" / "dog" / "7.png")
    assert changed()
    Image.new("RGB", (12, 9)).save(root / "train" / "dog" / "7.png")
    assert changed()
    (root / "test" / "dog" / "1.png").unlink()
    assert changed()
    Image.new("RGB", (12, 9)).save(root / "val" / "dog" / "new.png")
    assert changed()


def test_a_set_is_kept_whole_or_not_at_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    original = disk.to_pixels

    def counted(picture: Image.Image, size: int, fit: str, **how: Any) -> torch.Tensor:
        read.append(fit)
        return original(picture, size, fit, **how)

    monkeypatch.setattr(disk, "to_pixels", counted)
    needed = 12 * 4 * 9 * 9
    for room, reads in ((needed, 4), (needed - 1, 12)):
        monkeypatch.setattr(disk, "_KEPT_BYTES", room)
        source = opened(root)
        read.clear()
        epochs = [source.images("train", torch.tensor(rows), 0).pixels for rows in ([2, 0, 3, 1],) * 3]
        assert len(read) == reads
        assert torch.equal(epochs[0], epochs[2])


def test_workers_can_be_sent_the_data_set(root: Path) -> None:
    source = opened(root)
    images = source.images("train", torch.arange(4), 0).pixels
    assert torch.equal(pickle.loads(pickle.dumps(source)).images("train", torch.arange(4), 0).pixels, images)


def test_the_registry_opens_every_set_under_its_own_name(root: Path) -> None:
    catalogue.fill()
    assert registry.entry("folder").open(DiskParams(str(root), 8)).classes == ("cat", "dog")
    packaged = {"digits", "digits_scattered", "glyphs_scattered", "mnist5k", "mnist_scattered"}
    packaged |= {"fashion_scattered", "mnist_copies", "mnist_pair", "mnist_parity_scattered", "photos", "pictures"}
    assert set(registry.names()) == packaged | set(DISK_SETS)
    assert registry.names() == sorted(registry.names())
    with pytest.raises(UserError, match=r"data=mnist_scatter is not a known data set: did you mean mnist_scattered\?"):
        registry.entry("mnist_scatter")
    with pytest.raises(UserError, match=r"data=zzz is not a known data set: choose from .*digits"):
        registry.entry("zzz")
