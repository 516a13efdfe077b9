"""The data sets a user brings along, opened: the official parts of a set become train, validation and test.

Nothing is downloaded, and nothing is unpickled.
"""

import os
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Literal

import xai.data.folder
import xai.data.listed
import xai.data.packed  # noqa: F401  (they fill DISK_SETS)
from xai.core.errors import UserError
from xai.data.disk_set import DISK_SETS, DiskSet, MissingError, joined
from xai.data.registry import SPLITS
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
    if cut == "halved" and split != "train":
        return _part(read("test"), split, ("test", "validation"), (0.5,))
    part = "train" if split == "validation" and "validation" not in parts else split
    if part not in parts:
        raise MissingError(f"has no {part} split beside {', '.join(parts)}")
    if cut == "official" and part == "train" and "validation" not in parts:
        return _part(read("train"), split, ("train", "validation"), (HELD_OUT,))
    return read(part)


def _part(whole: DiskSet, split: str, names: Sequence[str], shares: Sequence[float]) -> DiskSet:
    return whole.take(stratified_parts(whole.labels, shares, groups=whole.groups)[names.index(split)])
