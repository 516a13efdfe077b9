"""The data sets of the papers, and any folder of pictures, as entries of the registry."""

import hashlib
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any, Literal

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import Count, settings
from xai.data.disk_set import DiskSet, Files
from xai.data.images import region_to_tensor, to_tensor
from xai.data.on_disk import DISK_SETS, open_disk_set
from xai.data.prompts import PROMPTS
from xai.data.registry import SPLITS, Images, register

_CACHE_BYTES = 1 << 29
"""Memory for pictures that have been read, in each process that reads; at 224 px that is about 890 of them."""


@settings
class DiskParams:
    """Where a data set lies and how its pictures are fitted.

    Args:
        root: Its folder.
        size: Side of the square the pictures are brought to, in pixels.
        fit: `crop` (short side to size, centre crop) or `squash`.
    """

    root: str
    size: Count
    fit: Literal["crop", "squash"] = "crop"


class DiskSource:
    """A data set on disk, its pictures read when they are asked for."""

    varies = False

    def __init__(self, name: str, params: DiskParams) -> None:
        """Open all three splits, so that what is missing is known before any work."""
        self._splits = {split: open_disk_set(name, params.root, split) for split in SPLITS}
        self._params = params
        self.classes = self._splits["train"].classes
        self.templates = PROMPTS.get(name, PROMPTS["default"])
        self._read = self._cached()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the pictures in memory, so that workers can be sent the data set."""
        return {name: value for name, value in vars(self).items() if name != "_read"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._read = self._cached()

    @property
    def fingerprint(self) -> str:
        """Changes when pictures are added, removed, renamed, relabelled or resized on disk."""
        digest = hashlib.sha256()
        for split in SPLITS:
            digest.update(repr(_identity(self._splits[split])).encode())
        return digest.hexdigest()[:20]

    def labels(self, split: str) -> Tensor:
        """Class indices [N] of a split."""
        return self._splits[split].labels

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The pictures at `indices`, [B, 3, size, size] in [0, 1], and regions where known; the same in every epoch."""
        pixels, regions = zip(*(self._read(split, int(i)) for i in indices), strict=True)
        known = self._splits[split].regions is not None
        return Images(torch.stack(pixels), torch.stack(regions) if known else None)

    def _cached(self) -> Callable[[str, int], tuple[Tensor, Tensor | None]]:
        return lru_cache(maxsize=_CACHE_BYTES // (12 * self._params.size**2))(self._read_one)

    def _read_one(self, split: str, index: int) -> tuple[Tensor, Tensor | None]:
        data, size, fit = self._splits[split], self._params.size, self._params.fit
        picture = data.image(index)
        if data.regions is None:
            return to_tensor(picture, size, fit), None
        region = data.regions.region(index)
        if region.shape != (picture.height, picture.width):
            file = data.regions.files.folder / data.regions.files.names[index]
            raise UserError(
                f"{file} is {region.shape[1]} x {region.shape[0]} and its picture {picture.width} x {picture.height}; "
                "they must be of one size: unpack the data set again"
            )
        return to_tensor(picture, size, fit), region_to_tensor(region, size, fit)


def _identity(data: DiskSet) -> tuple[object, ...]:
    labels = hashlib.sha256(data.labels.numpy().tobytes()).hexdigest()
    if isinstance(data.records, Files):
        regions = () if data.regions is None else (data.regions.inside, _sizes(data.regions.files))
        return labels, data.classes, _sizes(data.records), *regions
    return (
        labels,
        data.classes,
        data.records.pixels.shape,
        hashlib.sha256(data.records.rows.numpy().tobytes()).hexdigest(),
    )


def _sizes(files: Files) -> list[tuple[str, int]]:
    return [(name, (files.folder / name).stat().st_size) for name in files.names]


def _open(name: str, params: DiskParams) -> DiskSource:
    return DiskSource(name, params)


for _info in DISK_SETS.values():
    register(_info.name, _info.description, DiskParams)(partial(_open, _info.name))
