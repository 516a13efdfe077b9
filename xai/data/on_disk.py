"""The data sets a user brings along: which there are, how each must lie on disk, and the one way to open them.

Nothing is downloaded, and nothing is unpickled.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from xai.core.errors import UserError
from xai.data import folder, listed, packed
from xai.data.disk_set import DiskSet, MissingError
from xai.data.splits import check_split


@dataclass(frozen=True)
class DiskSetInfo:
    """A data set on disk: what it is, how it lies there (`layout`, shown in errors), and what reads one split of it."""

    name: str
    description: str
    layout: str
    read: Callable[[Path, str], DiskSet]


_ALL = (
    DiskSetInfo(
        "folder",
        "any folder of pictures, one folder per class",
        "<class>/*.jpg, or train/<class>/*.jpg and test/<class>/*.jpg",
        folder.image_folder,
    ),
    DiskSetInfo(
        "imagenet",
        "ImageNet-1k: 1000 kinds of things, 1.28 million photographs",
        "train/n01440764/*.JPEG ... and val/n01440764/*.JPEG ...",
        folder.imagenet,
    ),
    DiskSetInfo(
        "imagenette",
        "ImageNette: 10 easy classes of ImageNet, 13,394 photographs",
        "imagenette2/train/n01440764/*.JPEG ... and imagenette2/val/n01440764/*.JPEG ...",
        folder.imagenette,
    ),
    DiskSetInfo(
        "cars",
        "Stanford Cars: 196 models of cars, 16,185 photographs",
        "devkit/cars_meta.mat, devkit/cars_train_annos.mat, cars_test_annos_withlabels.mat, cars_train/ and cars_test/",
        listed.cars,
    ),
    DiskSetInfo(
        "dtd",
        "Describable Textures: 47 textures, 5,640 pictures",
        "labels/train1.txt, labels/val1.txt, labels/test1.txt and images/<class>/*.jpg",
        listed.dtd,
    ),
    DiskSetInfo(
        "eurosat",
        "EuroSAT (RGB): 10 uses of land, 27,000 satellite pictures",
        "2750/AnnualCrop/*.jpg ... 2750/SeaLake/*.jpg",
        folder.eurosat,
    ),
    DiskSetInfo(
        "gtsrb",
        "German traffic signs: 43 signs, 51,839 photographs",
        "GTSRB/Training/00000/*.ppm ..., GTSRB/Final_Test/Images/*.ppm and GT-final_test.csv",
        listed.gtsrb,
    ),
    DiskSetInfo(
        "mura",
        "MURA v1.1: radiographs of the upper limb, normal or abnormal, 40,005 pictures",
        "MURA-v1.1/train_image_paths.csv, valid_image_paths.csv and train/XR_ELBOW/patient00011/study1_negative/*.png",
        listed.mura,
    ),
    DiskSetInfo(
        "pet",
        "Oxford-IIIT Pet: 37 breeds of cats and dogs, 7,349 photographs, with regions",
        "images/*.jpg, annotations/trainval.txt, annotations/test.txt and annotations/trimaps/*.png",
        listed.pet,
    ),
    DiskSetInfo(
        "resisc45",
        "NWPU-RESISC45: 45 kinds of scenes from above, 31,500 pictures",
        "NWPU-RESISC45/<class>/*.jpg and, if you have them, resisc45-train.txt, resisc45-val.txt, resisc45-test.txt",
        folder.resisc45,
    ),
    DiskSetInfo(
        "sun397",
        "SUN397: 397 kinds of places, 39,700 photographs in the first partition",
        "ClassName.txt, Training_01.txt, Testing_01.txt and <letter>/<class>/*.jpg",
        listed.sun397,
    ),
    DiskSetInfo(
        "wbc",
        "white blood cells of Bodzas et al.: 9 kinds, 16,027 micrographs",
        "Basophile/*.bmp, Eosinophile/*.bmp ... Neutrophile Segment/*.bmp, Normoblast/*.bmp",
        folder.wbc,
    ),
    DiskSetInfo(
        "svhn",
        "Street View House Numbers: 10 digits, 99,289 photographs of 32 x 32",
        "train_32x32.mat and test_32x32.mat",
        packed.svhn,
    ),
    DiskSetInfo(
        "mnist",
        "MNIST: 10 handwritten digits, 70,000 pictures of 28 x 28",
        "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (or .gz)",
        packed.mnist,
    ),
    DiskSetInfo(
        "cifar100",
        "CIFAR-100: 100 kinds of things, 60,000 photographs of 32 x 32",
        "cifar-100-binary/train.bin, cifar-100-binary/test.bin and cifar-100-binary/fine_label_names.txt",
        packed.cifar100,
    ),
    DiskSetInfo(
        "stl10",
        "STL-10: 10 kinds of things, 13,000 labelled photographs of 96 x 96",
        "stl10_binary/train_X.bin, train_y.bin, test_X.bin, test_y.bin and class_names.txt",
        packed.stl10,
    ),
)

DISK_SETS: dict[str, DiskSetInfo] = {info.name: info for info in _ALL}


def open_disk_set(name: str, root: str | os.PathLike[str] | None, split: str) -> DiskSet:
    """One split of a data set on disk: its index in memory, its pictures read when asked for.

    Official splits are kept. Where there is no validation split, a stratified tenth of train (fixed seed) is it.

    Args:
        name: a key of `DISK_SETS`.
        root: the folder that holds the layout of `DISK_SETS[name]`; `~` is understood.
        split: "train", "validation" (or "val") or "test".

    Raises:
        UserError: unknown name or split; a folder, file or picture that is not there; a list or archive that is broken;
            classes that are fewer than two or clash. One line that starts with `data=<name>`.
    """
    if name not in DISK_SETS:
        raise UserError(f"data={name} is no data set on disk; give one of {', '.join(DISK_SETS)}")
    info = DISK_SETS[name]
    split = check_split(split)
    if root is None or not str(root).strip():
        raise UserError(f"data={name} needs a folder with {info.layout}; none is given; set data.root=...")
    base = Path(root).expanduser()
    if not base.is_dir():
        raise UserError(f"data={name} needs a folder with {info.layout}; not found at {base}; set data.root=...")
    try:
        return info.read(base, split)
    except MissingError as error:
        raise UserError(f"data={name} {error}; expected {info.layout}; set data.root=...") from None
    except UserError as error:
        raise UserError(f"data={name}: {error}") from None
    except OSError as error:
        raise UserError(f"data={name} cannot be read from {base} ({error}); check the permissions") from None
