"""Fashion-MNIST as Debian packages it: clothes of ten kinds, scattered as the digits are."""

import hashlib
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field

from xai.core.errors import UserError
from xai.core.settings import settings
from xai.data.disk_set import MissingError
from xai.data.packaged import PackagedSet, resize
from xai.data.packed import find_idx, read_idx
from xai.data.prompts import FASHION
from xai.data.registry import register
from xai.data.scatter import ScatterParams
from xai.data.splits import SPLIT_SEED, rank_in_class

_PACKAGE = "dataset-fashion-mnist"
_FEWEST = 3 * len(FASHION)
"""One image of every class in each split."""


@settings
class FashionParams(ScatterParams):
    """Where Fashion-MNIST lies, how much of it is used, and how a scene is laid out.

    Args:
        root: Folder of the IDX files, gzipped or not; Debian's package puts them where the default says.
        images: How many of the training images are used, drawn with a fixed seed, the same number of each class.
    """

    root: str = "/usr/share/datasets/fashion-mnist"
    images: Annotated[int, Field(ge=_FEWEST)] = 5000


@register("fashion_scattered", f"Fashion-MNIST of Debian's {_PACKAGE}, scattered, with its region", FashionParams)
def open_fashion_scattered(params: FashionParams) -> PackagedSet:
    """Clothes at the object size, scattered.

    Raises:
        UserError: files that are not there, broken, or of fewer images than asked for.
    """
    root, count = Path(params.root).expanduser(), params.images // len(FASHION)
    try:
        paths = find_idx(root, "train-images", 3), find_idx(root, "train-labels", 1)
        pixels, labels = (torch.from_numpy(read_idx(path, d).copy()) for path, d in zip(paths, (3, 1), strict=True))
    except MissingError as error:
        raise UserError(f"data=fashion_scattered {error}; apt install {_PACKAGE}, or set data.root=...") from None
    except UserError as error:
        raise UserError(f"data=fashion_scattered: {error}") from None
    if len(pixels) != len(labels) or int(labels.max()) >= len(FASHION):
        raise UserError(
            f"data=fashion_scattered: {paths[1]} must have one label from 0 to {len(FASHION) - 1} for each of the "
            f"{len(pixels)} images in {paths[0].name}; get them again"
        )
    if int(torch.bincount(labels, minlength=len(FASHION)).min()) < count:
        raise UserError(
            f"data=fashion_scattered: {paths[1]} has fewer than {count} images of some class: lower data.images"
        )
    rows = (rank_in_class(labels.long(), SPLIT_SEED) < count).nonzero().flatten()
    objects, kinds = resize(pixels[rows].float() / 255, params.object_size), labels[rows].long()
    digest = hashlib.sha256(kinds.numpy().tobytes())
    digest.update(objects.numpy().tobytes())
    return PackagedSet(objects, kinds, "fashion", params, FASHION, digest.hexdigest()[:20])
