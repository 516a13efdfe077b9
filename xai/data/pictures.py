"""Pictures without labels: a file, a folder or a glob of them, explained for the class that the classifier predicts."""

import glob
import hashlib
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import Count, settings
from xai.data.contents import hashes
from xai.data.disk_set import read_lines
from xai.data.folder import are_pictures, pictures_in
from xai.data.images import read_image, to_tensor
from xai.data.prompts import DEFAULT_PROMPTS
from xai.data.registry import Images, register


@settings
class PicturesParams:
    """Which pictures, and how they become squares.

    Args:
        path: A picture, a folder (with all below it), or a glob such as `photos/*.jpg`.
        size: Side of the squares, in pixels.
        fit: `crop` brings the short side to `size` and cuts out the centre; `squash` brings both sides to it.
        classes: Names of the classifier's classes, or a text file with one a line; null: as its file says.
    """

    path: str
    size: Count
    fit: Literal["crop", "squash"] = "crop"
    classes: str | tuple[str, ...] | None = None


@register("pictures", "your own pictures without labels: a file, a folder or a glob", PicturesParams)
class Pictures:
    """All of them are the test split; the other splits are empty.

    Args:
        params: Which.

    Raises:
        UserError: there are none; the names of the classes are not known.
    """

    varies = False
    labelled = False
    templates = DEFAULT_PROMPTS

    def __init__(self, params: PicturesParams) -> None:
        if params.classes is None:
            raise UserError("data.classes is not set, and no checkpoint says it: give names, or a file with one a line")
        named = isinstance(params.classes, tuple)
        self.classes = params.classes if named else tuple(read_lines(Path(str(params.classes)).expanduser()))
        path = Path(params.path).expanduser()
        listed = map(Path, glob.glob(str(path)))
        paths = [path] if path.is_file() else pictures_in(path) if path.is_dir() else are_pictures(listed)
        self._paths = sorted(each.resolve() for each in paths)
        if not self._paths:
            raise UserError(f"data.path={params.path} leads to no picture: give a file, a folder or a glob of pictures")
        self._params = params

    @property
    def fingerprint(self) -> str:
        """Changes with the names and the contents of the pictures."""
        held = [(str(path), hashes(path.parent, [path.name])) for path in self._paths]
        return hashlib.sha256(repr(held).encode()).hexdigest()[:20]

    @property
    def summary(self) -> str:
        """How many there are."""
        return f"{len(self._paths)} pictures without labels"

    def labels(self, split: str) -> Tensor:
        """As many zeros as there are pictures: nobody knows their classes."""
        return torch.zeros(len(self._paths) if split == "test" else 0, dtype=torch.long)

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The pictures at `indices`, [B, 3, size, size] in [0, 1]."""
        read = [to_tensor(read_image(self._paths[i]), self._params.size, self._params.fit) for i in indices.tolist()]
        return Images(torch.stack(read), None)
