"""Data sets packed in arrays: MNIST (idx), SVHN (MATLAB), CIFAR-100 and STL-10 (raw bytes).

None of them is unpickled: of CIFAR-100 the binary version is read. Uncompressed files are mapped, not loaded.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from xai.core.errors import UserError
from xai.data.disk_set import DiskSet, MissingError, Packed, disk_set, first_of, locate, read_lines, read_mat, tidy_name
from xai.data.prompts import DIGITS

_MOST_UNPACKED = 1 << 31
"""Bytes of a packed file, of which a small one may announce any number."""


@disk_set("train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or .gz)")
def mnist(root: Path, part: str) -> DiskSet:
    """MNIST: 10 handwritten digits, 70,000 pictures of 28 x 28."""
    stem = "t10k" if part == "test" else "train"
    images, labels = find_idx(root, f"{stem}-images", 3), find_idx(root, f"{stem}-labels", 1)
    return _packed_set(DIGITS, read_idx(images, 3), read_idx(labels, 1), labels)


@disk_set("train_32x32.mat and test_32x32.mat")
def svhn(root: Path, part: str) -> DiskSet:
    """Street View House Numbers: 10 digits, 99,289 photographs of 32 x 32."""
    leaf = f"{part}_32x32.mat"
    path = locate(root, (leaf,), ("svhn", "SVHN")) / leaf
    pixels, labels = (np.asarray(value) for value in read_mat(path, "X", "y"))
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UserError(f"{path} holds X of {pixels.dtype} {pixels.shape}; expected uint8 (32, 32, 3, N)")
    labels = np.atleast_1d(labels).astype(np.int64)
    if ((labels < 1) | (labels > 10)).any():
        raise UserError(f"{path} has a label outside 1 to 10; unpack the data set again")
    # The files call the digit 0 class 10.
    return _packed_set(DIGITS, pixels.transpose(3, 0, 1, 2), labels % 10, path)


@disk_set("cifar-100-binary/train.bin, cifar-100-binary/test.bin and cifar-100-binary/fine_label_names.txt")
def cifar100(root: Path, part: str) -> DiskSet:
    """CIFAR-100: 100 kinds of things, 60,000 photographs of 32 x 32."""
    leaf, inside = f"{part}.bin", "cifar-100-binary"
    try:
        base = locate(root, (leaf, "fine_label_names.txt"), (inside, f"cifar100/{inside}"))
    except MissingError:
        if any((root / name / "meta").is_file() for name in (".", "cifar-100-python", "cifar100/cifar-100-python")):
            raise UserError(
                f"{root} holds CIFAR-100 as Python pickles, which are not read because they can run code; "
                "get cifar-100-binary.tar.gz"
            ) from None
        raise
    # A record: coarse label, fine label, then the red, green and blue planes.
    records = _mapped(base / leaf, 2 + 3 * 32 * 32)
    pixels = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return _packed_set(read_lines(base / "fine_label_names.txt"), pixels, records[:, 1], base / leaf)


@disk_set("stl10_binary/train_X.bin, train_y.bin, test_X.bin, test_y.bin and class_names.txt")
def stl10(root: Path, part: str) -> DiskSet:
    """STL-10: 10 kinds of things, 13,000 labelled photographs of 96 x 96."""
    marks = (f"{part}_X.bin", f"{part}_y.bin", "class_names.txt")
    base = locate(root, marks, ("stl10_binary", "stl10/stl10_binary"))
    # Three planes, each stored column by column.
    pixels = _mapped(base / marks[0], 3 * 96 * 96).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    labels = _mapped(base / marks[1], 1)[:, 0].astype(np.int64) - 1
    return _packed_set(read_lines(base / marks[2]), pixels, labels, base / marks[1])


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """A file of the idx format (MNIST's own), of unsigned bytes: four bytes of magic, sizes, then the bytes.

    Raises:
        UserError: not idx, of another type or number of dimensions, cut short, or with bytes left over.
    """
    packed = path.suffix == ".gz"
    try:
        with gzip.open(path) if packed else open(path, "rb") as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
                raise UserError(f"{path} is no idx file of {dimensions} dimensions; unpack the data set again")
            shape = struct.unpack(f">{dimensions}I", head[4:])
            size = int(np.prod(shape, dtype=object))
            if packed and size > _MOST_UNPACKED:
                raise UserError(f"{path} announces {size} bytes, more than are unpacked in memory: gunzip it first")
            # One byte more than announced tells a longer file without unpacking all of it.
            body = file.read(size + 1) if packed else b""
            left = len(body) if packed else path.stat().st_size - len(head)
    except (OSError, EOFError, zlib.error, MemoryError, OverflowError) as error:
        raise UserError(f"{path} is broken ({error!s:.120}); unpack the data set again") from None
    if left != size:
        raise UserError(f"{path} announces {size} bytes and has {'more' if left > size else left}; get it again")
    if size == 0:
        raise UserError(f"{path} announces no entries (shape {shape}); get it again")
    if packed:
        return np.frombuffer(body, dtype=np.uint8).reshape(shape)
    return np.memmap(path, dtype=np.uint8, mode="r", offset=len(head), shape=shape)


def find_idx(root: Path, stem: str, dimensions: int) -> Path:
    """Where an idx file lies, packed or not; MissingError: nowhere."""
    leaves = [f"{stem}{sign}idx{dimensions}-ubyte{end}" for sign in "-." for end in ("", ".gz")]
    folders = (root, root / "MNIST" / "raw", root / "raw", root / "mnist")
    places = [folder / leaf for folder in folders for leaf in leaves]
    return first_of(places, f"{leaves[0]} or {leaves[1]}; not found in {root}")


def _mapped(path: Path, record: int) -> NDArray[np.uint8]:
    """The file as rows of `record` bytes, [K, record]."""
    size = path.stat().st_size
    if size == 0 or size % record:
        raise UserError(f"{path} has {size} bytes, which is no whole number of {record}-byte records; get it again")
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(size // record, record))


def _packed_set(
    names: tuple[str, ...] | list[str], pixels: NDArray[np.uint8], labels: ArrayLike, source: Path
) -> DiskSet:
    numbers = torch.from_numpy(np.array(labels, dtype=np.int64))
    try:
        return DiskSet(tuple(map(tidy_name, names)), numbers, Packed(pixels))
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
