"""Data sets whose splits are lists: Stanford Cars, DTD, GTSRB, MURA, Oxford-IIIT Pet, SUN397."""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xai.core.errors import UserError
from xai.data.disk_set import (
    HELD_OUT,
    DiskSet,
    Files,
    MissingError,
    Regions,
    check_present,
    locate,
    read_lines,
    tidy_name,
    train_part,
)
from xai.data.mat import read_mat
from xai.data.prompts import GTSRB_NAMES
from xai.data.splits import stratified_parts


def cars(root: Path, split: str) -> DiskSet:
    """Stanford Cars, 196 classes: official train and test by the devkit's MATLAB lists, validation a tenth of train."""
    inside = ("stanford_cars", "cars")
    if split == "test":
        base = locate(root, ("devkit/cars_meta.mat", "cars_test"), inside)
        leaf = "cars_test_annos_withlabels.mat"
        source = next((path for path in (base / leaf, base / "devkit" / leaf) if path.is_file()), None)
        if source is None:
            raise MissingError(f"needs {leaf}; not found in {base}")
        pictures = "cars_test"
    else:
        base = locate(root, ("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "cars_train"), inside)
        source, pictures = base / "devkit" / "cars_train_annos.mat", "cars_train"
    meta = base / "devkit" / "cars_meta.mat"
    classes = tuple(tidy_name(_text(name, meta)) for name in np.atleast_1d(read_mat(meta, "class_names")))
    rows = np.atleast_1d(read_mat(source, "annotations"))
    absent = [field for field in ("class", "fname") if field not in (rows.dtype.names or ())]
    if absent:
        raise UserError(f"{source} has no field {absent[0]}; take the list that holds class and fname")
    names = [f"{pictures}/{_leaf(_text(name, source), source)}" for name in rows["fname"]]
    # MATLAB counts from 1.
    labels = torch.tensor([_whole(value, source) for value in rows["class"]]) - 1
    whole = _listed_set(base, classes, names, labels, source)
    return whole if split == "test" else train_part(whole, split)


def dtd(root: Path, split: str) -> DiskSet:
    """Describable Textures, 47 classes: the first of its ten official train / validation / test partitions."""
    base = locate(root, ("labels/train1.txt", "images"), ("dtd", "dtd/dtd"))
    source = base / "labels" / f"{'val' if split == 'validation' else split}1.txt"
    if not source.is_file():
        raise MissingError(f"needs labels/{source.name}; not found in {base}")
    classes = sorted({_folder_and_leaf(line, source)[0] for line in read_lines(base / "labels" / "train1.txt")})
    lines = read_lines(source)
    labels = _numbers(classes, [_folder_and_leaf(line, source)[0] for line in lines], source)
    names = [f"images/{line}" for line in lines]
    return _listed_set(base, tuple(tidy_name(name) for name in classes), names, labels, source)


def gtsrb(root: Path, split: str) -> DiskSet:
    """German traffic signs, 43 classes: official train and test; validation a tenth of the train tracks of each class.

    A track is some thirty frames of one and the same sign, so whole tracks are held out: a random tenth of the frames
    would have its neighbours in train.
    """
    inside = ("gtsrb", "GTSRB", "gtsrb/GTSRB")
    if split == "test":
        return _gtsrb_test(root, inside)
    marks = ("GTSRB/Training", "GTSRB/Final_Training/Images", "Training", "Final_Training/Images")
    base = _first_of(root, marks, inside)
    names: list[str] = []
    for folder in sorted(path for path in base.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if not re.fullmatch(r"\d{5}", folder.name) or int(folder.name) >= len(GTSRB_NAMES):
            raise UserError(f"{folder} is no GTSRB class; folders are called 00000 to {len(GTSRB_NAMES) - 1:05d}")
        found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == ".ppm" and path.name[0] != ".")
        if not found:
            raise UserError(f"class folder {folder} has no .ppm pictures; unpack the data set again")
        names += [f"{folder.name}/{leaf}" for leaf in found]
    if not names:
        raise MissingError(f"needs class folders 00000 to {len(GTSRB_NAMES) - 1:05d}; none found in {base}")
    labels = torch.tensor([int(name[:5]) for name in names])
    tracks = {track: index for index, track in enumerate(sorted({name.rpartition("_")[0] for name in names}))}
    groups = torch.tensor([tracks[name.rpartition("_")[0]] for name in names])
    return train_part(DiskSet(GTSRB_NAMES, labels, Files(base, names)), split, groups)


_TRIMAP_PET, _TRIMAP_BORDER = 1, 3
"""Numbers in the trimaps of Oxford-IIIT Pet; 2 is the background.

The border, a band of some pixels that was left unclassified, counts as region: breeds are told by their outlines (ears,
muzzle, coat), and without the band an attribution on the outline would count as one on the background.
"""


def mura(root: Path, split: str) -> DiskSet:
    """MURA v1.1 (Rajpurkar et al. 2018), normal or abnormal as the study's folder says.

    The official test set is not public, so the official validation set is the test split. Validation is a tenth of the
    patients of train: pictures of one patient stay on one side.
    """
    leaf = "valid_image_paths.csv" if split == "test" else "train_image_paths.csv"
    source = locate(root, (leaf,), ("MURA-v1.1", "mura/MURA-v1.1")) / leaf
    # The lists name the unpacked archive as well: MURA-v1.1/train/XR_ELBOW/patient00011/study1_negative/image1.png.
    pattern = re.compile(r"MURA-v1\.1/((?:train|valid)/XR_[A-Z]+/(patient\d+)/study\d+_(positive|negative)/[^/\\]+)")
    lines = read_lines(source)
    found = [pattern.fullmatch(line) for line in lines]
    strange = next((line for line, match in zip(lines, found, strict=True) if match is None), None)
    if strange is not None:
        raise UserError(
            f'{source} has the line "{strange:.80}"; expected MURA-v1.1/train/XR_.../patient.../study1_positive/...'
        )
    names, patients, signs = zip(*(match.groups() for match in found if match), strict=True)
    labels = torch.tensor([sign == "positive" for sign in signs]).long()
    whole = _listed_set(source.parent, ("normal", "abnormal"), list(names), labels, source)
    return whole if split == "test" else whole.take(_rows_of_patients(patients, labels, split))


def pet(root: Path, split: str) -> DiskSet:
    """Oxford-IIIT Pet (Parkhi et al. 2012), 37 breeds with the region of the animal in each picture.

    Official trainval and test; validation is a tenth of trainval. Regions are the trimaps, the border included.
    """
    leaf = f"annotations/{'test' if split == 'test' else 'trainval'}.txt"
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
    classes = tuple(breeds[number] for number in sorted(breeds))
    labels = torch.tensor([number for _, number in rows]) - 1
    pictures = Files(base, [f"images/{name}.jpg" for name, _ in rows])
    trimaps = Files(base, [f"annotations/trimaps/{name}.png" for name, _ in rows])
    for files in (pictures, trimaps):
        check_present(files, source.name)
    whole = DiskSet(classes, labels, pictures, Regions(trimaps, (_TRIMAP_PET, _TRIMAP_BORDER)))
    return whole if split == "test" else train_part(whole, split)


def sun397(root: Path, split: str) -> DiskSet:
    """SUN397: the first official partition, `Training_01.txt` and `Testing_01.txt`; validation a tenth of train."""
    base = locate(root, ("ClassName.txt",), ("SUN397",))
    leaf = "Testing_01.txt" if split == "test" else "Training_01.txt"
    places = [folder / leaf for folder in (base, base / "Partitions", root, root / "Partitions")]
    source = next((path for path in places if path.is_file()), None)
    if source is None:
        raise MissingError(f"needs {leaf} (from Partitions.zip); not found in {base}")
    folders = [line.strip("/") for line in read_lines(base / "ClassName.txt")]
    names = [line.lstrip("/") for line in read_lines(source)]
    labels = _numbers(folders, [_folder_and_leaf(name, source)[0] for name in names], source)
    # "c/church/indoor" is filed under its first letter and is said "church indoor".
    classes = tuple(tidy_name(folder.partition("/")[2].replace("/", " ")) for folder in folders)
    whole = _listed_set(base, classes, names, labels, source)
    return whole if split == "test" else train_part(whole, split)


def _gtsrb_test(root: Path, inside: Sequence[str]) -> DiskSet:
    base = _first_of(root, ("GTSRB/Final_Test/Images", "Final_Test/Images"), inside)
    places = [folder / "GT-final_test.csv" for folder in (base.parent.parent.parent, base.parent.parent, base, root)]
    source = next((path for path in places if path.is_file()), None)
    if source is None:
        raise MissingError(f"needs GT-final_test.csv, the list with the class numbers; not found in {root} or {base}")
    rows = list(csv.DictReader(read_lines(source), delimiter=";", skipinitialspace=True))
    if not rows or not {"Filename", "ClassId"} <= rows[0].keys():
        raise UserError(f"{source} has no columns Filename and ClassId; take the test list with the class numbers")
    names = [_leaf(row["Filename"] or "", source) for row in rows]
    labels = torch.tensor([_whole(row["ClassId"], source) for row in rows])
    return _listed_set(base, GTSRB_NAMES, names, labels, source)


def _pet_lines(source: Path) -> list[tuple[str, int]]:
    """Name and class number, from 1, of each picture; a line is "Abyssinian_100 1 1 1" (class, species, breed)."""
    lines = [line for line in read_lines(source) if not line.startswith("#")]
    strange = next((line for line in lines if len(line.split()) != 4), None)
    if strange is not None:
        raise UserError(f'{source} has the line "{strange:.80}"; expected <Breed>_<number> and three numbers')
    if not lines:
        raise UserError(f"{source} names no pictures; unpack the data set again")
    rows = [line.split() for line in lines]
    return [(_leaf(row[0], source), _whole(row[1], source)) for row in rows]


def _breed(name: str) -> str:
    return tidy_name(name.rpartition("_")[0])


def _rows_of_patients(patients: Sequence[str], labels: torch.Tensor, split: str) -> torch.Tensor:
    """Rows of train or validation, a patient being abnormal where one picture is: stratified by patients."""
    number = {patient: index for index, patient in enumerate(sorted(set(patients)))}
    patient_of_row = torch.tensor([number[patient] for patient in patients])
    abnormal = torch.zeros(len(number), dtype=torch.long).index_add(0, patient_of_row, labels).clamp(max=1)
    train, validation = stratified_parts(abnormal, (HELD_OUT,))
    chosen = validation if split == "validation" else train
    return torch.isin(patient_of_row, chosen).nonzero().flatten()


def _listed_set(base: Path, classes: tuple[str, ...], names: list[str], labels: torch.Tensor, source: Path) -> DiskSet:
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= len(classes):
        raise UserError(f"{source} has a class number outside its {len(classes)} classes; unpack the data set again")
    files = Files(base, names)
    check_present(files, source.name)
    return DiskSet(classes, labels, files)


def _first_of(root: Path, marks: Sequence[str], inside: Sequence[str]) -> Path:
    places = [folder / mark for folder in (root, *(root / name for name in inside)) for mark in marks]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        raise MissingError(f"needs {marks[0]}; not found in {root}")
    return found


def _numbers(classes: Sequence[str], names: Sequence[str], source: Path) -> torch.Tensor:
    number = {name: index for index, name in enumerate(classes)}
    strange = next((name for name in names if name not in number), None)
    if strange is not None:
        raise UserError(f'{source} names the class "{strange:.80}", which is not among the {len(classes)} classes')
    return torch.tensor([number[name] for name in names])


def _folder_and_leaf(line: str, source: Path) -> tuple[str, str]:
    folder, _, leaf = line.rpartition("/")
    if not folder or ".." in line.split("/"):
        raise UserError(f'{source} has the line "{line:.80}"; expected <class>/<picture>')
    return folder, _leaf(leaf, source)


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
