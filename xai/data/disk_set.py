"""A labelled set of pictures on disk: an index in memory, the pictures read one at a time when asked for."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from xai.core.errors import UserError
from xai.data.images import read_image, read_labels
from xai.data.splits import SPLIT_SEED, stratified_parts

# The share of train that becomes validation where a data set has none of its own.
HELD_OUT = 0.1


class MissingError(UserError):
    """Part of a data set is not where it should be; `open_disk_set` adds the layout that was expected."""


class Files:
    """Pictures in files, by names relative to one folder (short strings, since a set may have a million)."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        """`names` are relative to `folder`, with forward slashes."""
        self.folder = folder
        self.names = tuple(names)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.names)

    def image(self, index: int) -> Image.Image:
        """Picture `index` as RGB; UserError naming the file when it cannot be read."""
        return read_image(self.folder / self.names[index])

    def take(self, rows: Tensor) -> "Files":
        """The pictures of these rows, in their order."""
        return Files(self.folder, [self.names[row] for row in rows.tolist()])


class Regions:
    """Where the object of each picture is: label maps in files beside the pictures, one of the same size for each."""

    def __init__(self, files: Files, inside: Sequence[int]) -> None:
        """`inside` are the numbers of a label map that mean the object."""
        self.files = files
        self.inside = tuple(inside)

    def region(self, index: int) -> NDArray[np.bool_]:
        """The region of picture `index`, [H, W]; UserError naming the file when it cannot be read."""
        return np.isin(read_labels(self.files.folder / self.files.names[index]), self.inside)

    def take(self, rows: Tensor) -> "Regions":
        """The regions of these rows, in their order."""
        return Regions(self.files.take(rows), self.inside)


class Packed:
    """Pictures packed in one array, which may be a file mapped into memory; rows are picked without copying it."""

    def __init__(self, pixels: NDArray[np.uint8], rows: Tensor | None = None) -> None:
        """`pixels` is [K, H, W] grey or [K, H, W, 3] RGB; `rows` [N] picks among K, None = all."""
        self.pixels = pixels
        self.rows = torch.arange(len(pixels)) if rows is None else rows

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.rows)

    def image(self, index: int) -> Image.Image:
        """Picture `index` as RGB."""
        return Image.fromarray(np.ascontiguousarray(self.pixels[int(self.rows[index])])).convert("RGB")

    def take(self, rows: Tensor) -> "Packed":
        """The pictures of these rows, in their order."""
        return Packed(self.pixels, self.rows[rows])


@dataclass(frozen=True)
class DiskSet:
    """One split of a data set.

    `classes` are names fit for a prompt, C of them; `labels` is int64 [N] in [0, C); `records` hold the N pictures,
    `regions` where the object of each is, for the sets that know.

    Raises:
        UserError: no pictures, a label out of range, fewer than two classes, or two class names that differ only in
            case, spaces or underscores.
    """

    classes: tuple[str, ...]
    labels: Tensor
    records: Files | Packed
    regions: Regions | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be trained on."""
        check_classes(self.classes)
        if len(self.labels) != len(self.records):
            raise UserError(f"there are {len(self.records)} pictures but {len(self.labels)} labels; one each is needed")
        if len(self.labels) == 0:
            raise UserError("the split has no pictures; at least one is needed")
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            wrong = low if low < 0 else high
            raise UserError(f"class number {wrong} is out of range; there are {len(self.classes)} classes, from 0")

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.records)

    def image(self, index: int) -> Image.Image:
        """Picture `index`, RGB; UserError naming the file when it cannot be read."""
        return self.records.image(index)

    def take(self, rows: Tensor) -> "DiskSet":
        """The same classes with only these rows, in their order."""
        regions = None if self.regions is None else self.regions.take(rows)
        return DiskSet(self.classes, self.labels[rows], self.records.take(rows), regions)


def train_part(whole: DiskSet, split: str, groups: Tensor | None = None) -> DiskSet:
    """Train or validation of a set whose official train has no validation split: nine tenths and one tenth of it."""
    train, validation = stratified_parts(whole.labels, (HELD_OUT,), seed=SPLIT_SEED, groups=groups)
    return whole.take(validation if split == "validation" else train)


def any_part(whole: DiskSet, split: str) -> DiskSet:
    """A split of a set that comes in one piece: eight, one and one tenth."""
    train, validation, test = stratified_parts(whole.labels, (HELD_OUT, HELD_OUT), seed=SPLIT_SEED)
    return whole.take({"train": train, "validation": validation, "test": test}[split])


def tidy_name(name: str) -> str:
    """A class name as a prompt says it: underscores and runs of white space become one space."""
    return " ".join(unicodedata.normalize("NFC", name).replace("_", " ").split())


def check_classes(classes: Sequence[str]) -> None:
    """Refuse fewer than two classes, empty names, and names that differ only in case, spaces or underscores.

    Raises:
        UserError: naming the classes.
    """
    if len(classes) < 2:
        only = f"one class only ({classes[0]})" if classes else "no classes"
        raise UserError(f"there is {only}; a classifier needs at least two")
    seen: dict[str, str] = {}
    for name in classes:
        key = unicodedata.normalize("NFKC", name).casefold().replace("_", "")
        key = "".join(key.split())
        if not key:
            raise UserError(f"class name {name!r} is empty; every class needs a name")
        if key in seen:
            raise UserError(f"class names {seen[key]!r} and {name!r} clash; rename one so that they tell apart")
        seen[key] = name


def locate(root: Path, marks: Iterable[str], inside: Iterable[str] = ()) -> Path:
    """The folder that holds every one of `marks`: `root`, or else one of the folders `inside` it.

    Raises:
        MissingError: naming what the best candidate lacks.
    """
    marks = tuple(marks)
    best: list[str] = list(marks)
    for base in (root, *(root / name for name in inside)):
        absent = [mark for mark in marks if not (base / mark).exists()]
        if not absent:
            return base
        if len(absent) < len(best):
            best = absent
    raise MissingError(f"needs {' and '.join(best)}; not found in {root}")


def check_present(files: Files, source: str) -> None:
    """Refuse an index that names files which are not there, before a run finds out half-way.

    Each folder is listed once, which on a network disk is far quicker than asking for each file.

    Raises:
        MissingError: how many of how many are absent, and the first of them.
    """
    listing: dict[str, set[str]] = {}
    absent: Counter[str] = Counter()
    for name in files.names:
        folder, _, leaf = name.rpartition("/")
        if folder not in listing:
            try:
                listing[folder] = set(os.listdir(files.folder / folder))
            except OSError:
                listing[folder] = set()
        if leaf not in listing[folder]:
            absent[name] += 1
    if absent:
        first = files.folder / next(iter(absent))
        raise MissingError(f"lacks {absent.total()} of the {len(files)} pictures named in {source}, first {first}")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file that are not blank, stripped.

    Raises:
        UserError: unreadable, no text, or empty.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text ({error!s:.120}); unpack the data set again") from None
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"{path} is empty; unpack the data set again")
    return lines
