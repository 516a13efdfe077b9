"""Pictures without labels: a file, a folder or a glob of them, explained for the class that the classifier predicts."""

import glob
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from xai.core.errors import UserError
from xai.core.files import check_file
from xai.core.settings import Side, settings
from xai.data.class_names import read_class_names
from xai.data.contents import hashes
from xai.data.folder import are_pictures, pictures_in
from xai.data.images import read_image, side_of, to_tensor
from xai.data.prompts import DEFAULT_PROMPTS
from xai.data.registry import Images, register


@settings
class PicturesParams:
    """Which pictures, and how they become squares.

    Args:
        path: A picture, a folder (with all below it), or a glob such as `photos/*.jpg`; or several of them.
        size: Side of the squares, in pixels.
        fit: `crop` cuts out the centre; `squash` brings both sides to one length; null crops, in task=compare does what
            the classifier was trained with.
        share: Of a side that is left when the middle is cut out; null leaves all, in task=compare what the
            classifier sees.
        interpolation: How they are resized; null: bicubic, in task=compare as the classifier has it.
        classes: Names of the classifier's classes, or a text file with one a line; null: as its file says.
    """

    path: str | tuple[str, ...]
    size: Side
    fit: Literal["crop", "squash"] | None = None
    share: Annotated[float, Field(gt=0.01, le=1.5)] | None = None
    interpolation: Literal["bicubic", "bilinear"] | None = None
    classes: str | tuple[str, ...] | None = None


class UnlabelledSet:
    """Images whose classes nobody knows: all of them are the test split, and the other splits are empty.

    Args:
        classes: Names of the classifier's classes, or a file of them (`read_class_names`).

    Attributes:
        count: How many images there are; a subclass says it.

    Raises:
        UserError: The names of the classes are not known.
    """

    varies = False
    labelled = False
    templates = DEFAULT_PROMPTS
    count: int

    def __init__(self, classes: str | tuple[str, ...] | None) -> None:
        if classes is None:
            raise UserError("data.classes is not set, and no checkpoint says it: give names, or a file with one a line")
        self.classes = read_class_names(classes) if isinstance(classes, str) else classes

    def labels(self, split: str) -> Tensor:
        """As many zeros as there are images."""
        return torch.zeros(self.count if split == "test" else 0, dtype=torch.long)


@register("pictures", "your own pictures without labels: a file, a folder or a glob", PicturesParams)
class OwnPictures(UnlabelledSet):
    """The pictures that a user points at.

    Args:
        params: Which.

    Raises:
        UserError: There are none; the names of the classes are not known.
    """

    def __init__(self, params: PicturesParams) -> None:
        super().__init__(params.classes)
        self._paths = sorted(each.resolve() for each in find_pictures(params.path, "data.path"))
        self._params, self.count = params, len(self._paths)

    @property
    def fingerprint(self) -> str:
        """Changes with the names and the contents of the pictures."""
        # The hashes of a folder are remembered together, so they are asked for together.
        folders: dict[Path, list[Path]] = {}
        for path in self._paths:
            folders.setdefault(path.parent, []).append(path)
        known: dict[Path, str] = {}
        for folder, paths in folders.items():
            known |= zip(paths, hashes(folder, [path.name for path in paths]), strict=True)
        held = [(str(path), [known[path]]) for path in self._paths]
        return hashlib.sha256(repr(held).encode()).hexdigest()[:20]

    @property
    def summary(self) -> str:
        """How many there are."""
        return f"{len(self._paths)} pictures without labels"

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The pictures at `indices`, [B, 3, size, size] in [0, 1]."""
        read = [self._square(self._paths[i]) for i in indices.tolist()]
        return Images(torch.stack(read), None)

    def _square(self, path: Path) -> Tensor:
        asked = self._params
        side, interpolation = side_of(asked.size, asked.share or 1.0), asked.interpolation or "bicubic"
        return to_tensor(read_image(path), asked.size, asked.fit or "crop", side=side, interpolation=interpolation)


def find_pictures(asked: str | Sequence[str], setting: str) -> list[Path]:
    """The pictures that are meant, each once: of a file itself, of a folder all below it, of a glob what it matches.

    Raises:
        UserError: One of them leads to no picture, or to one of a kind that is not read.
    """
    found: dict[Path, Path] = {}
    for each in [asked] if isinstance(asked, str) else asked:
        if not each.strip():  # a variable of the shell that is not set, and not the folder one is in
            raise UserError(f"{setting} is empty: give a file, a folder or a glob of pictures")
        path = Path(each).expanduser()
        if path.is_dir():
            paths, what = pictures_in(path), f"there is none in this folder ({path.resolve()}) nor below it"
        elif glob.has_magic(each) and not path.exists():
            matched = map(Path, glob.glob(str(path), recursive=True))
            paths, what = sorted(are_pictures(matched)), f"nothing in {Path.cwd()} is called like that"
        else:
            check_file(path, str(path), "a picture")
            paths, what = [path], ""
        if not paths:
            raise UserError(
                f"{setting}={each} leads to no picture: {what}; give a file, a folder or a glob of pictures"
            )
        for picture in paths:
            found.setdefault(picture.resolve(), picture)
    if not found:
        raise UserError(f"{setting} is an empty list: give a file, a folder or a glob of pictures")
    return list(found.values())


def check_readable(paths: Sequence[Path]) -> None:
    """Read pictures once, so that a broken one is heard of before the work begins and not in the middle.

    Raises:
        UserError: Some cannot be read; all of them are named.
    """
    faults = []
    for path in paths:
        try:
            read_image(path)
        except UserError as error:
            faults.append(str(error))
    if faults:
        many = f"{len(faults)} of {len(paths)} pictures cannot be read: " if len(paths) > 1 else ""
        raise UserError(many + "; ".join(faults))
