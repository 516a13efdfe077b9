"""The few photographs that are there without a download: those inside the wheels of scikit-learn and scikit-image."""

import hashlib
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from xai.core.files import package_folder
from xai.core.settings import Side, settings
from xai.data.contents import hashes
from xai.data.images import read_image, to_tensor
from xai.data.pictures import UnlabelledSet
from xai.data.registry import Images, register

PHOTOS = (
    ("sklearn", "datasets/images/china.jpg"),
    ("sklearn", "datasets/images/flower.jpg"),
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
)
"""Where they lie in each package."""
_DISTRIBUTIONS = {"sklearn": "scikit-learn", "skimage": "scikit-image"}

_PLACES = ((0.5, 0.5), (0.2, 0.5), (0.8, 0.5), (0.5, 0.2), (0.5, 0.8))
"""Where a crop stands between the edges it can touch, across and down: the middle, left, right, top, bottom."""
_SHARE = 0.75
"""Side of a crop, of the short side; the first crop of a photograph is the largest square there is."""


@settings
class PhotosParams:
    """Which squares of the photographs.

    Args:
        size: Side of the squares, in pixels.
        crops: Squares of each photograph: the middle one, and smaller ones to the left, right, top, bottom of it.
        classes: Names of the classifier's classes, or a text file with one a line; null: as its file says.
    """

    size: Side
    crops: Annotated[int, Field(ge=1, le=len(_PLACES))] = 3
    classes: str | tuple[str, ...] | None = None


@register("photos", "photographs inside the wheels of scikit-learn and scikit-image, and crops of them", PhotosParams)
class PackagedPhotos(UnlabelledSet):
    """Squares of the photographs, the middle ones first.

    Args:
        params: Which squares.

    Raises:
        UserError: A package is not installed; the names of the classes are not known.
    """

    def __init__(self, params: PhotosParams) -> None:
        super().__init__(params.classes)
        folders = {name: package_folder(name, named, "data=photos") for name, named in _DISTRIBUTIONS.items()}
        self._paths = [folders[package] / name for package, name in PHOTOS]
        self._params, self.count = params, len(PHOTOS) * params.crops

    @property
    def fingerprint(self) -> str:
        """Changes with the contents of the photographs."""
        held = [hashes(path.parent, [path.name]) for path in self._paths]
        return hashlib.sha256(repr(held).encode()).hexdigest()[:20]

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The squares at `indices`, [B, 3, size, size] in [0, 1]."""
        return Images(torch.stack([self._square(*divmod(i, len(PHOTOS))[::-1]) for i in indices.tolist()]), None)

    def _square(self, photo: int, crop: int) -> Tensor:
        image = read_image(self._paths[photo])
        side = round(min(image.size) * (_SHARE if crop else 1))
        left, top = (round(place * (edge - side)) for place, edge in zip(_PLACES[crop], image.size, strict=True))
        return to_tensor(image.crop((left, top, left + side, top + side)), self._params.size)
