"""Fashion-MNIST as Debian packages it: clothes of ten kinds, scattered as the digits are."""

import hashlib
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import settings
from xai.data.packaged import PackagedSet, resize
from xai.data.packed import read_idx
from xai.data.prompts import FASHION
from xai.data.registry import register
from xai.data.scatter import ScatterParams

_PACKAGE = "dataset-fashion-mnist"
_FEWEST = 3 * len(FASHION)
"""One image of every class in each split."""


@settings
class FashionParams(ScatterParams):
    """Where Fashion-MNIST lies, how much of it is used, and how a scene is laid out.

    Args:
        root: Folder of the IDX files, gzipped or not; Debian's package puts them where the default says.
        images: How many of the training images are used, the same number of each class, the first in the file.
    """

    root: str = "/usr/share/datasets/fashion-mnist"
    images: Annotated[int, Field(ge=_FEWEST)] = 5000


class FashionSet(PackagedSet):
    """Scattered clothes. The pixels come from the machine, so they are part of what a result was made from."""

    @property
    def fingerprint(self) -> str:
        """Changes with the images and their labels."""
        digest = hashlib.sha256(self._labels.numpy().tobytes())
        digest.update(self._pixels.numpy().tobytes())
        return digest.hexdigest()[:20]


@register("fashion_scattered", f"Fashion-MNIST of Debian's {_PACKAGE}, scattered, with its region", FashionParams)
def open_fashion_scattered(params: FashionParams) -> FashionSet:
    """Clothes at the object size, scattered.

    Raises:
        UserError: files that are not there, broken, or of fewer images than asked for.
    """
    root = Path(params.root).expanduser()
    paths = [_idx_file(root, f"train-{kind}-ubyte") for kind in ("images-idx3", "labels-idx1")]
    try:
        pixels, labels = (torch.from_numpy(read_idx(path, d).copy()) for path, d in zip(paths, (3, 1), strict=True))
    except UserError as error:
        raise UserError(f"data=fashion_scattered: {error}") from None
    if len(pixels) != len(labels) or int(labels.max()) >= len(FASHION):
        raise UserError(
            f"data=fashion_scattered: {paths[1]} must have one label from 0 to {len(FASHION) - 1} for each of the "
            f"{len(pixels)} images in {paths[0].name}; get them again"
        )
    rows = _first_of_each_class(labels.long(), params.images // len(FASHION), paths[1])
    objects = resize(pixels[rows].float() / 255, params.object_size)
    return FashionSet(objects, labels[rows].long(), "fashion", params, FASHION)


def _idx_file(root: Path, leaf: str) -> Path:
    found = next((path for path in (root / leaf, root / f"{leaf}.gz") if path.is_file()), None)
    if found is None:
        raise UserError(
            f"data=fashion_scattered needs {leaf}.gz; not found in {root}; apt install {_PACKAGE}, or set data.root=..."
        )
    return found


def _first_of_each_class(labels: Tensor, count: int, source: Path) -> Tensor:
    """Rows of the first `count` images of every class, in the order of the file."""
    place = (labels[:, None] == torch.arange(len(FASHION))).cumsum(0).gather(1, labels[:, None])[:, 0]
    rows = (place <= count).nonzero().flatten()
    if len(rows) < count * len(FASHION):
        raise UserError(
            f"data=fashion_scattered: {source} has fewer than {count} images of some class: lower data.images"
        )
    return rows
