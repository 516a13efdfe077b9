"""The data sets of the papers, and any folder of pictures, as entries of the registry.

The official parts of a set become train, validation and test. Nothing is downloaded, and nothing is unpickled.
"""

import hashlib
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import xai.data.folder
import xai.data.listed
import xai.data.packed  # noqa: F401  (they fill DISK_SETS)
from xai.core.errors import UserError
from xai.core.settings import FieldError, Side, settings
from xai.data.augment import Augmentation, augmented
from xai.data.contents import hashes
from xai.data.disk_set import DISK_SETS, DiskSet, Files, MissingError, joined
from xai.data.folder import folder_parts, unread_folders
from xai.data.images import region_to_tensor, to_pixels
from xai.data.prompts import DEFAULT_PROMPTS, PROMPTS
from xai.data.registry import SPLITS, Images, register
from xai.data.splits import stratified_parts

Cut = Literal["official", "pooled", "halved"]
"""How official parts become splits.

    official: as they are; where there is no validation part, a stratified tenth of train is it, and a set in one piece
        is cut into 80 / 10 / 10 % of every class;
    pooled: all parts together, cut into 80 / 10 / 10 % of every class;
    halved: all of train, and the test part cut into two halves, validation and test.

All draws have a fixed seed. The last two are ViT-Shapley's for Pet and ImageNette, and so SALVAGE's.
"""

HELD_OUT = 0.1


def splits_of(name: str, root: str | os.PathLike[str] | None, cut: Cut = "official") -> Callable[[str], DiskSet]:
    """Opens splits of a data set on disk; parts that several of them are cut from are read once.

    Args:
        name: a key of `DISK_SETS`.
        root: the folder that holds the layout of `DISK_SETS[name]`; `~` is understood.
        cut: how parts become splits.

    Returns:
        A function of the split's name. It and this one raise UserError, one line that starts with `data=<name>`: a
        folder, file or picture that is not there; a list or archive that is broken; a split without pictures; classes
        that are fewer than two or clash.
    """
    info = DISK_SETS[name]
    base = Path(root or "").expanduser()
    if root is None or not str(root).strip() or not base.is_dir():
        where = f"not found at {base}" if root and str(root).strip() else "none is given"
        raise UserError(f"data={name} needs a folder with {info.layout}; {where}; set data.root=...")
    parts = cache(lambda: tuple(info.parts(base)))
    read = cache(lambda part: info.read(base, part))

    def split(wanted: str) -> DiskSet:
        try:
            found = _cut(parts(), read, wanted, cut)
            if not len(found):
                folder = getattr(found.records, "folder", base)
                raise UserError(f"the {wanted} split has no pictures: none, or too few of a class, are in {folder}")
            return found
        except MissingError as error:
            raise UserError(f"data={name} {error}; expected {info.layout}; set data.root=...") from None
        except UserError as error:
            raise UserError(f"data={name}: {error}") from None
        except OSError as error:
            raise UserError(f"data={name} cannot be read from {base} ({error}); check the permissions") from None

    return split


def _cut(parts: Sequence[str], read: Callable[[str], DiskSet], split: str, cut: Cut) -> DiskSet:
    if cut == "pooled" or "whole" in parts:
        if cut == "halved":
            raise UserError("splits=halved needs a test part, and this set comes in one piece: use splits=official")
        whole = read(parts[0]) if len(parts) == 1 else joined([read(part) for part in parts])
        return _part(whole, split, SPLITS, (HELD_OUT, HELD_OUT))
    is_half = cut == "halved" and split != "train"
    part = "test" if is_half else "train" if split == "validation" and "validation" not in parts else split
    if part not in parts:
        raise MissingError(f"has no {part} split beside {', '.join(parts)}")
    if is_half:
        return _part(read("test"), split, ("test", "validation"), (0.5,))
    if cut == "official" and part == "train" and "validation" not in parts:
        return _part(read("train"), split, ("train", "validation"), (HELD_OUT,))
    return read(part)


def _part(whole: DiskSet, split: str, names: Sequence[str], shares: Sequence[float]) -> DiskSet:
    return whole.take(stratified_parts(whole.labels, shares, groups=whole.groups)[names.index(split)])


_KEPT_BYTES = 1 << 28
"""A set whose pictures all fit is kept in memory by each process that reads it; of a larger one none is, for a shuffled
order would throw each picture out before it is asked for again."""
_MOST_CLASSES_NAMED = 20


@settings
class DiskParams:
    """Where a data set lies, how it is split, and how its pictures become squares.

    Args:
        root: Its folder.
        size: Side of the squares, in pixels.
        fit: `crop` brings the short side to `resize` and cuts out the centre; `squash` brings both sides to it.
        resize: The side before the centre of `size` is cut out; null: `size`.
        interpolation: How it is resized.
        splits: `official`; `pooled`: 80 / 10 / 10 % of all pictures; `halved`: the test part is cut into two halves,
            validation and test, and training keeps all of train.
        augment: How training pictures are varied; null leaves them as they are.
    """

    root: str
    size: Side
    fit: Literal["crop", "squash"] = "crop"
    resize: Side | None = None
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    splits: Cut = "official"
    augment: Augmentation | None = None

    def __post_init__(self) -> None:
        """Refuse to cut out more than there is."""
        if self.side < self.size:
            raise FieldError("resize", f"must be at least size={self.size}, which is cut out of it")

    @property
    def side(self) -> int:
        """Of a picture before its centre is cut out."""
        return self.size if self.resize is None else self.resize


@settings
class RegionParams(DiskParams):
    """The same of a data set with regions.

    Args:
        border: Whether the band along the outline, which its authors left unclassified, is part of the object.
    """

    border: bool = False


class DiskSource:
    """A data set on disk, its pictures read when they are asked for.

    Args:
        name: Of the data set.
        params: Where it lies and how it is read; all three splits are opened, so that what is missing is known before
            any work.
    """

    def __init__(self, name: str, params: DiskParams) -> None:
        opened = splits_of(name, params.root, params.splits)
        self._splits = {split: opened(split) for split in SPLITS}
        self._name, self._params = name, params
        self.varies = params.augment is not None
        self.classes = self._splits["train"].classes
        self.templates = PROMPTS.get(name, DEFAULT_PROMPTS)
        self._kept: dict[tuple[str, int], tuple[Tensor, Tensor | None]] | None = None
        if sum(map(len, self._splits.values())) * 4 * params.side**2 <= _KEPT_BYTES:
            self._kept = {}

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the pictures in memory, so that workers can be sent the data set."""
        return vars(self) | {"_kept": None if self._kept is None else {}}

    @property
    def fingerprint(self) -> str:
        """Changes with the names, the labels and the contents of pictures and label maps."""
        digest = hashlib.sha256()
        for split in SPLITS:
            digest.update(repr(_identity(self._splits[split])).encode())
        return digest.hexdigest()[:20]

    @property
    def summary(self) -> str:
        """How many pictures of which class are in each split, in a line, and which folders are not read."""
        counts = [torch.bincount(self.labels(split), minlength=len(self.classes)).tolist() for split in SPLITS]
        named = [f"{name} {a}/{b}/{c}" for name, a, b, c in zip(self.classes, *counts, strict=True)]
        if len(named) > _MOST_CLASSES_NAMED:
            named[_MOST_CLASSES_NAMED:] = [f"and {len(named) - _MOST_CLASSES_NAMED} more"]
        whole = " + ".join(f"{sum(count)} {split}" for split, count in zip(SPLITS, counts, strict=True))
        root = Path(self._params.root).expanduser()
        others = [] if self._name != "folder" or folder_parts(root) == ("whole",) else unread_folders(root)
        unread = f"; not read: {', '.join(others)}" if others else ""
        return f"{root}: {len(self.classes)} classes, {whole}: {', '.join(named)}{unread}"

    def labels(self, split: str) -> Tensor:
        """Class indices [N] of a split."""
        return self._splits[split].labels

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The pictures at `indices`, [B, 3, size, size] in [0, 1], and regions where known.

        They are the same in every epoch, but for those of train where they are augmented.
        """
        pixels, regions = zip(*(self._image(split, int(index), epoch) for index in indices), strict=True)
        known = self._splits[split].regions is not None
        return Images(torch.stack(pixels).float().div_(255.0), torch.stack(regions) if known else None)

    def _image(self, split: str, index: int, epoch: int) -> tuple[Tensor, Tensor | None]:
        pixels, region = self._read(split, index)
        if self._params.augment is not None and split == "train":
            return augmented(pixels, region, self._params.size, self._params.augment, f"{epoch} {index}")
        return pixels, region

    def _read(self, split: str, index: int) -> tuple[Tensor, Tensor | None]:
        """A picture as bytes [3, size, size] and its region; where it is varied, before the centre is cut out."""
        if self._kept is not None and (split, index) in self._kept:
            return self._kept[split, index]
        data, side, fit = self._splits[split], self._params.side, self._params.fit
        size = side if self._params.augment is not None and split == "train" else self._params.size
        picture = data.records.image(index)
        region = None
        if data.regions is not None:
            border = isinstance(self._params, RegionParams) and self._params.border
            region = region_to_tensor(data.regions.region(index, picture.size, border), size, fit, side=side)
        found = to_pixels(picture, size, fit, side=side, interpolation=self._params.interpolation), region
        if self._kept is not None:
            self._kept[split, index] = found
        return found


def _identity(data: DiskSet) -> tuple[object, ...]:
    if isinstance(data.records, Files):
        files = [data.records] if data.regions is None else [data.records, data.regions.files]
        held: Any = [(each.names, hashes(each.folder, each.names)) for each in files]
    else:
        digest = hashlib.sha256()
        for rows in data.records.rows.split(1000):
            digest.update(data.records.pixels[rows.numpy()].tobytes())
        held = digest.hexdigest()
    return data.classes, hashlib.sha256(data.labels.numpy().tobytes()).hexdigest(), held


for _name, _info in DISK_SETS.items():
    register(_name, _info.about, RegionParams if _name == "pet" else DiskParams)(partial(DiskSource, _name))
