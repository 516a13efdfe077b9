"""Sheets of pictures: images down, explainers across, each map over its image.

One convention of colour: red speaks for the class, blue against it, and where nothing is said the image is seen. A map
with both signs is drawn around 0 and saturates at its largest absolute value; a map without negative values has no such
point and is drawn from its lowest value (no colour) to its highest. The maps of two classes of one image by one
explainer share their scale, so that they can be compared.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from torch import Tensor

from xai.core.errors import UserError
from xai.report.figures.style import BLUE, GREY, ORANGE, YELLOW
from xai.rounding import is_constant

Floats = NDArray[np.float64]

# Without its ends, which are so dark that blue and red look alike and hide the image below.
_COLOURS = LinearSegmentedColormap.from_list("evidence", colormaps["RdBu_r"](np.linspace(0.1, 0.9, 256)))
_MANY = 1024
"""Values from which the 99th percentile stands for the largest: single pixels of gradients dwarf all others."""


@dataclass(frozen=True)
class Gallery:
    """A few images and what explainers say of them.

    Args:
        images: [N, 3, H, W], uint8 or floats in [0, 1].
        maps: By label, in order: [N, h, w], of the class that is explained.
        classes: Names of the classes that are explained, N.
        true: Names of the true classes; None where they are unknown.
        predicted: What the classifier predicts; None: the class that is explained.
        second: Maps of the second class, by the same labels; those without are shown once.
        second_classes: Names of the second classes.
        regions: Outlined on all pictures, bool [N, H, W].
        notes: What stands below the maps of a label, N texts: what that row predicts, the share on a mark.
        rows: Rows of the images in their split, N.
    """

    images: Tensor
    maps: Mapping[str, Tensor]
    classes: Sequence[str]
    true: Sequence[str] | None = None
    predicted: Sequence[str] | None = None
    second: Mapping[str, Tensor] = field(default_factory=dict)
    second_classes: Sequence[str] | None = None
    regions: Tensor | None = None
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    rows: Sequence[int] | None = None

    def __post_init__(self) -> None:
        """Refuse what does not belong together."""
        if self.images.ndim != 4 or self.images.shape[1] != 3 or 0 in self.images.shape or not self.maps:
            raise UserError(
                f"images {list(self.images.shape)}, maps of {len(self.maps)} rows: give [N, 3, H, W], and one"
            )
        if self.second and self.second_classes is None:
            raise UserError("maps of a second class without its name: give second_classes")
        named: dict[str, Any] = {"classes": self.classes, "true": self.true, "predicted": self.predicted}
        named |= {"regions": self.regions, "rows": self.rows, "second_classes": self.second_classes}
        maps = {f"maps of {label}": maps for label, maps in (*self.maps.items(), *self.second.items())}
        for name, part in (named | dict(self.notes) | maps).items():
            if part is not None and len(part) != len(self.images):
                raise UserError(f"{len(part)} {name} for {len(self.images)} images: give one for each")
        for name, part in maps.items():
            if part.ndim != 3 or 0 in part.shape:
                raise UserError(f"{name} of shape {list(part.shape)} cannot be shown: give [{len(self.images)}, h, w]")


@dataclass(frozen=True)
class _Shown:
    """A column of maps."""

    label: str
    maps: Tensor
    second: bool = False


def sheets(gallery: Gallery, across: int = 12, inches: float = 1.25, beside: int = 1) -> list[Figure]:
    """All of a gallery; the maps of two classes stand side by side.

    Args:
        gallery: What is shown.
        across: Maps in a line at most; more are put on further sheets.
        inches: Width of a map.
        beside: Images in a line, each with its maps.
    """
    pages: list[list[_Shown]] = [[]]
    for label, maps in gallery.maps.items():
        pair = [_Shown(label, maps)]
        if label in gallery.second:
            pair.append(_Shown(label, gallery.second[label], second=True))
        if pages[-1] and len(pages[-1]) + len(pair) > across:
            pages.append([])
        pages[-1].extend(pair)
    return [_sheet(gallery, page, inches, min(beside, len(gallery.images))) for page in pages]


def _sheet(gallery: Gallery, shown: Sequence[_Shown], inches: float, beside: int) -> Figure:
    count, columns = len(gallery.images), len(shown) + 1
    height, width = gallery.images.shape[-2:]
    tall = min(max(inches * height / width, 0.4), 3.2 * inches)
    # Wide enough for the legend of the colours, whatever the number of maps.
    wide = max(inches * columns * beside + 0.3, 3.6)
    lines = -(-count // beside)
    figure = Figure(figsize=(wide, lines * (tall + 0.34) + 1.2))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    panels = figure.subplots(lines, columns * beside, squeeze=False).reshape(lines * beside, columns)
    images = pixels_of(gallery.images)
    scaled = [[scaled_map(gallery, column, row) for column in shown] for row in range(count)]
    for row in range(count):
        line = panels[row]
        draw_picture(line[0], images[row])
        _outline_region(line[0], gallery, row)
        _name_image(line[0], gallery, row)
        for column, axes, values in zip(shown, line[1:], scaled[row], strict=True):
            draw_picture(axes, overlay(images[row], values))
            _outline_region(axes, gallery, row)
            _name_map(axes, gallery, column, row)
    for first in panels[:beside]:
        first[0].set_title("input", fontsize=8)
        for column, axes in zip(shown, first[1:], strict=True):
            axes.set_title("" if column.second else wrapped(column.label), fontsize=8, parse_math=False)
    for axes in panels[count:].ravel():
        axes.set_axis_off()
    signed = any((values < 0).any() for line_values in scaled for values in line_values)
    _colour_bar(figure, panels.ravel().tolist(), signed, wide)
    return figure


def scaled_map(gallery: Gallery, column: _Shown, row: int) -> Floats:
    """A map in [-1, 1]: 0 says nothing, 1 is the most of the maps of this image by this explainer."""
    together = [gallery.maps[column.label][row]]
    if column.label in gallery.second:
        together.append(gallery.second[column.label][row])
    known = torch.cat([each.detach().cpu().flatten() for each in together]).nan_to_num(0.0, 0.0, 0.0)
    values = known.double()
    own = column.maps[row].detach().cpu().double().nan_to_num(0.0, 0.0, 0.0)
    lowest = float(values.min())
    zero = 0.0 if lowest < 0 else lowest
    distances = (values - zero).abs()
    limit = float(distances.quantile(0.99)) if _MANY <= len(values) <= 2**24 else float(distances.max())
    limit = limit or float(distances.max())
    if is_constant(known):
        return np.zeros(tuple(own.shape))
    scaled: Floats = ((own - zero) / limit).clamp(-1, 1).numpy()
    return scaled


def single_maps(gallery: Gallery) -> tuple[list[NDArray[np.uint8]], dict[str, list[NDArray[np.uint8]]]]:
    """The images of a gallery, and each map over its image by label: arrays [H, W, 3] in the colours of the sheets."""
    images = pixels_of(gallery.images)
    shown = {
        label: [overlay(image, scaled_map(gallery, _Shown(label, maps), row)) for row, image in enumerate(images)]
        for label, maps in gallery.maps.items()
    }
    drawn = {label: [(255 * each).round().astype(np.uint8) for each in maps] for label, maps in shown.items()}
    return list(images), drawn


def swapped(gallery: Gallery) -> Gallery:
    """The maps of the second class in place of the others, on the scale that the two share."""
    return replace(gallery, maps=gallery.second, second=gallery.maps)


def overlay(pixels: NDArray[np.uint8], scaled: Floats) -> Floats:
    """A grey image [H, W, 3] under the colours of a map [h, w] in [-1, 1]; floats [H', W', 3] in [0, 1]."""
    canvas, rows, columns = enlarged(pixels, scaled.shape)
    large = scaled[rows][:, columns]
    grey = (0.2 + 0.6 * canvas.mean(-1, keepdims=True) / 255).repeat(3, -1)
    weight = 0.8 * np.abs(large)[..., None]
    mixed: Floats = (1 - weight) * grey + weight * _COLOURS((large + 1) / 2)[..., :3]
    return mixed


def shorten(text: str, length: int) -> str:
    """A text cut to at most `length` characters."""
    return text if len(text) <= length else text[: length - 1] + "…"


def pixels_of(images: Tensor) -> NDArray[np.uint8]:
    """Images [N, 3, H, W], floats in [0, 1] or bytes, as bytes [N, H, W, 3]."""
    pixels = images.detach().cpu()
    if pixels.is_floating_point():
        pixels = (255 * pixels.float().clamp(0, 1)).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).numpy()


def enlarged(
    pixels: NDArray[np.uint8], grid: tuple[int, ...]
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """The image, repeated until each patch has a pixel of its own, and the patch that each row and column is in."""
    factor = max(1, *(math.ceil(patches / side) for patches, side in zip(grid, pixels.shape[:2], strict=True)))
    canvas = pixels.repeat(factor, 0).repeat(factor, 1)
    rows, columns = (np.arange(side) * patches // side for patches, side in zip(grid, canvas.shape[:2], strict=True))
    return canvas, rows, columns


def draw_picture(axes: Axes, picture: NDArray[np.uint8] | Floats) -> None:
    """Fill a panel with a picture [H, W, 3], in its own proportions and without ticks; axes run from 0 to 1."""
    axes.imshow(picture, interpolation="nearest" if picture.shape[1] < 400 else "antialiased", extent=(0, 1, 1, 0))
    axes.set_aspect(picture.shape[0] / picture.shape[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _outline_region(axes: Axes, gallery: Gallery, row: int) -> None:
    if gallery.regions is None:
        return
    region = gallery.regions[row].cpu().numpy().astype(float)
    if not 0 < region.sum() < region.size:
        return
    # With a border of nothing around it, so that a region at the edge of the image is closed there.
    height, width = region.shape
    x, y = (np.arange(-1, width + 1) + 0.5) / width, (np.arange(-1, height + 1) + 0.5) / height
    lines = axes.contour(x.clip(0, 1), y.clip(0, 1), np.pad(region, 1), levels=[0.5], colors=[YELLOW], linewidths=0.9)
    lines.set_path_effects([withStroke(linewidth=2, foreground="black")])


def _name_image(axes: Axes, gallery: Gallery, row: int) -> None:
    predicted = (gallery.predicted or gallery.classes)[row]
    if gallery.true is None:
        text, colour = shorten(predicted, 18), GREY
    elif gallery.true[row] == predicted:
        text, colour = f"✓ {shorten(predicted, 16)}", BLUE
    else:
        text, colour = f"✗ {shorten(predicted, 14)}\ntrue: {shorten(gallery.true[row], 12)}", ORANGE
    axes.set_xlabel(text, fontsize=8, color=colour, parse_math=False)


def _name_map(axes: Axes, gallery: Gallery, column: _Shown, row: int) -> None:
    parts = []
    if column.label in gallery.second:
        names = gallery.second_classes if column.second else gallery.classes
        assert names is not None
        parts.append(f"for {shorten(names[row], 12)}")
    if column.label in gallery.notes and not column.second:
        parts.append(shorten(gallery.notes[column.label][row], 18))
    text = "\n".join(parts)
    colour = ORANGE if text.startswith("✗") else BLUE if text.startswith("✓") else "black"
    axes.set_xlabel(text, fontsize=8, color=colour, parse_math=False)


def _colour_bar(figure: Figure, axes: list[Axes], signed: bool, wide: float) -> None:
    """Say below the panels what the colours mean."""
    colours = _COLOURS if signed else LinearSegmentedColormap.from_list("for", _COLOURS(np.linspace(0.5, 1, 128)))
    mappable = ScalarMappable(Normalize(-1 if signed else 0, 1), colours)
    bar = figure.colorbar(mappable, ax=axes, location="bottom", aspect=7 * wide, shrink=0.8, pad=0.01)
    ticks = {-1: "against the class", 0: "nothing", 1: "for the class"} if signed else {0: "least", 1: "most"}
    bar.set_ticks(list(ticks), labels=list(ticks.values()))
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    bar.ax.get_xticklabels()[0].set_horizontalalignment("left")
    bar.ax.get_xticklabels()[-1].set_horizontalalignment("right")


def wrapped(text: str) -> str:
    """At most three lines of about 14 characters, so that long labels do not run into each other."""
    lines = textwrap.wrap(" ".join(text.split()), 14, break_long_words=False, break_on_hyphens=False)
    return "\n".join(shorten(line, 16) for line in lines[:3])
