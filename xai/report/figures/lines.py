"""Line plots: curves over the share of an image that is left or removed, and metrics over a parameter."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from xai.core.errors import UserError
from xai.core.settings import Count
from xai.report.figures.registry import Source, figure, matching, run_keys
from xai.report.figures.style import GREY, ORANGE, Line, band, error_bars, grid, intervals, legend_below, tidy
from xai.study.frame import own_name

AXES = {
    "share": "share of the image, %",
    "deleted": "pixels deleted, %",
    "inserted": "pixels inserted, %",
    "present": "patches present",
    "masked": "masked patches",
}


@dataclass(frozen=True)
class Panel:
    """A panel of curves.

    Args:
        title: Above it; empty: that of the metric.
        curves: Names of curves, averaged.
        less: Names of curves whose mean is subtracted.
        metric: What the curves are summed up by, which says which way is better.
        x: What is across, a key of `AXES`: a share of the pixels, or patches present or masked (the first point of
            a curve is of one patch present, the last of all).
    """

    title: str = ""
    curves: list[str] = field(default_factory=list)
    less: list[str] = field(default_factory=list)
    metric: str = ""
    x: Literal["share", "deleted", "inserted", "present", "masked"] = "share"


@dataclass(frozen=True)
class CurvesParams:
    """Curves as lines; none of `panels` or `lines`: one for each curve or row that was measured.

    Args:
        panels: In their order.
        lines: In their order.
        across: Panels in a line.
        y: Label.
        whole: Whether the axis is from 0 to 100.
        half: Whether one half is marked.
    """

    panels: list[Panel] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    across: Count = 3
    y: str = "probability of the class, %"
    whole: bool = False
    half: bool = False


@figure(
    "curves",
    title="While patches go or come",
    params=CurvesParams(),
    needs=("curves",),
    width=760,
    alt="Line plots of the class's probability over the share of the image that is removed or left.",
    caption="Means over images; bands are 95 % intervals over runs (Student's t).",
)
def curves(source: Source, params: CurvesParams) -> Figure:
    """A panel for each curve, a line for each row: means over images and runs in percent."""
    panels = params.panels or [
        Panel(str(name).removeprefix("curve_"), [str(name)]) for name in source.curves["curve"].unique()
    ]
    lines = params.lines or [Line([str(name)], marker="none") for name in source.curves["explainer"].unique()]
    found = {
        (i, j): series
        for i, panel in enumerate(panels)
        for j, line in enumerate(lines)
        if not (series := _curve(source.curves, panel, line)).empty
    }
    if not found:
        wanted = next(filter(None, [*(p.curves for p in panels), *(line.curves for line in lines)]), [])
        rows = dict.fromkeys(name for line in lines for name in line.rows)
        raise UserError(f"no curves as {', '.join(wanted)} of {', '.join(rows) or 'any row'} to draw it from")
    chart, axes = grid(len(panels), params.across, (3.4, 2.9), sharey=params.whole)
    for i, (panel, at) in enumerate(zip(panels, axes, strict=True)):
        up = "" if i % params.across else params.y
        tidy(at, panel.title or source.titled(panel.metric), AXES[panel.x], up)
        at.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        if params.half:
            at.axhline(50, color=GREY, linestyle=":", linewidth=1.2)
        for j, line in enumerate(lines):
            if (i, j) in found:
                _draw_curve(at, found[i, j], panel, line, j)
        if params.whole:
            at.set_ylim(0, 100)
    legend_below(chart, axes)
    return chart


def _curve(frame: pd.DataFrame, panel: Panel, line: Line) -> pd.DataFrame:
    """Mean, low and high in percent by x, over the runs, and the label; empty where nothing matches."""
    if line.rows:
        frame = frame[matching(frame["explainer"], line.rows)]
    if line.case:
        frame = frame[matching(frame["case"], [line.case])]
    keys = ["x", *run_keys(frame)]

    def mean(names: Sequence[str]) -> "pd.Series[float]":
        return 100 * frame[frame["curve"].isin(names)].groupby(keys, dropna=False)["value"].mean()

    values = mean(line.curves or panel.curves)
    if panel.less:
        values = values - mean(panel.less)
    values = values.dropna()
    if values.empty:
        return pd.DataFrame()
    return intervals(values.groupby(level="x")).assign(label=line.label or str(frame["label"].iloc[0]))


def _draw_curve(axes: Axes, series: pd.DataFrame, panel: Panel, line: Line, number: int) -> None:
    share, last = series.index.to_numpy(dtype=float), len(series) - 1
    x = {"present": 1 + share * last, "masked": (1 - share) * last}.get(panel.x, 100 * share)
    style = line.style(number)
    # Marks of different lines at different places, where the lines run together.
    style |= {"linewidth": 1.7, "markersize": 4, "markevery": (number % 5, 5)}
    axes.plot(x, series["mean"], label=series["label"].iloc[0], **style)
    band(axes, x.tolist(), series, style["color"])


@dataclass(frozen=True)
class OverParams:
    """Metrics over a parameter.

    Args:
        x: The parameter, a column of the frame.
        label: Of the axis; empty: the parameter's name.
        metrics: A panel each.
        lines: In their order; none: one for each row that has the parameter.
        absent: What the parameter is of rows without one, as T = 0 of a map that was not refined; null: they are left
            out.
        over: What intervals are over: `runs` (each the mean of its images), or `images` (each the mean of its runs).
        bars: Intervals as bars rather than as an area.
        relative_to: The row whose value of the same run each value is divided by; the right axis is the value itself.
        chosen: The row whose parameter (the median over runs) is marked as chosen, where one line is drawn.
        each_data: Whether each line is one for each data set, so that all of them are in one panel.
        level: A metric that is drawn as a level line.
        shift: By how much lines stand beside each other, so that one bar does not hide the other.
        percent: Whether the parameter is a share, shown in percent.
        doubling: Whether the axis is logarithmic, with base 2.
        zero: Whether the axis of values begins at 0.
    """

    x: str = ""
    label: str = ""
    metrics: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    absent: float | None = None
    over: Literal["runs", "images"] = "runs"
    bars: bool = True
    relative_to: str = ""
    chosen: str = ""
    level: str = ""
    shift: float = 0.0
    percent: bool = False
    doubling: bool = False
    zero: bool = False
    each_data: bool = False

    @property
    def factor(self) -> int:
        """What the parameter is multiplied by to be shown."""
        return 100 if self.percent else 1


@figure(
    "over",
    title="Scores over a parameter",
    params=OverParams(),
    needs=("scores",),
    width=720,
    alt="Line plots of metrics over a parameter.",
    caption="Points are means; bars and bands are 95 % intervals (Student's t).",
)
def over(source: Source, params: OverParams) -> Figure:
    """A panel for each metric over a parameter; only lines with two values of it are drawn."""
    if not params.x or params.x not in source.scores:
        raise UserError(f"no row was measured at several values of {params.x or 'x, which is not set'}")
    having = source.scores.loc[source.scores[params.x].notna(), "explainer"].unique()
    lines = params.lines or [Line([str(name)]) for name in having]
    sources = [source] * len(lines)
    parts = source.by_data() if params.each_data else {}
    if len(parts) > 1:
        sources = [part for _ in lines for part in parts.values()]
        # Colour, stroke and marker are by place, which tells the data sets apart.
        plain = [replace(line, colour="", stroke="", marker="") for line in lines]
        lines = [replace(line, label=" · ".join(filter(None, (line.label, data)))) for line in plain for data in parts]
    metrics = params.metrics or [str(name) for name in source.scores["metric"].unique()]
    found = {
        (metric, number): series
        for metric in metrics
        for number, line in enumerate(lines)
        if len(series := _series(sources[number], metric, line, params)) > 1
    }
    if not found:
        rows = ", ".join(dict.fromkeys(name for line in lines for name in line.rows))
        raise UserError(f"no {' or '.join(metrics)} of {rows} at two values of {params.x} to draw it from")
    chart, axes = grid(len(metrics), 3, (4.4 if params.relative_to else 3.9, 3.3))
    for metric, at in zip(metrics, axes, strict=True):
        own = {number: found[metric, number] for number in range(len(lines)) if (metric, number) in found}
        _draw_panel(at, source, metric, list(own.values()), params)
        for number, series in own.items():
            side = params.shift * (number - (len(lines) - 1) / 2)
            _draw_series(at, series, lines[number].style(number), side, params)
        if len(lines) == 1:
            _mark_choice(at, source, list(own.values()), params)
    legend_below(chart, axes)
    return chart


def _series(source: Source, metric: str, line: Line, params: OverParams) -> pd.DataFrame:
    """Mean, low and high by x, and the label; empty where nothing matches."""
    lines = source.of(metric + line.suffix, line.rows, line.case)
    if params.absent is not None and not lines.empty:
        # Rows without the parameter stand for one value of it, where that was not measured again.
        own = lines[lines[params.x].notna()]
        filled = lines[lines[params.x].isna()].assign(**{params.x: params.absent})
        if (own[params.x] != params.absent).all():
            own = pd.concat([own, filled])
        lines = own
    lines = lines[lines[params.x].notna()] if not lines.empty else lines
    if lines.empty:
        return lines
    _check_one_row(lines, params.x)
    if params.relative_to:
        lines = _divided(source, metric + line.suffix, lines, params.relative_to)
    alone = ["data", "image"] if params.over == "images" and (lines["image"] >= 0).all() else None
    keys = [params.x, *(alone or run_keys(lines, params.x))]
    values = source.averaged(metric + line.suffix, lines, keys)
    squared = alone is not None and source.column(metric).quadratic
    return intervals(values.groupby(level=params.x), squared).assign(label=line.label or str(lines["label"].iloc[0]))


def _check_one_row(lines: pd.DataFrame, x: str) -> None:
    """Refuse a line that would average different rows; a row at other settings is the same one."""
    named = lines.assign(row=[own_name(str(name)).partition("@")[0] for name in lines["explainer"]])
    for value, rows in named.groupby(x)["row"].unique().items():
        if len(rows) > 1:
            raise UserError(
                f"{' and '.join(rows)} would be one line at {x}={value:g}: name rows that are told apart by it"
            )


def _divided(source: Source, metric: str, lines: pd.DataFrame, by: str) -> pd.DataFrame:
    """Means of runs, each divided by the reference's of the same run; one without a source is of all sources."""
    keys = ["model", "data", "seed"]
    lines = source.averaged(metric, lines, [*lines.columns.difference(["value", "chance", "image"])]).reset_index()
    below = source.averaged(metric, source.of(metric, [by]), [*keys, "source"]).rename("below").reset_index()
    pairs = lines.merge(below, on=keys, how="inner", suffixes=("", "_below"))
    pairs = pairs[pairs["source_below"].isna() | (pairs["source_below"] == pairs["source"])]
    pairs = pairs[pairs["below"] != 0]
    return pairs.assign(value=pairs["value"] / pairs["below"], image=-1)


def _draw_panel(axes: Axes, source: Source, metric: str, found: Sequence[pd.DataFrame], params: OverParams) -> None:
    tidy(axes, source.titled(metric), params.label or params.x, source.with_unit(metric))
    ticks = sorted({params.factor * float(x) for series in found for x in series.index})
    if params.doubling:
        axes.set_xscale("log", base=2)
    if ticks and len(ticks) <= 12:
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    if params.level:
        lines = source.of(params.level)
        level = source.averaged(params.level, lines, run_keys(lines)).mean() if len(lines) else np.nan
        if np.isfinite(level):
            label = source.column(params.level).label
            axes.axhline(level, color=GREY, linestyle=":", linewidth=1.2, label=label)
    if not found:
        axes.text(0.5, 0.5, "undefined", transform=axes.transAxes, ha="center", color=GREY)
    elif params.relative_to:
        reference = source.of(metric, [params.relative_to])
        axes.set_ylabel(f"relative to {reference['label'].iloc[0]}", fontsize=9)
        axes.axhline(1, color=GREY, linestyle="--", linewidth=1.2, label=str(reference["label"].iloc[0]))
        # So that a difference of a few per cent is not blown up into a cliff.
        axes.update_datalim([(ticks[0], 0.9), (ticks[-1], 1.1)])
        if not params.each_data or reference["data"].nunique() == 1:  # one axis has the values of one data set
            level = float(source.averaged(metric, reference, run_keys(reference)).mean())
            right = axes.secondary_yaxis("right", functions=_scaling(level))
            right.set_ylabel(source.with_unit(metric), fontsize=9)
            right.tick_params(labelsize=9)
    if params.zero:
        axes.update_datalim([(ticks[0], 0.0)] if ticks else [])


def _scaling(factor: float) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    return lambda share: share * factor, lambda value: value / factor


def _draw_series(axes: Axes, series: pd.DataFrame, style: dict[str, Any], side: float, params: OverParams) -> None:
    x = series.index.to_numpy(dtype=float) * params.factor
    x = x * 2**side if params.doubling else x + side
    label = str(series["label"].iloc[0])
    if params.bars:
        axes.errorbar(
            x, series["mean"], error_bars(series), label=label, capsize=3, markersize=5, linewidth=1.6, **style
        )
    else:
        axes.plot(x, series["mean"], label=label, markersize=4, linewidth=1.8, **style)
        band(axes, x.tolist(), series, style["color"], "95 % interval")


def _mark_choice(axes: Axes, source: Source, found: Sequence[pd.DataFrame], params: OverParams) -> None:
    """A circle at the value that was chosen on other images, the median of those that the runs chose."""
    if not params.chosen or not found:
        return
    lines = source.scores[(source.scores["explainer"] == params.chosen) & source.scores[params.x].notna()]
    by_run = lines.groupby(run_keys(lines, params.x), dropna=False)[params.x]
    if lines.empty or (by_run.nunique() > 1).any():
        return
    choices = sorted(by_run.first())
    value = params.factor * float(choices[len(choices) // 2])
    axes.axvline(value, color=GREY, linestyle=":", linewidth=1.2)
    at = found[0].index.to_numpy(dtype=float) * params.factor
    near = np.flatnonzero(np.isclose(at, value))
    label = f"chosen on validation: {value:g}"
    ring: dict[str, Any] = {"markersize": 10, "markerfacecolor": "none", "markeredgewidth": 2}
    axes.plot(at[near], found[0]["mean"].to_numpy()[near], "o", color=ORANGE, label=label, **ring)
