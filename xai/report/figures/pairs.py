"""Figures over pairs of data sets, a source and a target: what a transfer gives and costs, and what tells so before."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from string import ascii_lowercase

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xai.core.errors import UserError
from xai.report.figures.registry import Source, figure
from xai.report.figures.style import AMBER, BLUE, GREEN, GREY, ORANGE, PURPLE, SKY, grid, legend_below, say, tidy
from xai.study.columns import scale
from xai.study.pairs import Quantity, Relation, correlation, of_pairs, quantity

_SOURCES = (BLUE, ORANGE, GREEN, PURPLE, AMBER, SKY, GREY, "black")
_TARGETS = ("o", "s", "^", "D", "v", "P", "X", "*")


@dataclass(frozen=True)
class PairsParams:
    """What a row gives and costs in each pair.

    Args:
        rows: The row, a panel each; at another setting it is named as in the frame.
        titles: Of those panels.
        across: A metric, divided by that of `relative_to` of the same pair.
        up: Another one.
        relative_to: The row both are divided by, which is at (1, 1).
        level: A row whose mean is drawn as dashed lines.
        controls: Rows that the first row's `up` is drawn against, a panel each.
        nothing: A row that says nothing, whose `up` is a dotted line in those panels.
    """

    rows: list[str] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    across: str = "accuracy"
    up: str = "e_rmse"
    relative_to: str = "ft_target"
    level: str = ""
    controls: list[str] = field(default_factory=list)
    nothing: str = ""


@figure(
    "pairs",
    title="Pairs of data sets",
    params=PairsParams(),
    needs=("scores",),
    joint=True,
    width=900,
    alt="Scatter plots with a point for each pair of data sets.",
    caption="Each point is a pair, the colour is the source, the shape the target; means over seeds.",
)
def pairs(source: Source, params: PairsParams) -> Figure:
    """Panels of `up` over `across`, both relative; then panels of `up` over that of controls."""
    if not params.rows:
        raise UserError("pairs without rows: name the row that is drawn")
    measured, sources, targets = _measured(source)
    count = len(params.rows) + len(params.controls)
    chart, axes = grid(count, 3, (3.6, 3.4))
    titles = [*params.titles, *["" for _ in params.rows]]
    for at, row, title in zip(axes, params.rows, titles, strict=False):
        x, y = (_ratio(measured, metric, row, params.relative_to) for metric in (params.across, params.up))
        if x.isna().all() or y.isna().all():
            raise UserError(f"no {params.across} or no {params.up} of {row} and {params.relative_to} to draw it from")
        _points(at, x, y, sources, targets)
        for line in (at.axvline, at.axhline):
            line(1, color="red", linestyle=":", linewidth=1.2)
        if params.level:
            for line, each in ((at.axvline, params.across), (at.axhline, params.up)):
                level = _ratio(measured, each, params.level, params.relative_to).mean()
                line(level, color=GREY, linestyle="--", linewidth=1)
        better = _is_better(source, params.up, y, 1)
        told = f"{source.column(params.up).label} better in {int(better.sum())} of {y.count()}, mean {y.mean():.2f}"
        across = f"{source.column(params.across).label}, relative to {source.label(params.relative_to)}"
        tidy(at, "", across, f"{source.column(params.up).label}, relative")
        at.set_title("\n".join(filter(None, (title, told))), fontsize=9)
    for at, control in zip(axes[len(params.rows) :], params.controls, strict=False):
        _against(at, source, measured, params, control, (sources, targets))
    _legend(chart, axes, sources, targets)
    return chart


def _measured(source: Source) -> tuple[pd.DataFrame, list[str], list[str]]:
    """Means over seeds, a line for each pair, as `of_pairs` has them; the sources and the targets.

    Raises:
        UserError: The scores are of several models.
    """
    models = [str(name) for name in source.scores["model"].unique()]
    if len(models) > 1:
        raise UserError(f"pairs of data sets are drawn of one model, and {' and '.join(models)} were measured")
    means = of_pairs(source.scores, source.columns).groupby(level=["source", "data"]).mean()
    return means, list(means.index.unique("source")), list(means.index.unique("data"))


def _against(
    at: Axes,
    source: Source,
    measured: pd.DataFrame,
    params: PairsParams,
    control: str,
    sets: tuple[list[str], list[str]],
) -> None:
    label = source.column(params.up).label
    both = {name: quantity(measured, Quantity(params.up, row)) for name, row in (("x", control), ("y", params.rows[0]))}
    defined = pd.DataFrame(both).dropna()
    x, y = defined["x"], defined["y"]
    if x.empty:
        at.text(0.5, 0.5, f"{control} was not measured", transform=at.transAxes, ha="center", color=GREY)
        return tidy(at)
    _points(at, x, y, *sets)
    ends = [float(min(x.min(), y.min())), float(max(x.max(), y.max()))]
    at.plot(ends, ends, color=GREY, linewidth=1)
    ahead = _is_better(source, params.up, y, x)
    told = f"ahead of it in {int(ahead.sum())} of {len(y)}; mean {y.mean():.2f} against {x.mean():.2f}"
    if params.nothing:
        level = quantity(measured, Quantity(params.up, params.nothing)).mean()
        at.axhline(level, color="red", linestyle=":", linewidth=1.2)
    tidy(at, "", f"{label} of the control", f"{label} of the transfer")
    at.set_title(f"{source.label(control)}\n{told}", fontsize=9)


def _is_better(
    source: Source, metric: str, value: "pd.Series[float]", than: "pd.Series[float] | float"
) -> "pd.Series[bool]":
    return value < than if source.column(metric).better == "lower" else value > than


def _ratio(measured: pd.DataFrame, metric: str, row: str, by: str) -> "pd.Series[float]":
    return quantity(measured, Quantity(metric, row)) / quantity(measured, Quantity(metric, by))


def _points(
    at: Axes, x: "pd.Series[float]", y: "pd.Series[float]", sources: Sequence[str], targets: Sequence[str]
) -> None:
    for (source, data), across, up in zip(x.index, x, y, strict=True):
        colour, marker = _SOURCES[sources.index(source) % 8], _TARGETS[targets.index(data) % 8]
        (point,) = at.plot(across, up, color=colour, marker=marker, markersize=6, linestyle="", alpha=0.85)
        say(point, [f"{source} → {data}"])


def _legend(chart: Figure, panels: Sequence[Axes], sources: Sequence[str], targets: Sequence[str]) -> None:
    """What colours and shapes mean, by marks that stand nowhere."""
    marks = [("o", _SOURCES[n % 8], f"from {name}") for n, name in enumerate(sources)]
    marks += [(_TARGETS[n % 8], "black", f"to {name}") for n, name in enumerate(targets)]
    for marker, colour, label in marks:
        panels[0].plot([], [], color=colour, marker=marker, linestyle="", label=label)
    legend_below(chart, panels)


@dataclass(frozen=True)
class RelationsParams:
    """What goes together over pairs: a panel each."""

    panels: list[Relation] = field(default_factory=list)


@figure(
    "relations",
    title="What goes with what, over pairs of data sets",
    params=RelationsParams(),
    needs=("scores",),
    joint=True,
    width=900,
    alt="Scatter plots over pairs of data sets, with a line of least squares, Pearson's r and p-values.",
    caption="Each point is a pair, means over seeds. p is that of independent pairs, which they are not: p (sets) is "
    "the share of all orders of the sets in which |r| is as large.",
)
def relations(source: Source, params: RelationsParams) -> Figure:
    """A scatter for each relation with the line of least squares, r, p and the p-value of permuted sets."""
    if not params.panels:
        raise UserError("relations without panels: give at least one, with x, y, paper and sign")
    measured, sources, targets = _measured(source)
    if all(quantity(measured, panel.x).isna().all() for panel in params.panels):
        raise UserError(f"no {params.panels[0].x.metric} was measured to draw it from")
    chart, axes = grid(len(params.panels), 3, (3.6, 3.2))
    for letter, at, panel in zip(cycle(ascii_lowercase), axes, params.panels, strict=False):
        x, y = (quantity(measured, each) * scale(source.column(each.metric)) for each in (panel.x, panel.y))
        found = correlation(x, y)
        _points(at, x, y, sources, targets)
        both = x.notna() & y.notna()
        if np.isfinite(found.r):
            slope, start = np.polyfit(x[both], y[both], 1)
            ends = np.array([x[both].min(), x[both].max()])
            at.plot(ends, start + slope * ends, color="purple", linewidth=1.5)
        tidy(at, "", *(each.label or source.with_unit(each.metric) for each in (panel.x, panel.y)))
        permuted = f"{found.permuted:.2g}" if np.isfinite(found.permuted) else "–"
        told = f"r = {found.r:.2f}, p = {found.p:.1g}, p (sets) = {permuted}"
        at.set_title(f"({letter}) {told}", fontsize=9)
    _legend(chart, axes, sources, targets)
    return chart
