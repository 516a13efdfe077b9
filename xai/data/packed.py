"""Data sets packed in arrays: MNIST (idx), SVHN (MATLAB), CIFAR-100 and STL-10 (raw bytes).

None of them is unpickled: of CIFAR-100 the binary version is read. Uncompressed files are mapped, not loaded.
"""

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xai.core.errors import UserError
from xai.data.disk_set import DiskSet, MissingError, Packed, locate, read_lines, tidy_name, train_part
from xai.data.mat import read_mat_variables
from xai.data.prompts import DIGITS


def mnist(root: Path, split: str) -> DiskSet:
    """MNIST in the idx files, packed with gzip or not; official train and test, validation a tenth of train."""
    stem = "t10k" if split == "test" else "train"
    images, labels = _idx_file(root, f"{stem}-images", 3), _idx_file(root, f"{stem}-labels", 1)
    pixels = read_idx(images, 3)
    return _official(DIGITS, pixels, _long(read_idx(labels, 1)), split, labels)


def svhn(root: Path, split: str) -> DiskSet:
    """SVHN, cropped digits of 32 x 32: official train and test, validation a tenth of train."""
    leaf = "test_32x32.mat" if split == "test" else "train_32x32.mat"
    path = locate(root, (leaf,), ("svhn", "SVHN")) / leaf
    pixels, labels = (np.asarray(value) for value in read_mat_variables(path, ("X", "y")))
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise UserError(f"{path} holds X of {pixels.dtype} {pixels.shape}; expected uint8 (32, 32, 3, N)")
    numbers = _long(np.atleast_1d(labels))
    if bool(((numbers < 1) | (numbers > 10)).any()):
        raise UserError(f"{path} has a label outside 1 to 10; unpack the data set again")
    # The files call the digit 0 class 10.
    return _official(DIGITS, pixels.transpose(3, 0, 1, 2), numbers % 10, split, path)


def cifar100(root: Path, split: str) -> DiskSet:
    """CIFAR-100, binary version, fine classes: official train and test, validation a tenth of train."""
    leaf = "test.bin" if split == "test" else "train.bin"
    folder = "cifar-100-binary"
    try:
        base = locate(root, (leaf, "fine_label_names.txt"), (folder, f"cifar100/{folder}"))
    except MissingError:
        if any((root / name / "meta").is_file() for name in (".", "cifar-100-python", "cifar100/cifar-100-python")):
            raise UserError(
                f"{root} holds CIFAR-100 as Python pickles, which are not read because they can run code; "
                "get cifar-100-binary.tar.gz"
            ) from None
        raise
    # A record: coarse label, fine label, then the red, green and blue planes.
    records = _mapped(base / leaf, 2 + 3 * 32 * 32)
    classes = tuple(tidy_name(name) for name in read_lines(base / "fine_label_names.txt"))
    pixels = records[:, 2:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return _official(classes, pixels, _long(records[:, 1]), split, base / leaf)


def stl10(root: Path, split: str) -> DiskSet:
    """STL-10, labelled pictures of 96 x 96: official train and test, validation a tenth of train."""
    stem = "test" if split == "test" else "train"
    base = locate(root, (f"{stem}_X.bin", f"{stem}_y.bin", "class_names.txt"), ("stl10_binary", "stl10/stl10_binary"))
    classes = tuple(tidy_name(name) for name in read_lines(base / "class_names.txt"))
    # Three planes, each stored column by column.
    pixels = _mapped(base / f"{stem}_X.bin", 3 * 96 * 96).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    labels = _long(_mapped(base / f"{stem}_y.bin", 1)[:, 0]) - 1
    return _official(classes, pixels, labels, split, base / f"{stem}_y.bin")


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
            if not packed:
                left = path.stat().st_size - len(head)
            else:
                # One byte more than announced tells a longer file without unpacking all of it.
                body = file.read(size + 1)
                left = len(body)
    except (OSError, EOFError, zlib.error, MemoryError, OverflowError) as error:
        raise UserError(f"{path} is broken ({error!s:.120}); unpack the data set again") from None
    if left != size:
        raise UserError(f"{path} announces {size} bytes and has {'more' if left > size else left}; get it again")
    if size == 0:
        raise UserError(f"{path} announces no entries (shape {shape}); get it again")
    if packed:
        return np.frombuffer(body, dtype=np.uint8).reshape(shape)
    return np.memmap(path, dtype=np.uint8, mode="r", offset=len(head), shape=shape)


def _idx_file(root: Path, stem: str, dimensions: int) -> Path:
    leaves = [f"{stem}{sign}idx{dimensions}-ubyte{end}" for sign in "-." for end in ("", ".gz")]
    for folder in (root, root / "MNIST" / "raw", root / "raw", root / "mnist"):
        for leaf in leaves:
            if (folder / leaf).is_file():
                return folder / leaf
    raise MissingError(f"needs {leaves[0]} or {leaves[1]}; not found in {root}")


def _mapped(path: Path, record: int) -> NDArray[np.uint8]:
    """The file as rows of `record` bytes, [K, record]."""
    size = path.stat().st_size
    if size == 0 or size % record:
        raise UserError(f"{path} has {size} bytes, which is no whole number of {record}-byte records; get it again")
    return np.memmap(path, dtype=np.uint8, mode="r", shape=(size // record, record))


def _official(classes: tuple[str, ...], pixels: NDArray[np.uint8], labels: Tensor, split: str, source: Path) -> DiskSet:
    if len(labels) != len(pixels):
        raise UserError(f"{source} has {len(labels)} labels for {len(pixels)} pictures; get the data set again")
    if int(labels.min()) < 0 or int(labels.max()) >= len(classes):
        raise UserError(f"{source} has a label outside its {len(classes)} classes; get the data set again")
    whole = DiskSet(classes, labels, Packed(pixels))
    return whole if split == "test" else train_part(whole, split)


def _long(values: NDArray[np.generic]) -> Tensor:
    return torch.from_numpy(np.array(values, dtype=np.int64))
