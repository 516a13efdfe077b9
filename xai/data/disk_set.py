"""A labelled set of pictures on disk: an index in memory, the pictures read one at a time when asked for."""

import os
import struct
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.io import loadmat
from torch import Tensor

from xai.core.errors import UserError
from xai.core.files import read_text
from xai.data.images import read_image, read_labels

_MOST_OF_MAT = 1 << 30
"""Bytes of a MATLAB file when it is unpacked, of which a small one may hold any number."""
_MAT_HEAD, _MAT_COMPRESSED, _CHUNK = 128, 15, 1 << 20


class MissingError(UserError):
    """Part of a data set is not where it should be; whoever opens the set adds the layout that was expected."""


class Files:
    """Pictures in files, by names relative to one folder (short strings, since a set may have a million).

    Args:
        folder: Where they lie.
        names: Relative to it, with forward slashes.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, tuple(names)

    def __len__(self) -> int:
        return len(self.names)

    def image(self, index: int) -> Image.Image:
        """Picture `index` as RGB; UserError naming the file when it cannot be read."""
        return read_image(self.folder / self.names[index])

    def take(self, rows: Tensor) -> "Files":
        """The pictures of these rows, in their order."""
        return Files(self.folder, [self.names[row] for row in rows.tolist()])


class Packed:
    """Pictures packed in one array, which may be a file mapped into memory; rows are picked without copying it.

    Args:
        pixels: uint8 [K, H, W] grey or [K, H, W, 3] RGB.
        rows: [N] of the K; None takes all.
    """

    def __init__(self, pixels: NDArray[np.uint8], rows: Tensor | None = None) -> None:
        self.pixels = pixels
        self.rows = torch.arange(len(pixels)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def image(self, index: int) -> Image.Image:
        """Picture `index` as RGB."""
        return Image.fromarray(np.ascontiguousarray(self.pixels[int(self.rows[index])])).convert("RGB")

    def take(self, rows: Tensor) -> "Packed":
        """The pictures of these rows, in their order."""
        return Packed(self.pixels, self.rows[rows])


@dataclass(frozen=True)
class Regions:
    """Where the object of each picture is: label maps in files, one of the picture's size for each.

    Args:
        files: The label maps.
        inside: The numbers of a label map that mean the object.
        border: Those that mean a band around it, which may be counted as the object or not.
    """

    files: Files
    inside: tuple[int, ...]
    border: tuple[int, ...] = ()

    def region(self, index: int, size: tuple[int, int], border: bool) -> NDArray[np.bool_]:
        """The region of picture `index`, [H, W] of its own size; UserError naming the file that cannot be read."""
        file = self.files.folder / self.files.names[index]
        numbers = read_labels(file)
        if numbers.shape[::-1] != size:
            raise UserError(
                f"{file} is {numbers.shape[1]} x {numbers.shape[0]} and its picture {size[0]} x {size[1]}; "
                "they must be of one size: unpack the data set again"
            )
        return np.isin(numbers, self.inside + (self.border if border else ()))


@dataclass(frozen=True)
class DiskSet:
    """Labelled pictures.

    Args:
        classes: C names fit for a prompt.
        labels: int64 [N] in [0, C).
        records: The N pictures.
        regions: Where the object of each is, for the sets that know.
        groups: int64 [N]; pictures of one group (a film, a patient) are never shared out between splits.

    Raises:
        UserError: a label out of range, fewer than two classes, or class names that clash.
    """

    classes: tuple[str, ...]
    labels: Tensor
    records: Files | Packed
    regions: Regions | None = None
    groups: Tensor | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be trained on."""
        check_classes(self.classes)
        if len(self.labels) != len(self.records):
            raise UserError(f"there are {len(self.labels)} labels for {len(self.records)} pictures; get the set again")
        wrong = self.labels[(self.labels < 0) | (self.labels >= len(self.classes))].tolist()
        if wrong:
            raise UserError(f"class number {wrong[0]} is outside its {len(self.classes)} classes; get the set again")

    def __len__(self) -> int:
        return len(self.records)

    def take(self, rows: Tensor) -> "DiskSet":
        """The same classes with only these rows, in their order."""
        regions = self.regions and replace(self.regions, files=self.regions.files.take(rows))
        groups = None if self.groups is None else self.groups[rows]
        return replace(self, labels=self.labels[rows], records=self.records.take(rows), regions=regions, groups=groups)


def joined(parts: Sequence[DiskSet]) -> DiskSet:
    """Parts of one data set as one, in their order; groups of different parts stay different."""
    first, groups, start = parts[0], [], 0
    for part in parts:
        groups.append((torch.arange(len(part)) if part.groups is None else part.groups) + start)
        start = int(groups[-1].max()) + 1 if len(part) else start
    records: Files | Packed
    if isinstance(first.records, Files):
        records = _joined_files([part.records for part in parts if isinstance(part.records, Files)])
    else:
        held = [part.records for part in parts if isinstance(part.records, Packed)]
        records = Packed(np.concatenate([each.pixels[each.rows] for each in held]))
    regions = first.regions and replace(
        first.regions, files=_joined_files([part.regions.files for part in parts if part.regions is not None])
    )
    return DiskSet(first.classes, torch.cat([part.labels for part in parts]), records, regions, torch.cat(groups))


def _joined_files(parts: Sequence[Files]) -> Files:
    root = Path(os.path.commonpath([part.folder for part in parts]))
    return Files(root, [(part.folder / name).relative_to(root).as_posix() for part in parts for name in part.names])


@dataclass(frozen=True)
class DiskSetInfo:
    """A data set on disk.

    Args:
        about: One line of what it is.
        layout: How it must lie on disk; shown where it does not.
        parts: Which official parts it has below a folder: train and test, with validation or without; or `whole`.
        read: Reads one of them.
    """

    about: str
    layout: str
    parts: Callable[[Path], Sequence[str]]
    read: Callable[[Path, str], DiskSet]


DISK_SETS: dict[str, DiskSetInfo] = {}
Reader = Callable[[Path, str], DiskSet]


def disk_set(
    layout: str, parts: Sequence[str] | Callable[[Path], Sequence[str]] = ("train", "test")
) -> Callable[[Reader], Reader]:
    """Add a data set on disk: decorates the function that reads one of its official parts from its folder.

    The function's name is the data set's, and the first line of its docstring says what it is.
    """

    def add(read: Reader) -> Reader:
        about = (read.__doc__ or "").splitlines()[0].rstrip(".")
        found = parts if callable(parts) else lambda root: parts
        DISK_SETS[read.__name__] = DiskSetInfo(about, layout, found, read)
        return read

    return add


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
        key = "".join(unicodedata.normalize("NFKC", name).casefold().replace("_", "").split())
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
    best = list(marks)
    for base in (root, *(root / name for name in inside)):
        absent = [mark for mark in marks if not (base / mark).exists()]
        if not absent:
            return base
        best = min(best, absent, key=len)
    raise MissingError(f"needs {' and '.join(best)}; not found in {root}")


def first_of(places: Iterable[Path], what: str) -> Path:
    """The first of some places where there is something.

    Raises:
        MissingError: There is nothing at any of them; `what` says what is needed, and where.
    """
    found = next((place for place in places if place.exists()), None)
    if found is None:
        raise MissingError(f"needs {what}")
    return found


def check_present(files: Files, source: str) -> None:
    """Refuse an index that names files which are not there, before a run finds out half-way.

    Each folder is listed once, which on a network disk is far quicker than asking for each file.

    Raises:
        MissingError: how many of how many are absent, and the first of them.
    """
    listing: dict[str, set[str]] = {}
    absent = []
    for name in files.names:
        folder, _, leaf = name.rpartition("/")
        if folder not in listing:
            there = files.folder / folder
            listing[folder] = set(os.listdir(there)) if there.is_dir() else set()
        if leaf not in listing[folder]:
            absent.append(files.folder / name)
    if absent:
        raise MissingError(f"lacks {len(absent)} of the {len(files)} pictures named in {source}, first {absent[0]}")


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file that are not blank, stripped; UserError: unreadable, no text, or empty."""
    try:
        lines = [line.strip() for line in read_text(path).splitlines()]
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read as text ({error!s:.120}); unpack the data set again") from None
    lines = [line for line in lines if line]
    if not lines:
        raise UserError(f"{path} is empty; unpack the data set again")
    return lines


def read_mat(path: Path, *variables: str) -> list[Any]:
    """Variables of a MATLAB file (version 4 to 7), without axes of length one; nothing that it brings along is run.

    Raises:
        UserError: broken, cut short, of version 7.3 (which is HDF5), larger than it may be when it is unpacked, or
            without one of the variables.
    """
    try:
        if _unpacked_size(path) > _MOST_OF_MAT:
            raise UserError(f"{path} unpacks to more than {_MOST_OF_MAT:,} bytes: unpack the data set again")
        content = loadmat(path, variable_names=list(variables), squeeze_me=True)
    except NotImplementedError:
        raise UserError(f"{path} is a MATLAB 7.3 file; save it with -v7") from None
    except UserError:
        raise
    except Exception as error:  # the parser meets broken bytes with whatever error comes first
        why = " ".join(str(error).split())[:120] or type(error).__name__
        raise UserError(f"{path} cannot be read as a MATLAB file ({why}); unpack the data set again") from None
    absent = [name for name in variables if name not in content]
    if absent:
        raise UserError(f'{path} has no variable "{absent[0]}"; unpack the data set again')
    return [content[name] for name in variables]


def _unpacked_size(path: Path) -> int:
    """Bytes of the variables of a MATLAB file; counting ends beyond those there may be, and nothing is kept."""
    total = path.stat().st_size
    with open(path, "rb") as file:
        order = {b"IM": "<", b"MI": ">"}.get(file.read(_MAT_HEAD)[-2:])
        # Of version 4 nothing is packed.
        while order and len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(f"{order}II", tag)
            if kind != _MAT_COMPRESSED:
                file.seek(size, os.SEEK_CUR)
                continue
            packed = zlib.decompressobj()
            while size > 0 and (part := file.read(min(size, _CHUNK))):
                size -= len(part)
                while part and total <= _MOST_OF_MAT:
                    total += len(packed.decompress(part, _CHUNK))
                    part = packed.unconsumed_tail
    return total
