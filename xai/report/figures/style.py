"""What figures share: colours, strokes, intervals, legends, and how they are saved.

Everything is drawn on figures of their own, never through pyplot's shared state, so that any thread may draw.
"""

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import is_color_like
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from pydantic import AfterValidator

from xai.core.files import write_atomically
from xai.study.statistics import t_interval

BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#595959"
SKY, PURPLE, AMBER, YELLOW = "#56b4e9", "#cc79a7", "#e69f00", "#f0e442"
"""Colours of Okabe and Ito, which all kinds of colour vision tell apart."""
_COLOURS = {
    "blue": BLUE, "orange": ORANGE, "green": GREEN, "grey": GREY, "sky": SKY, "purple": PURPLE, "amber": AMBER,
}  # fmt: skip
_ORDER = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, GREY)
_STROKES, _MARKERS = ("-", "--", "-.", ":"), ("o", "s", "^", "D", "v", "P", "X")
_STROKES_BY_NAME = ("solid", "dashed", "dashdot", "dotted")
_LEGEND_LINE, _LEGEND_LINES = 0.19, 4
"""Inches of a line of a legend, and how many of them every figure has room for."""


def _known(is_known: Callable[[str], bool], right: str) -> AfterValidator:
    """Of what matplotlib would refuse when all is measured and drawn; an empty text is by place."""

    def check(text: str) -> str:
        if text and not is_known(text):
            raise ValueError(f"must be {right}")
        return text

    return AfterValidator(check)


_Colour = Annotated[
    str, _known(lambda text: text in _COLOURS or is_color_like(text), "a colour of matplotlib, as blue or #0072b2")
]
_Stroke = Annotated[str, _known(lambda text: text in (*_STROKES, *_STROKES_BY_NAME), "-, --, -. or :")]
_Marker = Annotated[
    str, _known(lambda text: text in (*Line2D.markers, "none"), "a marker of matplotlib, as o, s or ^, or none")
]


@dataclass(frozen=True)
class Line:
    """A line of a figure; colour, stroke and marker tell it from the others, each alone.

    Args:
        rows: Patterns of the explainers whose values it joins (`ranking_t[0-9]*`).
        label: In the legend; empty: that of the first row.
        colour: blue, orange, green, grey, sky, purple, amber, or any of matplotlib; empty: by place.
        stroke: "-", "--", "-." or ":"; empty: by place.
        marker: Of matplotlib; empty: by place; "none": no marker.
        suffix: Appended to the metric of each panel: `_true` for the true class.
        case: Pattern of the case.
        curves: In place of the curves of the panel.
        hollow: Whether markers are white inside.
    """

    rows: list[str] = field(default_factory=list)
    label: str = ""
    colour: _Colour = ""
    stroke: _Stroke = ""
    marker: _Marker = ""
    suffix: str = ""
    case: str = ""
    curves: list[str] = field(default_factory=list)
    hollow: bool = False

    def style(self, number: int) -> dict[str, Any]:
        """Keywords for matplotlib of the line with that number."""
        colour = _COLOURS.get(self.colour, self.colour) or _ORDER[number % len(_ORDER)]
        marker = self.marker or _MARKERS[number % len(_MARKERS)]
        return {
            "color": colour,
            "linestyle": self.stroke or _STROKES[number % len(_STROKES)],
            "marker": "" if marker == "none" else marker,
            "mfc": "white" if self.hollow else colour,
        }


def say(line: Line2D, words: Sequence[str]) -> None:
    """What each point of a line is called where it can be asked, which is in a browser."""
    vars(line)["xai_words"] = list(words)


def words_of(line: Line2D) -> list[str]:
    """What `say` has said of each point; nothing where it has not."""
    return list(vars(line).get("xai_words", ()))


def intervals(groups: Iterable[tuple[Any, "pd.Series[float]"]], quadratic: bool = False) -> pd.DataFrame:
    """Mean of each group, and its 95 % interval (Student's t; NaN for one value): columns mean, low, high.

    With `quadratic` they are the roots of those of the squares.
    """
    powers = ((key, values**2 if quadratic else values) for key, values in groups)
    found = {key: (float(values.mean()), *t_interval(values.tolist())) for key, values in powers}
    table = pd.DataFrame.from_dict(found, orient="index", columns=["mean", "low", "high"])
    return table.clip(lower=0) ** 0.5 if quadratic else table


def error_bars(summary: pd.DataFrame) -> list["pd.Series[float]"] | None:
    """Lengths below and above the mean; None where no interval is known."""
    if summary["low"].isna().all():
        return None
    return [summary["mean"] - summary["low"], summary["high"] - summary["mean"]]


def band(axes: Axes, x: Sequence[float], summary: pd.DataFrame, colour: str, label: str = "") -> None:
    """The interval as an area, where it is known."""
    if summary["low"].notna().any():
        axes.fill_between(x, summary["low"], summary["high"], color=colour, alpha=0.16, linewidth=0, label=label)


def tidy(axes: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """What stands above and beside a panel, small ticks, and no frame above and to the right."""
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def legend_below(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, each label once, as many of them in a line as fit; the figure grows by many lines."""
    found = {label: handle for axes in panels for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    if found:
        fitting = max(1, int(figure.get_figwidth() / (0.45 + 0.075 * max(map(len, found)))))
        how: dict[str, Any] = {"ncols": min(len(found), fitting), "frameon": False, "fontsize": 9}
        more = max(0, -(-len(found) // fitting) - _LEGEND_LINES)
        figure.set_figheight(figure.get_figheight() + _LEGEND_LINE * more)
        figure.legend(list(found.values()), list(found), loc="outside lower center", **how)


def grid(count: int, across: int, size: tuple[float, float], sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels, `across` in a line, each of a size in inches."""
    across = min(across, count)
    down = -(-count // across)
    figure = Figure(figsize=(size[0] * across, size[1] * down + 0.4), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08)  # type: ignore[union-attr, call-arg]
    panels = list(np.ravel(figure.subplots(down, across, squeeze=False, sharey=sharey)))
    for axes in panels[count:]:
        axes.set_axis_off()
    return figure, panels[:count]


def to_bytes(figure: Figure, suffix: str = "png") -> bytes:
    """A figure as the bytes of a PNG or SVG, the same for the same figure."""
    # Without version, date and random names, the same figure is the same bytes.
    metadata = {"png": {"Software": None}, "svg": {"Date": None}}[suffix]
    # Nothing is cut off, however long a label is.
    tight: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08}
    target = io.BytesIO()
    FigureCanvasAgg(figure)
    with warnings.catch_warnings(), mpl.rc_context({"svg.hashsalt": "xai"}):
        # No font has all scripts; what it lacks is a box in the picture, and no line in the terminal for each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        # Laid out once: a second time would move things a little, and a PNG and an SVG of one figure would differ.
        if isinstance(figure.get_layout_engine(), ConstrainedLayoutEngine):
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.savefig(target, format=suffix, dpi=160, facecolor="white", metadata=metadata, **tight)
    return target.getvalue()


def save(figure: Figure, folder: Path, name: str) -> None:
    """Write `folder`/`name`.png and `folder`/`name`.svg."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in ("png", "svg"):
        write_atomically(folder / f"{name}.{suffix}", to_bytes(figure, suffix))
