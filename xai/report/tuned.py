"""What `task=tune` has tried, from its files: the trade-off as a figure, and what no other trial beats as a sheet."""

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from xai.core.csv_files import read_csv
from xai.core.errors import UserError
from xai.metrics import registry as metrics
from xai.report.figures.trade_off import trade_off
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
        return trade_off(trials.astype({"front": bool}), [column_of(goal, columns) for goal in goals], rows)
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"{folder / TRIALS} is not what task=tune wrote: tune again") from error


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
