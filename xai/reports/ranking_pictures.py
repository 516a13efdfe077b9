"""Pictures of maps: a sheet of all rows, Figure 4 and the pictures of Figure 5 of Learn to Rank."""

from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from xai.core.errors import UserError
from xai.reports import removal_pictures
from xai.reports.figures import colour_bar, normalised, overlay, show, to_png
from xai.reports.ranking_roles import ROLES, refined
from xai.reports.removal_pictures import Pictures

_SHOWN = (0, 1, 3, 5)
"""The numbers T of gradient steps that stand side by side in Figure 4."""


@dataclass(frozen=True)
class ShortcutPictures:
    """Images of the marked class and what refinement makes of their maps.

    Attributes:
        images: uint8 [n, 3, H, W], with the mark.
        marks: Bool [n, H, W], where it is.
        maps: [n, T + 1, h, w], after 0, 1, ... T gradient steps.
        mass: [n, T + 1], the share of each map's attribution that lies on the mark.
    """

    images: Tensor
    marks: Tensor
    maps: Tensor
    mass: Tensor


def picture_sheet(pictures: Pictures) -> bytes:
    """A column for each row of the tables, see `removal_pictures.picture_sheet`."""
    return removal_pictures.picture_sheet(pictures, ROLES)


def refinement_sheet(pictures: Pictures) -> bytes | None:
    """Figure 4: the maps after T = 0, 1, 3 and 5 gradient steps side by side, as a PNG.

    Returns:
        None where no refined maps are among the pictures.
    """
    columns = {"ranking" if t == 0 else f"ranking_t{t}": f"T = {t}" for t in _SHOWN}
    maps = {role: pictures.maps[role] for role in columns if role in pictures.maps}
    if not any(refined(role) for role in maps):
        return None
    titled = {role: replace(ROLES[role], short=columns[role]) for role in maps}
    return removal_pictures.picture_sheet(replace(pictures, maps=maps), titled)


def shortcut_sheet(pictures: ShortcutPictures) -> bytes:
    """Figure 5's pictures: each marked image with its maps after T gradient steps, the mark framed on all of them.

    Returns:
        A PNG; below each map the share of its attribution on the mark.

    Raises:
        UserError: There is nothing to show, or sizes do not match.
    """
    _check(pictures)
    count, columns = pictures.maps.shape[:2]
    height, width = pictures.images.shape[-2:]
    tall = min(max(1.25 * height / width, 0.4), 3.0)
    figure = Figure(figsize=(1.25 * (columns + 1) + 0.3, count * (tall + 0.28) + 1.1))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    panels = figure.subplots(count, columns + 1, squeeze=False)
    pixels = pictures.images.permute(0, 2, 3, 1).cpu().numpy()
    for row in range(count):
        show(panels[row, 0], pixels[row])
        panels[row, 0].set_title("marked" if row == 0 else "", fontsize=8)
        for steps, panel in enumerate(panels[row, 1:]):
            show(panel, overlay(pixels[row], normalised(pictures.maps[row, steps])))
            _frame(panel, pictures.marks[row])
            panel.set_title(f"T = {steps}" if row == 0 else "", fontsize=8)
            panel.set_xlabel(f"{100 * float(pictures.mass[row, steps]):.0f} %", fontsize=8)
    colour_bar(figure, panels.ravel().tolist(), "bottom", aspect=7.5 * (columns + 1))
    return to_png(figure)


def _frame(axes: Axes, mark: Tensor) -> None:
    """Outline the mark; axes run over the image from 0 to 1."""
    height, width = mark.shape
    x, y = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    axes.contour(x, y, mark.cpu().numpy().astype(float), levels=[0.5], colors="black", linewidths=1.0)


def _check(pictures: ShortcutPictures) -> None:
    images, marks, maps, mass = pictures.images, pictures.marks, pictures.maps, pictures.mass
    if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape or maps.ndim != 4 or 0 in maps.shape:
        raise UserError(
            f"marked images of shape {tuple(images.shape)} with maps of {tuple(maps.shape)}; wanted are [n, 3, H, W] "
            "and [n, T + 1, h, w], none of them 0"
        )
    count, _, *size = images.shape
    wanted = {"marks": (marks, (count, *size)), "maps": (maps, (count, *maps.shape[1:]))}
    wanted["mass"] = (mass, (count, maps.shape[1]))
    for name, (tensor, shape) in wanted.items():
        if tensor.shape != shape:
            raise UserError(
                f"{name} of shape {tuple(tensor.shape)} for {count} images and their maps; wanted is {shape}"
            )
