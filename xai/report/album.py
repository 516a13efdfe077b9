"""The images of a run with all of its maps, as pictures that the site shows: one file an image, all maps side by side.

A run writes them, for it has the images at hand; the site, which computes nothing, copies them.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field

from xai.core.errors import UserError
from xai.core.files import read_text, write_atomically
from xai.core.settings import Count, Whole, build, settings
from xai.report.pictures import Gallery, single_maps, swapped

FOLDER = "gallery"
"""In the folder of a run."""
LIST = "gallery.json"
ACROSS = 10
"""Tiles in a line of a file: browsers and WebP have a limit to how wide a picture is."""
_SIDE = 160
"""Pixels of a tile."""
_LARGEST = 2**26
"""Bytes of a list that is read."""


@settings
class Tile:
    """What stands at one place of every file.

    Args:
        row: The explainer; empty for the image itself.
        label: Of it.
        second: Whether it is of the second class.
    """

    row: str
    label: str
    second: bool = False


@settings
class Shown:
    """An image.

    Args:
        image: Its row in the split.
        target: Name of the class that is explained.
        predicted: What the classifier predicts.
        true: The true class; None where it is unknown.
        second: The second class, of which some tiles are; None where it has none.
    """

    image: Whole
    target: str
    predicted: str
    true: str | None
    second: str | None


@settings
class Album:
    """What lies in the folder of a gallery; the file of image i is called by `file(i)`.

    Args:
        width: Pixels of a tile.
        height: The same, down.
        tiles: In their order, ten in a line.
        images: In their order.
    """

    width: Count
    height: Count
    tiles: Annotated[tuple[Tile, ...], Field(min_length=1)]
    images: tuple[Shown, ...]


def file(number: int) -> str:
    """The name of the file of an image."""
    return f"{number:05d}.webp"


def write_album(folder: Path, galleries: Sequence[Gallery], names: Mapping[str, str]) -> None:
    """Write images and maps into `gallery/` of a run's folder, those of the second class after the others."""
    labels, others = list(galleries[0].maps), list(dict.fromkeys(label for each in galleries for label in each.second))
    tiles = [Tile("", "image"), *(Tile(names[label], label) for label in labels)]
    tiles += [Tile(names[label], label, True) for label in others]
    (folder / FOLDER).mkdir()
    listed: dict[int, Shown] = {}
    size = (_SIDE, max(1, round(_SIDE * galleries[0].images.shape[2] / galleries[0].images.shape[3])))
    for found in galleries:
        images, maps = single_maps(found)
        second = single_maps(swapped(found))[1] if found.second else {}
        for place, shown in enumerate(_listed(found)):
            if shown.image in listed:
                continue
            drawn = [images[place], *(each[label][place] for each in (maps, second) for label in each)]
            content = _side_by_side(drawn, size)
            write_atomically(folder / FOLDER / file(len(listed)), content)
            listed[shown.image] = shown
    album = Album(size[0], size[1], tuple(tiles), tuple(listed.values()))
    write_atomically(folder / FOLDER / LIST, (json.dumps(asdict(album), indent=1) + "\n").encode())


def _listed(found: Gallery) -> list[Shown]:
    count = len(found.images)
    nobody: list[str | None] = [None] * count
    rows, true = found.rows or range(count), found.true or nobody
    second = found.second_classes or nobody
    named = zip(rows, found.classes, found.predicted or found.classes, true, second, strict=True)
    return [Shown(*each) for each in named]


def read_album(folder: Path) -> Album | None:
    """What a run wrote; None where it wrote none, or it cannot be read."""
    path = folder / FOLDER / LIST
    try:
        return None if path.is_symlink() else build(Album, json.loads(read_text(path, _LARGEST)), "gallery")
    except (OSError, ValueError, RecursionError, UserError):
        return None


def _side_by_side(pictures: list[NDArray[np.uint8]], size: tuple[int, int]) -> bytes:
    lines = -(-len(pictures) // ACROSS)
    sheet = Image.new("RGB", (size[0] * min(len(pictures), ACROSS), size[1] * lines))
    for place, pixels in enumerate(pictures):
        # Patches stay sharp where they are enlarged.
        how = Image.Resampling.NEAREST if pixels.shape[1] <= size[0] else Image.Resampling.LANCZOS
        at = (place % ACROSS * size[0], place // ACROSS * size[1])
        sheet.paste(Image.fromarray(pixels).resize(size, how), at)
    held = io.BytesIO()
    sheet.save(held, "WEBP", quality=85, method=2)
    return held.getvalue()
