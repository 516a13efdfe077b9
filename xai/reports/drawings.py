"""What the figures of a study share: how they are listed and drawn, and lines with their bands."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from xai.core.errors import UserError
from xai.metrics.significance import confidence_interval
from xai.reports.measured import Evidence

Floats = NDArray[np.float64]

GREEN = "#009e73"
"""Bluish green of Okabe and Ito, a third colour beside blue and vermilion."""


@dataclass(frozen=True)
class Drawing:
    """A figure of the paper.

    Attributes:
        name: Of its file.
        draw: Makes it; UserError where what it needs was not measured.
        alt: What is to be seen.
        caption: What to look at.
        width: CSS pixels below which a page scrolls it rather than shrink it.
        joint: Whether one figure shows all data sets.
    """

    name: str
    draw: Callable[[Evidence], bytes]
    alt: str
    caption: str
    width: int
    joint: bool = False


def draw_all(evidence: Evidence, drawings: Sequence[Drawing]) -> tuple[list[tuple[str, Drawing, bytes]], list[str]]:
    """Every one of some figures that the results hold.

    Returns:
        Name without suffix, figure and PNG of each, with the data set in the name where there are several; and a line
        for each figure that cannot be drawn.
    """
    drawn, missing = [], []
    parts = evidence.by_data()
    for drawing in drawings:
        of_data = {"": evidence} if drawing.joint or len(parts) == 1 else parts
        for data, part in of_data.items():
            name = f"{drawing.name}-{data}" if data else drawing.name
            try:
                drawn.append((name, drawing, drawing.draw(part)))
            except UserError as error:
                missing.append(f"{name}: {error}")
    return drawn, missing


def mean_curves(of_seeds: Sequence[Tensor]) -> Floats:
    """[N, M] of each seed as means over images in percent, [seeds, M]."""
    means: Floats = torch.stack([100 * values.double().nanmean(0) for values in of_seeds]).numpy()
    return means


def line_with_band(axes: Axes, x: NDArray[np.generic], of_seeds: Floats, label: str, **style: Any) -> None:
    """The mean of values [seeds, n] over the seeds, and in a band its 95 % interval (Student's t).

    `style` goes to matplotlib and holds at least `color`.
    """
    axes.plot(x, of_seeds.mean(0), label=label, **({"linewidth": 1.8} | style))
    if len(of_seeds) > 1:
        band = np.array([confidence_interval(values.tolist()) for values in of_seeds.T])
        axes.fill_between(x, band[:, 0], band[:, 1], color=style["color"], alpha=0.15, linewidth=0)


def tidy(axes: Axes) -> None:
    """Small ticks, and no frame above and to the right."""
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, panel: Axes, columns: int = 0) -> None:
    """One legend for all panels, that of the given one; 0 columns put all of it in one line."""
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns or len(labels), frameon=False, fontsize=9)
