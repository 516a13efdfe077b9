"""What the tests of the data sets on disk share: small pictures, folders of them, and what a set holds."""

import struct
from pathlib import Path

import numpy as np
from PIL import Image

from tests import toolbox
from xai.data.disk import Cut, splits_of
from xai.data.disk_set import DiskSet
from xai.data.registry import SPLITS

RNG = np.random.default_rng(0)


def open_disk_set(name: str, root: Path | str | None, split: str, cut: Cut = "official") -> DiskSet:
    return splits_of(name, root, cut)(split)


def noise(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def picture(path: Path, pixels: np.ndarray | None = None) -> np.ndarray:
    """Save a picture without loss, whatever its name says, and return its pixels."""
    pixels = noise(3, 4, 3) if pixels is None else pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, format="PPM" if path.suffix.lower() == ".ppm" else "PNG")
    return pixels


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


def folders(root: Path, counts: dict[str, int]) -> dict[str, np.ndarray]:
    """`counts[folder]` pictures in each folder; the pixels by relative name."""
    names = [f"{folder}/{number:03d}.jpg" for folder, count in counts.items() for number in range(count)]
    return {name: picture(root / name) for name in names}


def content(data: DiskSet) -> list[tuple[bytes, str]]:
    """What the set holds, whatever the order: pixels and class name of each picture."""
    pixels = [np.asarray(data.records.image(index)) for index in range(len(data))]
    return sorted((p.tobytes(), data.classes[label]) for p, label in zip(pixels, data.labels.tolist(), strict=True))


def expected(pairs: list[tuple[np.ndarray, str]]) -> list[tuple[bytes, str]]:
    return sorted((pixels.tobytes(), name) for pixels, name in pairs)


def refusal(name: str, root: Path | str | None, split: str = "train") -> str:
    message = toolbox.refusal(open_disk_set, name, root, split)
    assert message.startswith(f"data={name}")
    return message


def sizes(name: str, root: Path, cut: Cut = "official") -> list[int]:
    return [len(open_disk_set(name, root, split, cut)) for split in SPLITS]


def train_and_validation(name: str, root: Path) -> tuple[list[tuple[bytes, str]], DiskSet]:
    """All of official train by its two parts, which must not overlap; and validation."""
    train, validation = open_disk_set(name, root, "train"), open_disk_set(name, root, "validation")
    assert not {c[0] for c in content(train)} & {c[0] for c in content(validation)}
    return sorted(content(train) + content(validation)), validation
