"""Notes below a table: its unit, how many runs stand behind it, what the marks say, what is missing and why."""

import math
import re
from collections.abc import Mapping, Sequence

import pandas as pd

from xai.report.layout import SPREADS, UNITS, TableParams
from xai.report.parts import CHANCE, Reasons, Table
from xai.study.claims import KINDS
from xai.study.columns import Column
from xai.study.frame import own_name
from xai.study.statistics import LEVEL, Best

_PATTERN = re.compile(r"[*?\[]")
"""What a pattern for several rows has in it, and a name has not."""


def notes_on_numbers(
    table: Table, frame: pd.DataFrame, params: TableParams, best: Mapping[str, Best], reasons: Reasons
) -> tuple[str, ...]:
    """What has to be known to read the numbers: unit, runs, marks, gaps."""
    return (
        *units(table.columns, params),
        *_notes_on_runs(table, frame, params),
        *_notes_on_marks(table, best, params),
        *_notes_on_gaps(table, reasons),
    )


def units(columns: Sequence[Column], params: TableParams) -> list[str]:
    """What the numbers are in."""
    if params.normalisation is not None:
        start = params.normalisation.zero
        way = f"from {start} (0) to {params.normalisation.one} (1)" if start else f"of {params.normalisation.one}"
        return [f"Values are shares {'of the way ' * bool(start)}{way}, in each run."]
    others = list(dict.fromkeys(column.label for column in columns if column.unit != "%"))
    if not params.percent or len(others) == len(set(column.label for column in columns)):
        return []
    return [f"In percent, but for {' and '.join(others)}." if others else "In percent."]


def _notes_on_runs(table: Table, frame: pd.DataFrame, params: TableParams) -> list[str]:
    seeds = frame["seed"].nunique()
    cells = [(row, cell) for section in table.sections for row in section.rows for cell in row.cells if cell.runs]
    most = max((cell.runs for _, cell in cells), default=0)
    images = max((cell.n_images for _, cell in cells), default=0)
    over = f" of {images:,} images" if images else ""
    if params.unit == "data":
        over = f", each the mean of {seeds} seed{'s' * (seeds > 1)}"
        return [f"Mean ± {SPREADS[table.spread]} over {most} {_unit(params)}{over}."]
    if most < 2:
        told = "half the 95 % interval over images (bootstrap)"
        return [
            f"One seed{over}: ± is {told}, and says nothing of how seeds differ." if seeds == 1 else f"One run{over}."
        ]
    notes = [f"Mean ± {SPREADS[table.spread]} over {most} runs ({seeds} seed{'s' * (seeds > 1)}){over}."]
    fewer: dict[int, dict[str, None]] = {}
    for row, cell in cells:
        if cell.runs < most and row.name != CHANCE:
            fewer.setdefault(cell.runs, {})[row.label] = None
    return notes + [f"Over {n} run{'s' * (n > 1)}: {', '.join(labels)}." for n, labels in sorted(fewer.items())]


def _notes_on_marks(table: Table, best: Mapping[str, Best], params: TableParams) -> list[str]:
    found = [each for each in best.values() if each.name is not None]
    if not found:
        return []
    headings = " and ".join(section.heading.lower() for section in table.sections if not section.muted) or "rows"
    notes = [f"Bold and underlined: the best of the {headings}."]
    for over in dict.fromkeys(each.over for each in found if each.over):
        runs = max(each.runs for each in found if each.over == over)
        where = f"{runs} {_unit(params)}" if over == "runs" else "the images of the one run"
        notes.append(
            f"Bold: not shown to differ from it (paired t-test over {where}, Holm's correction, p ≥ {LEVEL:g})."
        )
    return [" ".join(notes)]


def _unit(params: TableParams) -> str:
    """What values are repeated over, in the plural."""
    return "pairs of data sets" if params.unit == "data" and "source" in params.pool else UNITS[params.unit]


def _notes_on_gaps(table: Table, reasons: Reasons) -> list[str]:
    """For each reason the columns that it leaves empty, in all rows or in those it names."""
    found: dict[str, dict[str, set[str]]] = {}
    for section in table.sections:
        for row in (row for row in section.rows if row.name != CHANCE):
            for column, cell in zip(table.columns, row.cells, strict=True):
                if math.isnan(cell.mean):
                    reason = reasons.of(row.name, column.name)
                    found.setdefault(reason, {}).setdefault(column.label, set()).add(row.label)
    return [f"–: {reason} ({', '.join(columns)})." for reason, columns in found.items()]


def notes_on_rows(table: Table, measured: frozenset[str], params: TableParams, reasons: Reasons) -> list[str]:
    """Which rows are not there: left out with a reason, without any of the columns, or not measured at all."""
    notes = [f"Left out: {params.row(name).label or name}: {why}." for name, why in reasons.unfit.items()]
    shown = {CHANCE, *reasons.unfit, *(own_name(row.name) for section in table.sections for row in section.rows)}
    names = [name for group in params.groups for name in group.rows if not _PATTERN.search(name)]
    named = [name for name in dict.fromkeys(names) if name not in shown]
    for told, there in (("Without any of these columns", True), ("Not measured", False)):
        rows = [name for name in named if (name in measured) == there and (there or name not in KINDS)]
        notes += [f"{told}: {'; '.join(params.row(name).label or name for name in rows)}."] * bool(rows)
    return notes
