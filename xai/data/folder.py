"""Data sets whose classes are folders: any folder of pictures, ImageNet, ImageNette, EuroSAT, RESISC45, WBC."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from xai.core.errors import UserError
from xai.data.disk_set import (
    DiskSet,
    Files,
    MissingError,
    any_part,
    check_present,
    locate,
    read_lines,
    tidy_name,
    train_part,
)
from xai.data.prompts import EUROSAT_NAMES, IMAGENETTE_NAMES, WBC_NAMES

SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .png .ppm .pgm .pbm .pnm .bmp .gif .tif .tiff .webp .avif .jp2 .tga".split()  # noqa: SIM905
)
# Folder names that are read as a split; the first found counts.
_SPLIT_FOLDERS = {"train": ("train", "training"), "validation": ("validation", "val", "valid"), "test": ("test",)}
# open_clip calls two pairs of classes alike; these are WordNet's other words for the second of each pair.
_IMAGENET_OTHER_WORDS = {744: "projectile", 837: "dark glasses"}


def image_folder(root: Path, split: str) -> DiskSet:
    """A split of any folder of pictures, classes in alphabetical order.

    Two layouts: `root/<split>/<class>/...` and `root/<class>/...`. With split folders, a set that has train and val but
    no test uses val as its test, and a set without its own validation gives a tenth of train to it. Without split
    folders, eight, one and one tenth of each class are drawn with a fixed seed.

    Raises:
        UserError: no class folders, a class folder without pictures, one class only, clashing names, a split that is
            not there, or a class that train does not have.
    """
    folders = _split_folders(root)
    if not folders:
        return any_part(_folder_set(root, _class_names(root)), split)
    if "test" not in folders and "validation" in folders:
        folders["test"] = folders.pop("validation")
    wanted = split if split in folders else "train" if split == "validation" else split
    if wanted not in folders:
        there = ", ".join(str(folder.name) for folder in folders.values())
        raise MissingError(f"needs a folder {wanted} beside {there}; not found in {root}")
    names = _class_names(folders.get("train", folders[wanted]))
    whole = _folder_set(folders[wanted], names)
    if wanted == "train" and "validation" not in folders:
        return train_part(whole, split)
    return whole


def eurosat(root: Path, split: str) -> DiskSet:
    """EuroSAT (RGB), ten classes; it has no official split: eight, one and one tenth of each class, fixed seed."""
    base = locate(root, ("AnnualCrop", "SeaLake"), ("2750", "EuroSAT_RGB", "eurosat/2750", "EuroSAT/2750"))
    return any_part(_named_set(base, EUROSAT_NAMES), split)


def imagenette(root: Path, split: str) -> DiskSet:
    """ImageNette (Howard and Gugger 2020), ten classes: `val/` is the test split; validation is a tenth of train.

    The full size and the versions of 320 and 160 pixels lie in folders of different names and are read alike.
    """
    wanted = "val" if split == "test" else "train"
    base = locate(root, (wanted,), ("imagenette2", "imagenette2-320", "imagenette2-160"))
    whole = _named_set(base / wanted, IMAGENETTE_NAMES)
    return whole if split == "test" else train_part(whole, split)


def wbc(root: Path, split: str) -> DiskSet:
    """White blood cells (Bodzas et al. 2023): single cells in nine class folders; 8:1:1 of each class, fixed seed.

    The set has no official split, and its files do not say which patient a cell is from. The class folders may lie in
    a folder of their own.
    """
    base = locate(root, ("Lymphoblast", "Normoblast"), _subfolders(root))
    return any_part(_named_set(base, WBC_NAMES), split)


def resisc45(root: Path, split: str) -> DiskSet:
    """NWPU-RESISC45: the common lists `resisc45-{train,val,test}.txt` where they are there, else 8:1:1, fixed seed."""
    base = root / "NWPU-RESISC45" if (root / "NWPU-RESISC45").is_dir() else root
    names = _class_names(base)
    listed = f"resisc45-{'val' if split == 'validation' else split}.txt"
    source = next((folder / listed for folder in (root, base) if (folder / listed).is_file()), None)
    if source is None:
        return any_part(_folder_set(base, names), split)
    number = {name: index for index, name in enumerate(names)}
    # A picture is called <class>_<number>.jpg, and a class may hold underscores itself.
    leaves = read_lines(source)
    folders = [leaf.rpartition("_")[0] for leaf in leaves]
    wrong = next((leaf for leaf, folder in zip(leaves, folders, strict=True) if folder not in number), None)
    if wrong is not None:
        raise UserError(
            f'{source} names "{wrong:.80}", which is in no class folder; expected lines like airport_001.jpg'
        )
    files = Files(base, [f"{folder}/{leaf}" for folder, leaf in zip(folders, leaves, strict=True)])
    check_present(files, source.name)
    labels = torch.tensor([number[folder] for folder in folders])
    return DiskSet(tuple(tidy_name(name) for name in names), labels, files)


def imagenet(root: Path, split: str) -> DiskSet:
    """ImageNet-1k (or a subset of its classes), folders by WordNet id in `train/` and `val/`, open_clip's class names.

    The labels of the official test pictures are not public, so `val/` is the test split, as everywhere; validation is a
    tenth of train.

    Raises:
        UserError: folders that are no ImageNet-1k ids, `val/` not sorted into folders, and as `image_folder`.
    """
    wanted = "val" if split == "test" else "train"
    base = locate(root, (wanted,), ("ILSVRC/Data/CLS-LOC", "imagenet", "ILSVRC2012"))
    if _is_flat(base / wanted):
        raise UserError(
            f"{base / wanted} holds pictures side by side; sort them into folders by id, {wanted}/n01440764/"
        )
    ids = _class_names(base / "train" if (base / "train").is_dir() else base / wanted)
    names = imagenet_names()
    strange = next((name for name in ids if name not in names), None)
    if strange is not None:
        raise UserError(f"{base / 'train' / strange} is no ImageNet-1k class; folders are called by id, like n01440764")
    whole = _folder_set(base / wanted, ids, tuple(names[name] for name in ids))
    return whole if split == "test" else train_part(whole, split)


def imagenet_names() -> dict[str, str]:
    """Class name by WordNet id, in the order of ImageNet-1k."""
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    names = [_IMAGENET_OTHER_WORDS.get(index, name) for index, name in enumerate(IMAGENET_CLASSNAMES)]
    return dict(zip(ImageNetInfo().label_names(), names, strict=True))


def _named_set(base: Path, names: Mapping[str, str]) -> DiskSet:
    """A set whose class folders are known: `names` say how each is called in a prompt."""
    absent = [folder for folder in names if not (base / folder).is_dir()]
    if absent:
        raise MissingError(f"needs the class folder {absent[0]}; not found in {base}")
    return _folder_set(base, list(names), tuple(names.values()))


def _folder_set(base: Path, folders: Sequence[str], classes: tuple[str, ...] | None = None) -> DiskSet:
    """Every picture below `base/<folder>/`, labelled by the folder's place in `folders`."""
    there = _subfolders(base)
    strange = next((name for name in there if name not in set(folders)), None)
    if strange is not None:
        raise UserError(f"{base / strange} is not among the classes of train; remove it or add it there")
    names: list[str] = []
    labels: list[int] = []
    for label, folder in enumerate(folders):
        if folder not in there:
            continue
        found = _pictures_below(base, folder)
        if not found:
            raise UserError(f"class folder {base / folder} has no pictures; add some or remove the folder")
        names += found
        labels += [label] * len(found)
    if classes is None:
        classes = tuple(tidy_name(folder) for folder in folders)
    return DiskSet(classes, torch.tensor(labels, dtype=torch.long), Files(base, names))


def _class_names(base: Path) -> list[str]:
    names = _subfolders(base)
    if not names:
        raise MissingError(f"needs class folders; found none in {base}")
    return names


def _split_folders(root: Path) -> dict[str, Path]:
    """The split folders of `root`; a class that happens to be called "train" holds pictures, not folders."""
    found: dict[str, Path] = {}
    for split, names in _SPLIT_FOLDERS.items():
        folder = next((root / name for name in names if (root / name).is_dir()), None)
        if folder is not None and not _is_flat(folder):
            found[split] = folder
    return found


def _subfolders(base: Path) -> list[str]:
    try:
        with os.scandir(base) as entries:
            return sorted(entry.name for entry in entries if not _hidden(entry.name) and entry.is_dir())
    except OSError as error:
        raise MissingError(f"needs a folder it may read; {base} is none ({error.strerror})") from None


def _is_flat(folder: Path) -> bool:
    """Whether pictures lie in the folder itself and no folders do."""
    with os.scandir(folder) as entries:
        kinds = [(entry.is_dir(), _is_picture(entry.name)) for entry in entries if not _hidden(entry.name)]
    return any(picture and not inner for inner, picture in kinds) and not any(inner for inner, _ in kinds)


def _pictures_below(base: Path, folder: str) -> list[str]:
    """Names relative to `base`, sorted; links are followed, but no folder is entered twice."""
    found: list[str] = []
    entered: set[str] = set()
    for here, inner, leaves in os.walk(base / folder, followlinks=True):
        real = os.path.realpath(here)
        if real in entered:
            inner.clear()
            continue
        entered.add(real)
        inner[:] = sorted(name for name in inner if not _hidden(name))
        prefix = Path(here).relative_to(base).as_posix()
        found += [f"{prefix}/{leaf}" for leaf in leaves if not _hidden(leaf) and _is_picture(leaf)]
    return sorted(found)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_picture(name: str) -> bool:
    suffix = re.search(r"\.[^.]+$", name)
    return suffix is not None and suffix.group().lower() in SUFFIXES
