"""The trade-off between two scores: everything that was tried, and what no other trial beats in both."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from xai.metrics.registry import Column
from xai.report.figures.style import BLUE, GREY, ORANGE, grid, legend_below, say, tidy


def trade_off(trials: pd.DataFrame, goals: Sequence[Column], beside: Mapping[str, Sequence[float]]) -> Figure:
    """A point for each trial, the front as a line through its own, and other rows as crosses.

    Args:
        trials: One line a trial: a column for each goal, and `front`, whether it is on it.
        goals: Across and up.
        beside: By row, its two scores.
    """
    across, up = goals
    chart, (axes,) = grid(1, 1, (5.6, 4.0))
    rest, front = trials[~trials["front"]], trials[trials["front"]].sort_values(across.name)
    tried = [name for name in trials if name not in ("trial", "front", across.name, up.name)]

    def points(of: pd.DataFrame, **style: Any) -> None:
        (line,) = axes.plot(of[across.name], of[up.name], "o", **style)
        say(line, [", ".join(f"{name}={each[name]}" for name in tried) for each in of.to_dict("records")])

    points(rest, color=GREY, alpha=0.45, markersize=5, label="trials")
    # A step for each: between two trials nobody has tried anything.
    steps = "steps-post" if (across.better == "lower") else "steps-pre"
    axes.plot(front[across.name], front[up.name], color=BLUE, linewidth=1, drawstyle=steps, alpha=0.6)
    points(front, color=BLUE, markersize=7, label="no other is better in both")
    for name, (x, y) in beside.items():
        axes.plot([x], [y], "X", color=ORANGE, markersize=9, label=name)
    names = (f"{each.label}{f', {each.unit}' * bool(each.unit)} ({each.better} is better)" for each in goals)
    axes.grid(alpha=0.25, linewidth=0.6)
    tidy(axes, "", *names)
    legend_below(chart, [axes])
    return chart
