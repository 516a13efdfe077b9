"""Figures that compare rows or metrics: bars, who is right where, quality against cost, agreement of metrics."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

from xai.core.errors import UserError
from xai.report.figures.registry import Source, figure, run_keys
from xai.report.figures.style import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    Line,
    error_bars,
    grid,
    intervals,
    legend_below,
    tidy,
)

_KINDS = {
    "trained": (BLUE, "o"),
    "refined": (PURPLE, "D"),
    "post-hoc": (ORANGE, "s"),
    "control": (GREY, "X"),
    "classifier": (GREEN, "^"),
}
_FEWEST = 4
"""Rows from which the order of the rows by one metric is compared with that by another."""


@dataclass(frozen=True)
class Bars:
    """A panel of bars: a group for each data set, in it a bar for each line."""

    title: str = ""
    lines: list[Line] = field(default_factory=list)


@dataclass(frozen=True)
class BarsParams:
    """Bars of one metric; without panels, one with all rows."""

    metric: str = ""
    panels: list[Bars] = field(default_factory=list)


@figure(
    "bars",
    title="Means of the rows",
    params=BarsParams(),
    needs=("scores",),
    joint=True,
    alt="Bar charts of a metric by row, a group of bars for each data set.",
    caption="Means over runs with 95 % intervals (Student's t); bars without an interval are one run.",
)
def bars(source: Source, params: BarsParams) -> Figure:
    """A bar for the mean of each row over runs, grouped by data sets."""
    everything = source.of(params.metric)
    panels = params.panels or [Bars("", [Line([str(name)]) for name in everything["explainer"].unique()])]
    data = [str(name) for name in everything["data"].unique()] if len(everything) else []
    drawn = {
        (i, j): _by_data(source, params.metric, line)
        for i, panel in enumerate(panels)
        for j, line in enumerate(panel.lines)
    }
    groups = [(name, i) for name in data for i in range(len(panels))]
    if not any(all(name in drawn[i, j].index for j in range(len(panels[i].lines))) for name, i in groups):
        rows = dict.fromkeys(name for panel in panels for line in panel.lines for name in line.rows)
        raise UserError(f"no {params.metric} of the rows {', '.join(rows)} on one data set to draw it from")
    width = max(3.0, 1.6 + 1.3 * len(data) + 0.25 * max(len(panel.lines) for panel in panels))
    chart, axes = grid(len(panels), 2, (width, 3.3), sharey=True)
    for i, (panel, at) in enumerate(zip(panels, axes, strict=True)):
        wide = 0.8 / max(1, len(panel.lines))
        for j, line in enumerate(panel.lines):
            found = drawn[i, j]
            places = [data.index(str(name)) + (j - (len(panel.lines) - 1) / 2) * wide for name in found.index]
            if len(found):
                label, colour = str(found["label"].iloc[0]), line.style(j)["color"]
                at.bar(places, found["mean"], 0.9 * wide, color=colour, yerr=error_bars(found), capsize=3, label=label)
        at.set_xticks(range(len(data)), data)
        at.set_xlim(-0.6, len(data) - 0.4)
        at.axhline(0, color=GREY, linewidth=0.8)
        tidy(at, panel.title, y="" if i else source.with_unit(params.metric))
    legend_below(chart, axes)
    return chart


def _by_data(source: Source, metric: str, line: Line) -> pd.DataFrame:
    lines = source.of(metric, line.rows, line.case)
    if lines.empty:
        return pd.DataFrame()
    runs = source.averaged(metric, lines, run_keys(lines))
    return intervals(runs.groupby(level="data", sort=False)).assign(label=line.label or str(lines["label"].iloc[0]))


@dataclass(frozen=True)
class OverlapParams:
    """Which rows, and the metrics that say of each image whether row and classifier are right (1) or wrong (0)."""

    rows: list[str] = field(default_factory=list)
    own: str = "accuracy"
    classifier: str = "classifier_accuracy"


@figure(
    "overlap",
    params=OverlapParams(),
    needs=("scores",),
    title="Right and wrong, explainer and classifier",
    width=460,
    alt="Tables of two by two: images that explainer and classifier get right or wrong, in percent.",
    caption="The diagonal is where both are right or both are wrong.",
)
def overlap(source: Source, params: OverlapParams) -> Figure:
    """Images that a row and the classifier get right or wrong, in percent of all, mean over runs."""
    own, other = source.of(params.own, params.rows), source.of(params.classifier, params.rows)
    shares: dict[str, NDArray[np.float64]] = {}
    for name in own["explainer"].unique() if len(own) and len(other) else ():
        share = _shares(own[own["explainer"] == name], other[other["explainer"] == name])
        if share is not None:
            shares[str(own.loc[own["explainer"] == name, "label"].iloc[0])] = share
    if not shares:
        wanted = " and ".join((params.own, params.classifier))
        raise UserError(f"no {wanted} of single images of {', '.join(params.rows) or 'any row'} to draw it from")
    chart, axes = grid(len(shares), 3, (3.2, 2.9))
    for at, (label, share) in zip(axes, shares.items(), strict=True):
        at.imshow(share, cmap="Blues", vmin=0, vmax=100)
        _write_cells(at, share, "{:.1f} %", share > 55, 12)
        at.set_title(label, fontsize=10)
        at.set_xticks((0, 1), ("correct", "wrong"), fontsize=9)
        at.set_yticks((0, 1), ("correct", "wrong"), fontsize=9, rotation=90, va="center")
        at.set_xlabel("classifier", fontsize=9)
        at.set_ylabel("explainer", fontsize=9)
        _bare(at)
    return chart


def _shares(own: pd.DataFrame, other: pd.DataFrame) -> NDArray[np.float64] | None:
    """Percent [explainer correct or wrong, classifier correct or wrong], mean over runs; None without single images."""
    keys = [name for name in ("model", "data", "seed", "image") if name in own]
    pairs = own[own["image"] >= 0].merge(other, on=keys, suffixes=("", "_other"))
    if pairs.empty:
        return None
    # 0 or 1, or 0 or 100 where the unit is per cent.
    right, other_right = pairs["value"] > 0.5, pairs["value_other"] > 0.5
    cells = [(mine & theirs) for mine in (right, ~right) for theirs in (other_right, ~other_right)]
    runs = [pairs[name] for name in keys[:-1]]
    return np.array([100 * cell.groupby(runs).mean().mean() for cell in cells]).reshape(2, 2)


@dataclass(frozen=True)
class CostParams:
    """A metric (up) against a column of the frame of costs (across), with the label of that axis."""

    metric: str = ""
    cost: str = "milliseconds"
    label: str = ""


_COSTS = {"milliseconds": "milliseconds an image", "passes": "forward passes an image", "train_seconds": "training, s"}


@figure(
    "cost_quality",
    params=CostParams(),
    needs=("scores", "costs"),
    width=620,
    title="What an explanation costs and what it is worth",
    alt="Scatter of a metric over what an explanation costs, one point for each explainer.",
    caption="The grey line joins explainers than which nothing cheaper is better: what lies off it costs more or says "
    "less. Bars are 95 % intervals over images. Training is not in the cost of an image.",
)
def cost_quality(source: Source, params: CostParams) -> Figure:
    """Each row's mean over what a map costs (logarithmic), and the line of those that nothing cheaper beats."""
    lines = source.of(params.metric)
    if lines.empty or params.cost not in source.costs or source.costs[params.cost].isna().all():
        raise UserError(f"no {params.metric or 'metric'} or no {params.cost} was measured to draw it from")
    cost = source.costs.groupby("explainer")[params.cost].mean()
    points = _over_images(source, params.metric, lines).join(cost.rename("cost")).dropna(subset=["cost"])
    points = points.join(lines.groupby("explainer")[["label", "kind"]].first())
    if points.empty:
        raise UserError(f"no row has both {params.metric} and {params.cost}")
    chart, (axes,) = grid(1, 1, (6.8, 4.4))
    axes.set_xscale("symlog" if (points["cost"] <= 0).any() else "log")
    for kind, (colour, marker) in _KINDS.items():
        of_kind = points[points["kind"] == kind]
        if len(of_kind):
            style: dict[str, Any] = {"color": colour, "fmt": marker, "markersize": 7, "elinewidth": 1, "capsize": 2}
            axes.errorbar(of_kind["cost"], of_kind["mean"], error_bars(of_kind), label=kind, alpha=0.9, **style)
    if (better := source.column(params.metric).better) is not None:
        _frontier(axes, points, lower=better == "lower")
    axes.margins(x=0.12, y=0.12)
    axes.grid(alpha=0.25, linewidth=0.6)
    across = params.label or _COSTS.get(params.cost, params.cost)
    tidy(axes, source.titled(params.metric), across, source.with_unit(params.metric))
    legend_below(chart, [axes])
    _name_points(chart, axes, points)
    return chart


def _over_images(source: Source, metric: str, lines: pd.DataFrame) -> pd.DataFrame:
    """Mean of each row over its runs, and an interval over images that holds it: columns mean, low, high."""
    images = source.averaged(metric, lines, ["explainer", "data", "image"])
    found = intervals(images.groupby(level="explainer", sort=False), source.column(metric).quadratic)
    # Of runs with other images each, or of roots, it may lie a little beside the mean over images.
    found["mean"] = source.over_runs(metric, lines)
    ends = {end: found[[end, "mean"]] for end in ("low", "high")}
    return found.assign(low=ends["low"].min(axis=1, skipna=False), high=ends["high"].max(axis=1, skipna=False))


def _frontier(axes: Axes, points: pd.DataFrame, lower: bool) -> None:
    ordered = points[points["kind"] != "control"].sort_values(["cost", "mean"], ascending=[True, lower])
    best = ordered["mean"].cummin() if lower else ordered["mean"].cummax()
    ahead = ordered[(ordered["mean"] == best) & ~best.duplicated()]
    costs, means = [*ahead["cost"], points["cost"].max()], [*ahead["mean"], best.iloc[-1]] if len(best) else []
    if len(means) > 1:
        label = "nothing cheaper is better"
        axes.plot(costs, means, color=GREY, linewidth=1, alpha=0.6, zorder=0, drawstyle="steps-post", label=label)


def _name_points(chart: Figure, axes: Axes, points: pd.DataFrame) -> None:
    """Labels beside their points, each at the nearest place where it hides nothing; a line leads to one farther off."""
    canvas = FigureCanvasAgg(chart)
    canvas.draw()
    renderer, inside = canvas.get_renderer(), axes.get_window_extent()
    at = axes.transData.transform(points[["cost", "mean"]].to_numpy(dtype=float))
    taken = [Bbox.from_bounds(x - 5, y - 5, 10, 10) for x, y in at]
    labels = [str(label) for label in points["label"]]
    # The most crowded have the fewest places, and choose first.
    crowd = (np.hypot(*(at[:, None] - at[None]).transpose(2, 0, 1)) < _CROWDED).sum(1)
    for number in np.argsort(-crowd, kind="stable"):
        measure = axes.text(0, 0, labels[number], fontsize=8)
        size = measure.get_window_extent(renderer)
        measure.remove()
        x, y = at[number]
        places = [_beside(x, y, size.width + 2, size.height + 2, *place) for place in _PLACES]
        # A place that hides nothing costs nothing, and the first of these is the nearest.
        place = places[int(np.argmin([_hidden(box, taken, inside) for box in places]))]
        taken.append(place)
        right, up = (place.x0 + place.x1) / 2 - x, (place.y0 + place.y1) / 2 - y
        is_far = max(abs(right) - size.width / 2, abs(up) - size.height / 2) > _NEAR
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "alpha": 0.7, "shrinkA": 0, "shrinkB": 4}
        text = axes.annotate(
            labels[number],
            (points["cost"].iloc[number], points["mean"].iloc[number]),
            (72 * right / chart.dpi, 72 * up / chart.dpi),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
            zorder=9,
            arrowprops=line if is_far else None,
        )
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        text.set_in_layout(False)


_CROWDED, _NEAR = 40.0, 12.0
"""Pixels within which points are in each other's way, and up to which a label needs no line."""
_PLACES = [
    (ring, angle)
    for ring in (8, 16, 26, 38, 52, 68, 86, 106, 128, 152, 178)
    for angle in (0, 180, 90, 270, 30, 150, 330, 210, 60, 120, 300, 240)
]
"""Pixels from a point to the nearest side of its label, and which way, in degrees."""


def _beside(x: float, y: float, wide: float, high: float, ring: float, angle: float) -> Bbox:
    across, up = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    middle = x + across * (ring + wide / 2), y + up * (ring + high / 2)
    return Bbox.from_bounds(middle[0] - wide / 2, middle[1] - high / 2, wide, high)


def _hidden(box: Bbox, taken: Sequence[Bbox], inside: Bbox) -> float:
    """Pixels of a label that lie on something else or outside of the panel."""
    shared = (Bbox.intersection(box, other) for other in taken)
    within = Bbox.intersection(box, inside)
    lost = box.width * box.height - (within.width * within.height if within else 0.0)
    return float(lost + sum(each.width * each.height for each in shared if each))


@dataclass(frozen=True)
class AgreementParams:
    """Which metrics (none: all that know which way is better), and which kinds of rows do not take part."""

    metrics: list[str] = field(default_factory=list)
    without: list[str] = field(default_factory=lambda: ["control", "classifier"])


@figure(
    "metric_agreement",
    params=AgreementParams(),
    needs=("scores",),
    title="Whether metrics agree",
    alt="Heat map of the rank correlation between metrics: whether two metrics put the explainers in the same order.",
    caption="Spearman's rank correlation between the orders that two metrics put the explainers in, best first: 1 is "
    "the same order, 0 none in common, −1 the reverse. Metrics that disagree ask different things; controls are left "
    "out.",
)
def metric_agreement(source: Source, params: AgreementParams) -> Figure:
    """Spearman's correlation of rows' means between metrics, each turned so that higher is better."""
    frame = source.scores[~source.scores["kind"].isin(params.without)]
    names = params.metrics or [str(name) for name in frame["metric"].unique() if source.column(str(name)).better]
    rows = replace(source, scores=frame)
    means = pd.DataFrame({name: rows.over_runs(name, lines) for name in names if len(lines := rows.of(name))})
    means = means.dropna(axis=1, thresh=_FEWEST)
    names = [name for name in names if name in means and means[name].nunique() > 1]
    if len(names) < 2:
        raise UserError(f"fewer than two metrics with a value of at least {_FEWEST} explainers to compare orders of")
    signs = [-1.0 if source.column(name).better == "lower" else 1.0 for name in names]
    found = (means[names] * signs).corr("spearman", min_periods=_FEWEST).to_numpy()
    side = max(3.2, 0.52 * len(names) + 1.6)
    chart, (axes,) = grid(1, 1, (side + 0.8, side))
    picture = axes.imshow(found, cmap="RdBu", vmin=-1, vmax=1)
    if len(names) <= 14:
        _write_cells(axes, found, "{:.2f}", np.abs(found) > 0.65, 8)
    labels = [source.column(name).label for name in names]
    axes.set_xticks(range(len(names)), labels, fontsize=8, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels, fontsize=8)
    axes.set_title(f"agreement of metrics on {len(means)} explainers", fontsize=10)
    _bare(axes)
    chart.colorbar(picture, ax=axes, shrink=0.8, label="rank correlation").ax.tick_params(labelsize=8)
    return chart


def _write_cells(axes: Axes, values: NDArray[np.float64], form: str, dark: NDArray[np.bool_], size: int) -> None:
    for row, column in np.ndindex(*values.shape):
        if np.isfinite(values[row, column]):
            colour = "white" if dark[row, column] else "black"
            text = form.format(values[row, column])
            axes.text(column, row, text, ha="center", va="center", fontsize=size, color=colour)


def _bare(axes: Axes) -> None:
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
