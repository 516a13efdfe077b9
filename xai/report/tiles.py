"""The same images under all explainers, in one grid whose image, order and rows are chosen in the browser."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from xai.report.figures import Source
from xai.report.pictures import Gallery, single_maps
from xai.study.columns import after_point, number

_SIDE = 160
"""Pixels of a tile, where its image has more."""


@dataclass(frozen=True)
class Tile:
    """A row in the grid: its maps as data URIs, one an image.

    By metric, `values` has its mean as text (empty where it has none), and `places` its place, 0 for the best.
    """

    label: str
    kind: str
    maps: Sequence[str]
    values: Mapping[str, str]
    places: Mapping[str, int]


@dataclass(frozen=True)
class Tiles:
    """The grid: images as data URIs, with the class that is explained as `names`, and a tile for each explainer.

    `orders` are the metrics that the tiles can be sorted by: name to label.
    """

    images: Sequence[str]
    names: Sequence[str]
    tiles: Sequence[Tile]
    orders: Mapping[str, str]


def tiles_of(gallery: Gallery, source: Source) -> Tiles:
    """The grid of a gallery."""
    images, maps = single_maps(gallery)
    kinds = source.scores.groupby("label")["kind"].first()
    metrics = [str(name) for name in source.scores["metric"].unique() if source.column(str(name)).better]
    values: dict[str, dict[str, str]] = {label: {} for label in maps}
    places: dict[str, dict[str, int]] = {label: {} for label in maps}
    for metric in metrics:
        lines, column = source.of(metric), source.column(metric)
        means = source.averaged(metric, lines, ["label"]).sort_values(ascending=column.better == "lower", kind="stable")
        for place, (label, mean) in enumerate(means.items()):
            if label in maps:
                values[str(label)][metric] = number(float(mean), after_point(column))
                places[str(label)][metric] = place
    tiles = [
        Tile(label, str(kinds.get(label, "")), [_uri(each) for each in maps[label]], values[label], places[label])
        for label in maps
    ]
    shown = {name: source.column(name).label for name in metrics if any(name in each.places for each in tiles)}
    return Tiles([_uri(each) for each in images], gallery.classes, tiles, shown)


def _uri(pixels: NDArray[np.uint8]) -> str:
    """A picture [H, W, 3] as a data URI, no larger than a tile; enlarged in whole steps, so that patches stay sharp."""
    picture = Image.fromarray(pixels)
    longest = max(picture.size)
    if longest > _SIDE:
        size = (round(picture.width * _SIDE / longest), round(picture.height * _SIDE / longest))
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    else:
        factor = _SIDE // longest
        picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    held = io.BytesIO()
    picture.save(held, "WEBP", quality=85)
    return "data:image/webp;base64," + base64.b64encode(held.getvalue()).decode("ascii")
