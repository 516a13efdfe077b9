"""Metrics by what an explanation costs: rows of growing cost as lines, rows of one cost as levels."""

from dataclasses import dataclass, field

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xai.core.errors import UserError
from xai.report.figures.registry import Source, figure, run_keys
from xai.report.figures.style import Line, band, grid, intervals, legend_below, tidy


@dataclass(frozen=True)
class BudgetParams:
    """A panel for each metric.

    `lines` join rows that differ in their `cost`, a column of the frame of costs, which is across; `levels` are rows
    that are drawn at the height of their mean, whatever they cost.
    """

    metrics: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    levels: list[Line] = field(default_factory=list)
    cost: str = "passes"
    label: str = "forward passes an image"


@figure(
    "budget",
    title="Scores by passes",
    params=BudgetParams(),
    needs=("scores", "costs"),
    alt="Line plots of metrics over the passes of an explanation, and level lines of other explanations.",
    caption="Bands are 95 % intervals over runs (Student's t).",
)
def budget(source: Source, params: BudgetParams) -> Figure:
    """Means over runs with their intervals; across is logarithmic."""
    if params.cost not in source.costs:
        raise UserError(f"no {params.cost} was measured to draw it from")
    cost = source.costs.groupby("explainer")[params.cost].mean()
    drawn = {
        (metric, number): found
        for metric in params.metrics
        for number, line in enumerate(params.lines)
        if len(found := _over_cost(source, metric, line, cost)) > 1
    }
    if not drawn:
        rows = ", ".join(name for line in params.lines for name in line.rows)
        raise UserError(
            f"no {' or '.join(params.metrics) or 'metric'} of {rows or 'rows'} at two costs to draw it from"
        )
    chart, axes = grid(len(params.metrics), 3, (3.7, 3.1))
    for metric, at in zip(params.metrics, axes, strict=True):
        for number, line in enumerate(params.lines):
            if (metric, number) in drawn:
                _draw_line(at, drawn[metric, number], line, number)
        for number, line in enumerate(params.levels, start=len(params.lines)):
            _draw_level(at, source, metric, line, number)
        at.set_xscale("log")
        tidy(at, source.titled(metric), params.label, source.with_unit(metric))
    legend_below(chart, axes)
    return chart


def _over_cost(source: Source, metric: str, line: Line, cost: "pd.Series[float]") -> pd.DataFrame:
    """Mean and interval over runs by cost; empty where nothing matches."""
    lines = source.of(metric, line.rows)
    if lines.empty:
        return lines
    lines = lines.assign(cost=lines["explainer"].map(cost)).dropna(subset=["cost"])
    runs = source.averaged(metric, lines, ["cost", *run_keys(lines, "cost")])
    return intervals(runs.groupby(level="cost"))


def _draw_line(at: Axes, found: pd.DataFrame, line: Line, number: int) -> None:
    style = line.style(number)
    x = found.index.to_numpy(dtype=float)
    at.plot(x, found["mean"], label=line.label, markersize=4, linewidth=1.7, **style)
    band(at, x.tolist(), found, style["color"])


def _draw_level(at: Axes, source: Source, metric: str, line: Line, number: int) -> None:
    lines = source.of(metric, line.rows)
    if lines.empty:
        return
    runs = source.averaged(metric, lines, run_keys(lines))
    (found,) = intervals([("all", runs)]).to_dict("records")
    style = line.style(number)
    at.axhline(found["mean"], color=style["color"], linestyle=style["linestyle"], linewidth=1.7, label=line.label)
    at.axhspan(found["low"], found["high"], color=style["color"], alpha=0.12, linewidth=0)
