"""Tables: a frame and a YAML file that says which rows and columns, become numbers in their places, and notes below.

`xai.report.sheets` prints them.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd

from xai.core.errors import UserError
from xai.report.layout import CHANCE, SPREADS, UNITS, Cell, Group, Reasons, Row, Section, Table, TableParams
from xai.study.claims import KINDS, parts
from xai.study.columns import COSTS, Column, column_of, scale
from xai.study.frame import AT, own_name
from xai.study.ranks import as_ranks, of_ranks
from xai.study.statistics import LEVEL, WHOLE, Best, best_and_ties, normalised, over_seeds, summary, wide

_PATTERN = re.compile(r"[*?\[]")
"""What a pattern for several rows has in it, and a name has not."""
_ALIKE = 1e-9
"""Chance levels that differ by less are the same but for rounding."""


def build_tables(
    frame: pd.DataFrame,
    params: TableParams,
    columns: Mapping[str, Column],
    costs: pd.DataFrame | None = None,
    reasons: Reasons | None = None,
) -> list[Table]:
    """A table for each model, data set and source that are not pooled, of the scores of one split."""
    lines = frame if params.ranked else _with_costs(frame, costs)
    named = params.columns or list(dict.fromkeys(lines["metric"]))
    shown = [column_of(name, columns) for name in named]
    lines = lines[lines["metric"].isin(named)]
    if params.pairs:
        lines = lines[lines["source"].isna() | (lines["source"] != lines["data"])]
    if lines.empty:
        raise UserError(f"nothing in the frame has {' or '.join(named)}: measure it, or choose other columns")
    if params.ranked:
        lines, shown = as_ranks(lines, columns), of_ranks(shown)
    measured, reasons = frozenset(map(own_name, frame["explainer"])), reasons or Reasons()
    tables = []
    for where, part in parts(lines, params.pool):
        table = _table(where, part, params, _there(shown, part, params), reasons)
        notes = (*table.notes, *_notes_on_rows(table, measured, params, reasons), *params.notes)
        tables.append(replace(table, notes=notes))
    return tables


def published_table(params: TableParams, columns: Mapping[str, Column]) -> Table | None:
    """What the paper printed, the columns of all its data sets side by side; None where it printed nothing."""
    if params.published is None:
        return None
    groups = [
        (data, name)
        for data, rows in params.published.figures.items()
        for name in params.columns or dict.fromkeys(name for figures in rows.values() for name in figures)
        if any(name in figures for figures in rows.values())
    ]
    shown = tuple(column_of(name, columns) for _, name in groups)
    several = len(params.published.figures) > 1
    named = tuple(
        replace(each, name=f"{data}.{name}", label=f"{data} {each.label}" if several else each.label)
        for (data, name), each in zip(groups, shown, strict=True)
    )
    rows = {row for figures in params.published.figures.values() for row in figures}
    patterns = [*(name for group in params.groups for name in group.rows), "*"]
    place = {row: next(n for n, name in enumerate(patterns) if fnmatchcase(row, name)) for row in sorted(rows)}
    made = []
    for row in sorted(place, key=place.__getitem__):
        cells = (_published_cell(params.published.figures[data].get(row, {}).get(name)) for data, name in groups)
        made.append(row_of(row, "", tuple(cells), params))
    after_point = tuple(params.after_point(each) for each in shown)
    title = f"{params.title}: published ({params.published.about})"
    return Table(title, named, after_point, (Section("", tuple(made)),), tuple(units(shown, params)), "deviation")


def by_parameter(frame: pd.DataFrame, name: str, symbol: str, chosen: float | None = None) -> pd.DataFrame:
    """A frame whose rows are the values of a parameter, in their order, as a sweep is tabulated.

    Raises:
        UserError: A line lacks the parameter.
    """
    if name not in frame or frame[name].isna().any():
        raise UserError(f"some lines have no {name}: choose the rows of the sweep before it is tabulated")
    labels = {value: f"{symbol} = {value:g}" for value in frame[name].unique()}
    if chosen is not None:
        labels = {v: text + " (chosen)" * math.isclose(v, chosen, abs_tol=1e-9) for v, text in labels.items()}
    values = frame[name]
    named = frame.assign(explainer=values.map(lambda value: f"{name}={value:g}"), label=values.map(labels))
    return named.sort_values(name, kind="stable", ignore_index=True)


def _with_costs(frame: pd.DataFrame, costs: pd.DataFrame | None) -> pd.DataFrame:
    """The frame with a line for each cost, as of a metric of all images together."""
    if costs is None or costs.empty:
        return frame
    there = [name for name in COSTS if name in costs]
    keys = [name for name in frame if name not in ("metric", "image", "value", *there) and name in costs]
    lines = costs.melt(keys, there, var_name="metric").dropna(subset="value").assign(image=WHOLE)
    lines["value"] = lines["value"].astype(float)
    # What a row costs is told once, though it was measured in several cases.
    lines = lines.drop_duplicates([name for name in keys if name != "case"] + ["metric"])
    return pd.concat([frame.drop(columns=[name for name in COSTS if name in frame]), lines], ignore_index=True)


def _table(where: str, frame: pd.DataFrame, params: TableParams, columns: Sequence[Column], reasons: Reasons) -> Table:
    changed = params.normalisation
    squared = [column.name for column in columns if column.quadratic]
    pool = params.pool if "source" in params.pool else [*params.pool, "source"]
    # Roots are taken where images are averaged, once.
    values = over_seeds(frame, squared) if params.unit == "data" else frame
    squared = [] if params.unit == "data" else squared
    if changed is None:
        means = summary(values, pool, quadratic=squared)
    else:
        means = summary(normalised(values, changed.one, changed.zero, squared), pool)
    cells = {(line["explainer"], line["metric"]): line for line in means.to_dict("records")}
    groups = _placed(params.groups, frame)[: None if params.others else -1]
    compared = [name for group in groups if group.compared for name in group.rows]
    best = {
        column.name: _best(values, replace(column, quadratic=column.name in squared), compared) for column in columns
    }
    labels = dict(zip(frame["explainer"], frame["label"], strict=True))
    sections = []
    for group in groups:
        rows = []
        for name in group.rows:
            in_row = (_cell(cells.get((name, c.name)), c, params, best[c.name]) for c in columns)
            rows.append(row_of(name, labels[name], tuple(in_row), params))
        sections.append(Section(group.heading, tuple(rows), not group.compared))
    levels = [_chance_of(frame, column) for column in columns] if params.chance else []
    if any(not math.isnan(level) for level in levels):
        scaled = (Cell(level * _scale(column, params)) for level, column in zip(levels, columns, strict=True))
        sections.append(Section("Chance", (row_of(CHANCE, "Chance", tuple(scaled), params),), True))
    made = Table(
        " · ".join(filter(None, (params.title, where))),
        tuple(columns),
        tuple(params.after_point(column) for column in columns),
        tuple(section for section in sections if section.rows),
        (),
        params.spread,
    )
    gaps = [*_notes_on_gaps(made, reasons), *_notes_on_chance(made, frame)]
    notes = (*units(columns, params), *_notes_on_runs(made, frame, params), *_notes_on_marks(made, best, params), *gaps)
    return replace(made, notes=notes)


def _there(columns: Sequence[Column], frame: pd.DataFrame, params: TableParams) -> list[Column]:
    """The columns; where empty ones are to be left out, those of which some row has a value."""
    measured = set(frame.loc[frame["value"].notna(), "metric"])
    return [column for column in columns if column.name in measured or not params.drop_empty]


def _chance_of(frame: pd.DataFrame, column: Column) -> float:
    """What knowing nothing scores: the mean over images of what stands beside their values, else what the column says.

    NaN where it is not the same for all rows, as of maps of patches and of pixels.
    """
    if "chance" in frame:
        lines = frame[(frame["metric"] == column.name) & frame["value"].notna() & frame["chance"].notna()]
        levels = lines.groupby(["model", "data", "source", "split", "seed", "image"], dropna=False)["chance"]
        if len(lines):
            return float(levels.first().mean()) if (levels.max() - levels.min()).max() < _ALIKE else math.nan
    return float(column.chance) if isinstance(column.chance, int | float) else math.nan


def _placed(groups: Sequence[Group], frame: pd.DataFrame) -> list[Group]:
    """The groups with the names of measured rows, and those that none names under Others."""
    kinds = frame.drop_duplicates("explainer").set_index("explainer")["kind"]
    patterns = [name for group in groups for name in group.rows]
    named = {row for row in kinds.index if any(fnmatchcase(own_name(row), pattern) for pattern in patterns)}
    taken: set[str] = set()
    placed = []
    for group in groups:
        rows: dict[str, None] = {}
        for name in group.rows:
            matching = [str(row) for row in kinds.index if fnmatchcase(own_name(row), name)]
            rows |= dict.fromkeys(matching or [str(row) for row in kinds.index[kinds == name] if row not in named])
        rows = {name: None for name in rows if name not in taken}
        taken |= rows.keys()
        placed.append(replace(group, rows=list(rows)))
    others = [str(name) for name in kinds.index if name not in taken]
    return [*placed, Group("Others", others, compared=False)]


def _best(frame: pd.DataFrame, column: Column, compared: Sequence[str]) -> Best:
    values = wide(frame, column.name)
    there = [name for name in compared if name in values]
    return (
        best_and_ties(values[there], column.better, column.quadratic) if column.better is not None and there else Best()
    )


def row_of(name: str, label: str, cells: tuple[Cell, ...], params: TableParams) -> Row:
    """A row with its cells, called as the table has it."""
    own, _, settings = name.partition(AT)
    called = params.row(own)
    label = ", ".join(filter(None, (called.label, settings))) if called.label else label or name
    return Row(name, label, cells, called.about, called.symbol, own in params.highlighted)


def _scale(column: Column, params: TableParams) -> float:
    return 1.0 if params.normalisation else scale(column, params.percent)


def _cell(line: Mapping[Any, Any] | None, column: Column, params: TableParams, best: Best) -> Cell:
    if line is None:
        return Cell()
    mean, low, high, spread = (_scale(column, params) * line[name] for name in ("mean", "low", "high", "spread"))
    mark = "best" if line["explainer"] == best.name else "tied" if line["explainer"] in best.tied else ""
    return Cell(mean, low, high, spread, line["n_images"], line["runs"], line["how"], mark)


def _published_cell(figure: float | list[float] | None) -> Cell:
    if figure is None:
        return Cell()
    mean, deviation = figure if isinstance(figure, list) else (figure, math.nan)
    return Cell(mean, spread=deviation, how="seeds")


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


def _notes_on_chance(table: Table, frame: pd.DataFrame) -> list[str]:
    """Which columns have a level of chance that is not the same for all rows."""
    having = set(frame.loc[frame["value"].notna() & frame["chance"].notna(), "metric"]) if "chance" in frame else set()
    rows = [row for section in table.sections for row in section.rows if row.name == CHANCE]
    cells = [(column, cell) for row in rows for column, cell in zip(table.columns, row.cells, strict=True)]
    apart = [column.label for column, cell in cells if column.name in having and math.isnan(cell.mean)]
    return [f"Chance –: not the same for all rows ({', '.join(apart)})."] if apart else []


def _notes_on_rows(table: Table, measured: frozenset[str], params: TableParams, reasons: Reasons) -> list[str]:
    """Which rows are not there: left out with a reason, without any of the columns, or not measured at all."""
    notes = [f"Left out: {params.row(name).label or name}: {why}." for name, why in reasons.unfit.items()]
    shown = {CHANCE, *reasons.unfit, *(own_name(row.name) for section in table.sections for row in section.rows)}
    names = [name for group in params.groups for name in group.rows if not _PATTERN.search(name)]
    named = [name for name in dict.fromkeys(names) if name not in shown]
    for told, there in (("Without any of these columns", True), ("Not measured", False)):
        rows = [name for name in named if (name in measured) == there and (there or name not in KINDS)]
        notes += [f"{told}: {'; '.join(params.row(name).label or name for name in rows)}."] * bool(rows)
    return notes
