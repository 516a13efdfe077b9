"""What `task=tune` has tried, from its files: the trade-off as a figure, and what no other trial beats as a sheet."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from xai.core.csv_files import read_csv
from xai.core.errors import UserError
from xai.metrics import registry as metrics
from xai.metrics.registry import Column
from xai.report.figures.style import BLUE, GREY, ORANGE, grid, legend_below, say, tidy
from xai.report.sheets import Entry, Line, Part, Sheet
from xai.study.columns import arrow, column_of

TRIALS, FRONT, BESIDE = "trials.csv", "front.csv", "beside.csv"
TITLE = "Everything that was tried"
ALT = "Scatter of two scores, a point for each trial, and a line through those that no other is better than in both."
CAPTION = "The line joins what no other trial beats in both scores, on validation images; crosses are other rows."


def is_tuned(folder: Path) -> bool:
    """Whether a folder holds what `task=tune` writes."""
    return all((folder / name).is_file() for name in (TRIALS, FRONT, BESIDE))


def figure_of(folder: Path) -> Figure:
    """The trade-off between the two goals of a search.

    Raises:
        UserError: The files are not what `task=tune` writes.
    """
    try:
        trials, beside = read_csv(folder / TRIALS), read_csv(folder / BESIDE)
        goals = [str(name) for name in beside.columns[-2:]]
        rows = {str(line["row"]): (float(line[goals[0]]), float(line[goals[1]])) for line in beside.to_dict("records")}
        columns = metrics.columns()
        return _trade_off(trials.astype({"front": bool}), [column_of(goal, columns) for goal in goals], rows)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{folder / TRIALS} is not what task=tune wrote: tune again") from error


def _trade_off(trials: pd.DataFrame, goals: Sequence[Column], beside: Mapping[str, Sequence[float]]) -> Figure:
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


def sheet_of(front: pd.DataFrame) -> Sheet:
    """A line for each trial that no other beats: its settings, then its two scores."""
    *names, across, up = (str(name) for name in front.columns if name != "trial")
    columns = metrics.columns()
    goals = [column_of(goal, columns) for goal in (across, up)]
    head = [(name, "") for name in names] + [(f"{goal.label} {arrow(goal)}", goal.about) for goal in goals]
    lines = [
        Line(tuple(str(line[name]) for name in names), tuple(Entry(f"{line[goal.name]:.4g}") for goal in goals))
        for line in front.to_dict("records")
    ]
    return Sheet("What no other trial beats", tuple(head), len(names), (Part("", tuple(lines)),))
