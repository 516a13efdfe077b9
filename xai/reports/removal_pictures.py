"""A sheet of images with the maps of each row, for the class that was predicted and for the true one (Figure 1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from xai.core.errors import UserError
from xai.reports.figures import BLUE, ORANGE, colour_bar, normalised, overlay, shorten, show, to_png, wrap
from xai.reports.removal_roles import ROLES
from xai.reports.roles import Role


@dataclass(frozen=True)
class Pictures:
    """Images and what the rows say of them.

    Attributes:
        images: uint8 [n, 3, H, W].
        labels: Integers [n].
        predictions: Integers [n], what the classifier predicts.
        class_names: By class.
        maps: By role [n, 2, h, w]: of the predicted class, then of the true one; for a row that knows no classes twice
            the same.
    """

    images: Tensor
    labels: Tensor
    predictions: Tensor
    class_names: Sequence[str]
    maps: Mapping[str, Tensor]


def picture_sheet(pictures: Pictures, rows: Mapping[str, Role] = ROLES) -> bytes:
    """One line of maps an image, two where the classifier is wrong: of the class it predicts and of the true one.

    Args:
        pictures: What is shown.
        rows: The rows of the tables, in their order; those of SALVAGE unless others are given.

    Returns:
        A PNG; the columns are in the order of the tables.

    Raises:
        UserError: There is nothing to show, a role is no row of the tables, or sizes do not match.
    """
    _check(pictures, rows)
    roles = [role for role in rows if role in pictures.maps]
    lines = [(image, asked) for image in range(len(pictures.images)) for asked in _asked(pictures, image)]
    height, width = pictures.images.shape[-2:]
    tall = min(max(1.1 * height / width, 0.4), 3.0)
    figure = Figure(figsize=(1.1 * (len(roles) + 1) + 0.3, len(lines) * (tall + 0.28) + 1.1))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    panels = figure.subplots(len(lines), len(roles) + 1, squeeze=False)
    pixels = pictures.images.permute(0, 2, 3, 1).cpu().numpy()
    for line, (image, asked) in enumerate(lines):
        for panel, role in zip(panels[line, 1:], roles, strict=True):
            show(panel, overlay(pixels[image], normalised(pictures.maps[role][image, asked])))
            panel.set_title(wrap(rows[role].short) if line == 0 else "", fontsize=8)
        show(panels[line, 0], pixels[image])
        panels[line, 0].set_title("input" if line == 0 else "", fontsize=8)
        _name_class(panels[line, 0], pictures, image, asked)
    colour_bar(figure, panels.ravel().tolist(), "bottom", aspect=7.5 * len(panels[0]))
    return to_png(figure)


def _asked(pictures: Pictures, image: int) -> tuple[int, ...]:
    return (0,) if pictures.predictions[image] == pictures.labels[image] else (0, 1)


def _name_class(axes: Axes, pictures: Pictures, image: int, asked: int) -> None:
    label, predicted = int(pictures.labels[image]), int(pictures.predictions[image])
    if label == predicted:
        text, colour = f"✓ {shorten(pictures.class_names[label], 16)}", BLUE
    elif asked == 0:
        text, colour = f"✗ {shorten(pictures.class_names[predicted], 16)}", ORANGE
    else:
        text, colour = f"true: {shorten(pictures.class_names[label], 12)}", BLUE
    axes.set_xlabel(text, fontsize=8, color=colour, parse_math=False)


def _check(pictures: Pictures, rows: Mapping[str, Role]) -> None:
    images = pictures.images
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape or not pictures.maps:
        raise UserError(
            f"images of shape {tuple(images.shape)} with maps of {len(pictures.maps)} rows; wanted are [n, 3, H, W], n "
            "and the rows at least 1"
        )
    for role, maps in pictures.maps.items():
        if role not in rows:
            raise UserError(f"maps of {role!r}, no row of the tables; these are {', '.join(rows)}")
        if maps.ndim != 4 or maps.shape[:2] != (len(images), 2):
            raise UserError(f"maps of {role} have shape {tuple(maps.shape)}; wanted is [{len(images)}, 2, h, w]")
    for name, classes in (("labels", pictures.labels), ("predictions", pictures.predictions)):
        if len(classes) != len(images):
            raise UserError(f"{len(classes)} {name} for {len(images)} images; there has to be one for each")
