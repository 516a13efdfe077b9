"""Data sets whose splits are lists: Stanford Cars, DTD, GTSRB, MURA, Oxford-IIIT Pet, SUN397."""

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xai.core.errors import UserError
from xai.data.disk_set import (
    DiskSet,
    Files,
    MissingError,
    Regions,
    check_present,
    disk_set,
    first_of,
    locate,
    read_lines,
    read_mat,
    tidy_name,
)
from xai.data.prompts import GTSRB_NAMES

_TRIMAP_PET, _TRIMAP_BORDER = 1, 3
"""Numbers in the trimaps of Oxford-IIIT Pet; 2 is the background. The border is a band that was left unclassified."""


@disk_set(
    "devkit/cars_meta.mat, devkit/cars_train_annos.mat, cars_test_annos_withlabels.mat, cars_train/ and cars_test/",
)
def cars(root: Path, part: str) -> DiskSet:
    """Stanford Cars: 196 models of cars, 16,185 photographs."""
    leaf = {"train": "cars_train_annos.mat", "test": "cars_test_annos_withlabels.mat"}[part]
    base = locate(root, ("devkit/cars_meta.mat", f"cars_{part}"), ("stanford_cars", "cars"))
    source = first_of([base / leaf, base / "devkit" / leaf], f"{leaf}; not found in {base}")
    meta = base / "devkit" / "cars_meta.mat"
    classes = tuple(tidy_name(_text(name, meta)) for name in np.atleast_1d(read_mat(meta, "class_names")[0]))
    rows = np.atleast_1d(read_mat(source, "annotations")[0])
    absent = [field for field in ("class", "fname") if field not in (rows.dtype.names or ())]
    if absent:
        raise UserError(f"{source} has no field {absent[0]}; take the list that holds class and fname")
    names = [f"cars_{part}/{_leaf(_text(name, source), source)}" for name in rows["fname"]]
    # MATLAB counts from 1.
    return _listed_set(base, classes, names, [_whole(value, source) - 1 for value in rows["class"]], source)


@disk_set(
    "labels/train1.txt, labels/val1.txt, labels/test1.txt and images/<class>/*.jpg",
    ("train", "validation", "test"),
)
def dtd(root: Path, part: str) -> DiskSet:
    """Describable Textures: 47 textures, 5,640 pictures; the first of its ten official partitions."""
    base = locate(root, ("labels/train1.txt", "images"), ("dtd", "dtd/dtd"))
    leaf = f"labels/{'val' if part == 'validation' else part}1.txt"
    source = first_of([base / leaf], f"{leaf}; not found in {base}")
    classes = sorted({_folder(line, source) for line in read_lines(base / "labels" / "train1.txt")})
    lines = read_lines(source)
    labels = _numbers(classes, [_folder(line, source) for line in lines], source)
    return _listed_set(base, tuple(map(tidy_name, classes)), [f"images/{line}" for line in lines], labels, source)


@disk_set("GTSRB/Training/00000/*.ppm ..., GTSRB/Final_Test/Images/*.ppm and GT-final_test.csv")
def gtsrb(root: Path, part: str) -> DiskSet:
    """German traffic signs: 43 signs, 51,839 photographs.

    A track is some thirty frames of one and the same sign, so whole tracks are held out: a random tenth of the frames
    would have its neighbours in train.
    """
    marks = ("Training", "Final_Training/Images") if part == "train" else ("Final_Test/Images",)
    places = [root / inside / mark for inside in (".", "GTSRB", "gtsrb", "gtsrb/GTSRB") for mark in marks]
    base = first_of(places, f"GTSRB/{marks[0]}; not found in {root}")
    if part == "test":
        return _gtsrb_test(root, base)
    names: list[str] = []
    for folder in sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not re.fullmatch(r"\d{5}", folder.name) or int(folder.name) >= len(GTSRB_NAMES):
            raise UserError(f"{folder} is no GTSRB class; folders are called 00000 to {len(GTSRB_NAMES) - 1:05d}")
        found = sorted(path.name for path in folder.glob("[!.]*.ppm"))
        if not found:
            raise UserError(f"class folder {folder} has no .ppm pictures; unpack the data set again")
        names += [f"{folder.name}/{leaf}" for leaf in found]
    if not names:
        raise MissingError(f"needs class folders 00000 to {len(GTSRB_NAMES) - 1:05d}; none found in {base}")
    labels = torch.tensor([int(name[:5]) for name in names])
    return DiskSet(GTSRB_NAMES, labels, Files(base, names), groups=_groups([n.rpartition("_")[0] for n in names]))


def _gtsrb_test(root: Path, base: Path) -> DiskSet:
    leaf = "GT-final_test.csv"
    places = [folder / leaf for folder in (*list(base.parents)[:3], base, root)]
    source = first_of(places, f"{leaf}, the list with the class numbers; not found in {root} or {base}")
    rows = list(csv.DictReader(read_lines(source), delimiter=";", skipinitialspace=True))
    if not rows or not {"Filename", "ClassId"} <= rows[0].keys():
        raise UserError(f"{source} has no columns Filename and ClassId; take the test list with the class numbers")
    names = [_leaf(row["Filename"] or "", source) for row in rows]
    return _listed_set(base, GTSRB_NAMES, names, [_whole(row["ClassId"], source) for row in rows], source)


@disk_set(
    "MURA-v1.1/train_image_paths.csv, valid_image_paths.csv and train/XR_ELBOW/patient00011/study1_negative/*.png",
)
def mura(root: Path, part: str) -> DiskSet:
    """MURA v1.1: radiographs of the upper limb, normal or abnormal, 40,005 pictures.

    Rajpurkar et al. 2018; a picture is abnormal where its study's folder says so. The official test set is not
    public, so the official validation set is the test part. Pictures of one patient stay on one side, and a patient
    is abnormal where one picture is.
    """
    leaf = "valid_image_paths.csv" if part == "test" else "train_image_paths.csv"
    source = locate(root, (leaf,), ("MURA-v1.1", "mura/MURA-v1.1")) / leaf
    # The lists name the unpacked archive as well: MURA-v1.1/train/XR_ELBOW/patient00011/study1_negative/image1.png.
    pattern = re.compile(r"MURA-v1\.1/((?:train|valid)/XR_[A-Z]+/(patient\d+)/study\d+_(positive|negative)/[^/\\]+)")
    found = []
    for line in read_lines(source):
        match = pattern.fullmatch(line)
        if match is None:
            raise UserError(
                f'{source} has the line "{line:.80}"; expected MURA-v1.1/train/XR_.../patient.../study1_positive/...'
            )
        found.append(match.groups())
    names, patients, signs = zip(*found, strict=True)
    labels = [int(sign == "positive") for sign in signs]
    return _listed_set(source.parent, ("normal", "abnormal"), names, labels, source, groups=_groups(patients))


@disk_set("images/*.jpg, annotations/trainval.txt, annotations/test.txt and annotations/trimaps/*.png")
def pet(root: Path, part: str) -> DiskSet:
    """Oxford-IIIT Pet: 37 breeds of cats and dogs, 7,349 photographs, with regions.

    Parkhi et al. 2012. Regions are class 1 of the trimaps, and the border around it where it is asked for.
    """
    leaf = f"annotations/{'test' if part == 'test' else 'trainval'}.txt"
    marks = (leaf, "annotations/trainval.txt", "annotations/trimaps", "images")
    base = locate(root, marks, ("oxford-iiit-pet", "oxford_iiit_pet"))
    breeds = {number: _breed(name) for name, number in _pet_lines(base / "annotations" / "trainval.txt")}
    if sorted(breeds) != list(range(1, len(breeds) + 1)):
        raise UserError(f"{base}/annotations/trainval.txt has classes beside 1 to {len(breeds)}; get it again")
    source = base / leaf
    rows = _pet_lines(source)
    wrong = next((name for name, number in rows if breeds.get(number) != _breed(name)), None)
    if wrong is not None:
        raise UserError(f'{source} gives "{wrong:.80}" the class number of another breed; unpack the data set again')
    trimaps = Files(base, [f"annotations/trimaps/{name}.png" for name, _ in rows])
    check_present(trimaps, source.name)
    return _listed_set(
        base,
        tuple(breeds[number] for number in sorted(breeds)),
        [f"images/{name}.jpg" for name, _ in rows],
        [number - 1 for _, number in rows],
        source,
        regions=Regions(trimaps, (_TRIMAP_PET,), (_TRIMAP_BORDER,)),
    )


def _pet_lines(source: Path) -> list[tuple[str, int]]:
    """Name and class number, from 1, of each picture; a line is "Abyssinian_100 1 1 1" (class, species, breed)."""
    rows = [line.split() for line in read_lines(source) if not line.startswith("#")]
    strange = next((" ".join(row) for row in rows if len(row) != 4), None)
    if strange is not None:
        raise UserError(f'{source} has the line "{strange:.80}"; expected <Breed>_<number> and three numbers')
    if not rows:
        raise UserError(f"{source} names no pictures; unpack the data set again")
    return [(_leaf(row[0], source), _whole(row[1], source)) for row in rows]


def _breed(name: str) -> str:
    return tidy_name(name.rpartition("_")[0])


@disk_set("ClassName.txt, Training_01.txt, Testing_01.txt and <letter>/<class>/*.jpg")
def sun397(root: Path, part: str) -> DiskSet:
    """SUN397: 397 kinds of places, 39,700 photographs in the first partition."""
    base = locate(root, ("ClassName.txt",), ("SUN397",))
    leaf = "Testing_01.txt" if part == "test" else "Training_01.txt"
    places = [folder / leaf for folder in (base, base / "Partitions", root, root / "Partitions")]
    source = first_of(places, f"{leaf} (from Partitions.zip); not found in {base}")
    folders = [line.strip("/") for line in read_lines(base / "ClassName.txt")]
    names = [line.lstrip("/") for line in read_lines(source)]
    labels = _numbers(folders, [_folder(name, source) for name in names], source)
    # "c/church/indoor" is filed under its first letter and is said "church indoor".
    classes = tuple(tidy_name(folder.partition("/")[2].replace("/", " ")) for folder in folders)
    return _listed_set(base, classes, names, labels, source)


def _listed_set(
    base: Path,
    classes: tuple[str, ...],
    names: Sequence[str],
    labels: Sequence[int],
    source: Path,
    **more: Any,
) -> DiskSet:
    """A set of the pictures that a list names, which must be there."""
    files = Files(base, names)
    check_present(files, source.name)
    try:
        return DiskSet(classes, torch.tensor(labels), files, **more)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def _groups(names: Sequence[str]) -> torch.Tensor:
    """The number of each name, in alphabetical order."""
    return torch.from_numpy(np.unique(names, return_inverse=True)[1])


def _numbers(classes: Sequence[str], names: Sequence[str], source: Path) -> list[int]:
    number: Mapping[str, int] = {name: index for index, name in enumerate(classes)}
    strange = next((name for name in names if name not in number), None)
    if strange is not None:
        raise UserError(f'{source} names the class "{strange:.80}", which is not among the {len(classes)} classes')
    return [number[name] for name in names]


def _folder(line: str, source: Path) -> str:
    folder, _, leaf = line.rpartition("/")
    if not folder or ".." in line.split("/"):
        raise UserError(f'{source} has the line "{line:.80}"; expected <class>/<picture>')
    _leaf(leaf, source)
    return folder


def _leaf(name: str, source: Path) -> str:
    # A list may name pictures beside it and nothing else on the disk.
    if not name or "/" in name or "\\" in name or name in (".", ".."):
        raise UserError(f'{source} names the picture "{name:.80}"; expected a plain file name')
    return name


def _text(value: Any, source: Path) -> str:
    if not isinstance(value, str):
        raise UserError(f"{source} has {value!r:.80} where a name should be; unpack the data set again")
    return value


def _whole(value: Any, source: Path) -> int:
    try:
        return int(value)
    except (TypeError, ValueError):
        raise UserError(
            f"{source} has {value!r:.80} where a class number should be; unpack the data set again"
        ) from None
