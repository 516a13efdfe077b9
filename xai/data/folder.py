"""Data sets whose classes are folders: any folder of pictures, ImageNet, ImageNette, EuroSAT, RESISC45, WBC."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch

from xai.core.errors import UserError
from xai.core.files import PICTURES, UNREAD_PICTURES, check_link
from xai.core.folders import MARKER, written_in
from xai.data.disk_set import (
    DiskSet,
    Files,
    MissingError,
    check_present,
    disk_set,
    locate,
    read_lines,
    tidy_name,
)
from xai.data.prompts import EUROSAT_NAMES, IMAGENETTE_NAMES, WBC_NAMES
from xai.data.registry import SPLITS

_SPLIT_WORDS = {"train": "train", "training": "train", "test": "test", "testing": "test"} | dict.fromkeys(
    ("val", "valid", "validation", "validate", "dev"), "validation"
)
_FILLING = {"set", "data", "dataset", "images", "imgs", "split", "samples"}
_OF_ONE_PICTURE = {
    *("images", "image", "imgs", "img", "pictures", "photos", "jpegimages"),
    *("masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "segmentation"),
    *("gt", "groundtruth", "ground_truth", "boxes", "bboxes", "xml", "json"),
}
"""What folders are called that hold pictures, and what is known of each of them."""
# open_clip calls two pairs of classes alike; these are WordNet's other words for the second of each pair.
_IMAGENET_OTHER_WORDS = {744: "projectile", 837: "dark glasses"}
_MARKS = (MARKER, ".hydra")
"""What lies in a folder that a run wrote to."""
_HEAT_MAP = ".explained.png"
"""How the names of the heat maps end that task=explain wrote beside pictures."""


def folder_parts(root: Path) -> tuple[str, ...]:
    """The parts of any folder of pictures: its split folders, or `whole`."""
    return tuple(_split_folders(root)) or ("whole",)


@disk_set("<class>/*.jpg, or train/<class>/*.jpg and test/<class>/*.jpg", folder_parts)
def folder(root: Path, part: str) -> DiskSet:
    """Any folder of pictures, one folder per class.

    Classes are those of train, in alphabetical order. A split folder may be called `Training`, `test_set`, `val`
    and the like; a set that has train and val but no test uses val as its test.

    Raises:
        UserError: no class folders, a class folder without pictures, one class only, clashing names, a class that train
            does not have, folders that may be splits or classes or are neither, or pictures that cannot be read.
    """
    folders = _split_folders(root)
    if not folders:
        _check_classes(root)
    base = folders.get(part, root)
    return _folder_set(base, _class_names(folders.get("train", base)))


@disk_set("train/n01440764/*.JPEG ... and val/n01440764/*.JPEG ...")
def imagenet(root: Path, part: str) -> DiskSet:
    """ImageNet-1k: 1000 kinds of things, 1.28 million photographs.

    Or a subset of its classes, with open_clip's names for them. The labels of the official test pictures are not
    public, so `val/` is the test split, as everywhere.

    Raises:
        UserError: folders that are no ImageNet-1k ids, `val/` not sorted into folders, and as `folder`.
    """
    wanted = "val" if part == "test" else "train"
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
    return _folder_set(base / wanted, ids, [names[name] for name in ids])


@disk_set("imagenette2/train/n01440764/*.JPEG ... and imagenette2/val/n01440764/*.JPEG ...")
def imagenette(root: Path, part: str) -> DiskSet:
    """ImageNette: 10 easy classes of ImageNet, 13,394 photographs.

    Howard and Gugger 2020. `val/` is the test part. The full size and the versions of 320 and 160 pixels lie in
    folders of different names and are read alike.
    """
    wanted = "val" if part == "test" else "train"
    base = locate(root, (wanted,), ("imagenette2", "imagenette2-320", "imagenette2-160"))
    return _named_set(base / wanted, IMAGENETTE_NAMES)


@disk_set("2750/AnnualCrop/*.jpg ... 2750/SeaLake/*.jpg", ("whole",))
def eurosat(root: Path, part: str) -> DiskSet:
    """EuroSAT (RGB): 10 uses of land, 27,000 satellite pictures."""
    base = locate(root, ("AnnualCrop", "SeaLake"), ("2750", "EuroSAT_RGB", "eurosat/2750", "EuroSAT/2750"))
    return _named_set(base, EUROSAT_NAMES)


@disk_set("Basophile/*.bmp, Eosinophile/*.bmp ... Neutrophile Segment/*.bmp, Normoblast/*.bmp", ("whole",))
def wbc(root: Path, part: str) -> DiskSet:
    """White blood cells of Bodzas et al.: 9 kinds, 16,027 micrographs.

    The files do not say which patient a cell is from.
    """
    return _named_set(locate(root, ("Lymphoblast", "Normoblast"), _subfolders(root)), WBC_NAMES)


def _resisc45_lists(root: Path) -> dict[str, Path]:
    leaves = {part: f"resisc45-{'val' if part == 'validation' else part}.txt" for part in SPLITS}
    places = {part: (root / leaf, root / "NWPU-RESISC45" / leaf) for part, leaf in leaves.items()}
    return {part: path for part, both in places.items() for path in both if path.is_file()}


@disk_set(
    "NWPU-RESISC45/<class>/*.jpg and, if you have them, resisc45-train.txt, resisc45-val.txt, resisc45-test.txt",
    lambda root: tuple(_resisc45_lists(root)) or ("whole",),
)
def resisc45(root: Path, part: str) -> DiskSet:
    """NWPU-RESISC45: 45 kinds of scenes from above, 31,500 pictures.

    By the common lists where they are there, else in one piece.
    """
    base = root / "NWPU-RESISC45" if (root / "NWPU-RESISC45").is_dir() else root
    names = _class_names(base)
    if part == "whole":
        return _folder_set(base, names)
    source = _resisc45_lists(root)[part]
    leaves = read_lines(source)
    number = {name: index for index, name in enumerate(names)}
    # A picture is called <class>_<number>.jpg, and a class may hold underscores itself.
    folders = [leaf.rpartition("_")[0] for leaf in leaves]
    wrong = next((leaf for leaf, folder in zip(leaves, folders, strict=True) if folder not in number), None)
    if wrong is not None:
        raise UserError(f'{source} names "{wrong:.80}", which is in no class folder; expected lines like airport_1.jpg')
    files = Files(base, [f"{folder}/{leaf}" for folder, leaf in zip(folders, leaves, strict=True)])
    check_present(files, source.name)
    return DiskSet(tuple(map(tidy_name, names)), torch.tensor([number[folder] for folder in folders]), files)


def imagenet_names() -> dict[str, str]:
    """Class name by WordNet id, in the order of ImageNet-1k."""
    from open_clip import IMAGENET_CLASSNAMES
    from timm.data import ImageNetInfo

    names = [_IMAGENET_OTHER_WORDS.get(index, name) for index, name in enumerate(IMAGENET_CLASSNAMES)]
    return dict(zip(ImageNetInfo().label_names(), names, strict=True))


def pictures_in(base: Path) -> list[Path]:
    """Every picture below a folder, sorted; links are followed, no folder is entered twice, what we wrote is left out.

    Raises:
        UserError: as `are_pictures`.
    """
    found: list[Path] = []
    entered: set[str] = set()
    for here, inner, leaves in os.walk(base, followlinks=True):
        real = os.path.realpath(here)
        if real in entered or is_ours(Path(here)):
            inner.clear()
            continue
        entered.add(real)
        ours = written_in(Path(here))
        inner[:] = sorted(name for name in inner if not _hidden(name) and name not in ours)
        found += are_pictures(Path(here, leaf) for leaf in leaves if leaf not in ours)
    return sorted(found)


def are_pictures(paths: Iterable[Path]) -> Iterator[Path]:
    """The pictures among some files, without hidden ones and heat maps that we wrote.

    Raises:
        UserError: a picture of a kind that is not read, or a link to nothing.
    """
    for path in paths:
        if _hidden(path.name) or path.name.endswith(_HEAT_MAP):
            continue
        suffix = path.suffix.lower()
        if suffix in UNREAD_PICTURES:
            raise UserError(f"{path} is of a kind that is not read; convert it to JPEG or PNG, or move it away")
        if suffix in PICTURES:
            check_link(path)
            yield path


def is_ours(folder: Path) -> bool:
    """Whether a folder holds what runs of this framework wrote, and no folders or pictures of anybody else's."""
    inside = folder.glob("*/") if folder.name == "outputs" else ()
    return any(map(_is_marked, inside)) or (_is_marked(folder) and not _holds_others(folder))


def _is_marked(folder: Path) -> bool:
    return any((folder / mark).exists() for mark in _MARKS)


def _holds_others(folder: Path) -> bool:
    """Whether there is something in a marked folder that its marker does not name."""
    if not (folder / MARKER).is_file():
        return False
    ours = written_in(folder)
    others = (each for each in folder.iterdir() if each.name not in ours and not _hidden(each.name))
    return any(each.is_dir() or each.suffix.lower() in PICTURES | UNREAD_PICTURES for each in others)


def unread_folders(root: Path) -> list[str]:
    """Folders beside the split folders of `root`."""
    return [name for name in _subfolders(root) if (_split_word(name) or ("", " "))[1]]


def _named_set(base: Path, names: Mapping[str, str]) -> DiskSet:
    """A set whose class folders are known: `names` say how each is called in a prompt."""
    absent = [folder for folder in names if not (base / folder).is_dir()]
    if absent:
        raise MissingError(f"needs the class folder {absent[0]}; not found in {base}")
    return _folder_set(base, list(names), list(names.values()))


def _folder_set(base: Path, folders: Sequence[str], classes: Sequence[str] | None = None) -> DiskSet:
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
        found = [path.relative_to(base).as_posix() for path in pictures_in(base / folder)]
        if not found:
            raise UserError(f"class folder {base / folder} has no pictures; add some or remove the folder")
        _check_inner(base / folder)
        names += found
        labels += [label] * len(found)
    tidy = tuple(map(tidy_name, folders)) if classes is None else tuple(classes)
    return DiskSet(tidy, torch.tensor(labels, dtype=torch.long), Files(base, names))


def _check_inner(folder: Path) -> None:
    """Refuse a class whose pictures are split below it: they would be taken together in silence."""
    splits = {inner for inner in _subfolders(folder) if (word := _split_word(inner)) and not word[1]}
    if splits:
        raise UserError(
            f"class folder {folder} holds {' and '.join(sorted(splits))}, which sound like splits; put the split above "
            f"the class: {min(splits)}/{folder.name}/"
        )


def _check_classes(root: Path) -> None:
    """Refuse folders that are parts or versions of a set, or pictures and what is known of them, and no classes."""
    names = _subfolders(root)
    if len(names) == 1 and {word[0] for each in _subfolders(root / names[0]) if (word := _split_word(each))}:
        raise UserError(f"{root} holds one folder, and the splits are in that: set data.root={root / names[0]}")
    if len(names) < 2:
        return
    if {name.lower() for name in names} <= _OF_ONE_PICTURE:
        raise UserError(
            f"{root} holds {' and '.join(names)}, which sound like pictures and what is known of them; sort the "
            "pictures into one folder a class"
        )
    inner = sorted(set.intersection(*(set(_subfolders(root / name)) for name in names)))
    if len(inner) > 1 and not any(_has_pictures(root / name) for name in names):
        raise UserError(
            f"{' and '.join(names[:3])}{' and others' * (len(names) > 3)} in {root} hold the same folders "
            f"({', '.join(inner[:3])}): if those are the classes, call the folders above them train, validation and "
            "test, or set data.root to one of them; if not, put the pictures of a class side by side"
        )


def _class_names(base: Path) -> list[str]:
    names = _subfolders(base)
    if not names:
        raise MissingError(f"needs class folders; found none in {base}")
    return names


def _split_word(name: str) -> tuple[str, str] | None:
    """The split that a folder's name speaks of, and what else it says: `seg_train` is (train, seg)."""
    words = [word for word in re.split(r"[^a-z]+", name.lower()) if word]
    rest = [word for word in words if word not in _FILLING]
    for word in rest[:1] + rest[-1:]:
        if word in _SPLIT_WORDS:
            rest.remove(word)
            return _SPLIT_WORDS[word], " ".join(rest)
    # Written together: trainset, testdata.
    whole = re.fullmatch(rf"({'|'.join(_SPLIT_WORDS)})({'|'.join(_FILLING)})", "".join(words))
    return (_SPLIT_WORDS[whole.group(1)], "") if whole else None


def _split_folders(root: Path) -> dict[str, Path]:
    """The split folders of `root` by split; none where its folders are classes, one of which may be called "train".

    Raises:
        UserError: Folders that sound like splits and cannot be used as such.
    """
    spoken: dict[str, dict[str, list[str]]] = {}
    for name in _subfolders(root):
        if word := _split_word(name):
            spoken.setdefault(word[1], {}).setdefault(word[0], []).append(name)
    for rest, splits in spoken.items():
        names = [name for several in splits.values() for name in several]
        if (rest and len(splits) > 1) or (not rest and (twice := [n for n in splits.values() if len(n) > 1])):
            shown = names if rest else twice[0]
            raise UserError(
                f"{root} holds {' and '.join(shown)}, which sound like splits; call one train, one validation and one "
                "test, with a folder a class in each"
            )
    found = {split: root / names[0] for split, names in spoken.get("", {}).items()}
    flat = [folder for folder in found.values() if _is_flat(folder)]
    if len(flat) == len(found) < 2:
        return {}
    if flat:
        raise UserError(
            f"{flat[0]} sounds like a split and holds pictures side by side; sort them into folders by class: "
            f"{flat[0].name}/<class>/"
        )
    if len(found) == 1 and (others := unread_folders(root)):
        raise UserError(
            f"{root} holds {' and '.join(others)} beside {next(iter(found.values())).name}, which may be a split or a "
            "class; keep split folders apart from classes"
        )
    if "test" not in found and "validation" in found:
        found["test"] = found.pop("validation")
    return found


def _subfolders(base: Path) -> list[str]:
    """Names of the folders in a folder, sorted, without hidden ones and what we wrote.

    Raises:
        UserError: A folder that cannot be listed, a link to nothing, a name that is no text.
    """
    found = []
    try:
        with os.scandir(base) as entries:
            for entry in entries:
                if _hidden(entry.name):
                    continue
                if entry.is_dir() and not is_ours(Path(entry.path)):
                    found.append(entry.name)
                elif entry.is_symlink() and not os.path.splitext(entry.name)[1]:
                    check_link(Path(entry.path))
    except OSError as error:
        raise MissingError(f"needs a folder it may read; {base} is none ({error.strerror})") from None
    strange = next((name for name in found if not name.isascii() and "\\udc" in ascii(name)), None)
    if strange is not None:
        raise UserError(f"the folder {strange!a} in {base} has a name that is no UTF-8; rename it")
    return sorted(found)


def _is_flat(folder: Path) -> bool:
    """Whether pictures lie in the folder itself and no folders do."""
    return not _subfolders(folder) and _has_pictures(folder)


def _has_pictures(folder: Path) -> bool:
    return any(os.path.splitext(leaf)[1].lower() in PICTURES for leaf in os.listdir(folder))


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"
