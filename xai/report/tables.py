"""Tables: a frame and a YAML file that says which rows and columns, become numbers in their places.

`xai.report.sheets` prints them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import pandas as pd

from xai.core.errors import UserError
from xai.report.layout import Group, TableParams
from xai.report.notes import notes_on_numbers, notes_on_rows, units
from xai.report.parts import CHANCE, Cell, Reasons, Row, Section, Table
from xai.study.claims import parts
from xai.study.columns import COSTS, Column, column_of, scale
from xai.study.frame import AT, own_name
from xai.study.ranks import as_ranks, of_ranks
from xai.study.statistics import WHOLE, Best, best_and_ties, normalised, over_seeds, summary, wide


def build_tables(
    frame: pd.DataFrame,
    params: TableParams,
    columns: Mapping[str, Column],
    costs: pd.DataFrame | None = None,
    reasons: Reasons | None = None,
) -> list[Table]:
    """A table for each model, data set and source that are not pooled.

    Args:
        frame: Scores of one split.
        params: What the table shows.
        columns: Of the registry, by name.
        costs: Frame of costs; shown where `params.columns` name them, or name nothing.
        reasons: Why something is missing.
    """
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
    tables = [
        _table(where, part, params, _there(shown, part, params), reasons or Reasons())
        for where, part in parts(lines, params.pool)
    ]
    measured = frozenset(map(own_name, frame["explainer"]))
    more = [(*notes_on_rows(table, measured, params, reasons or Reasons()), *params.notes) for table in tables]
    return [replace(table, notes=(*table.notes, *notes)) for table, notes in zip(tables, more, strict=True)]


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

    Args:
        frame: Of lines that all have the parameter.
        name: Of the parameter's column.
        symbol: How it is printed.
        chosen: The value that other tables report; its row is called so.

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
    groups = _placed(params.groups, frame)
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
    return replace(made, notes=notes_on_numbers(made, frame, params, best, reasons))


def _there(columns: Sequence[Column], frame: pd.DataFrame, params: TableParams) -> list[Column]:
    """The columns; where empty ones are to be left out, those of which some row has a value."""
    measured = set(frame.loc[frame["value"].notna(), "metric"])
    return [column for column in columns if column.name in measured or not params.drop_empty]


def _chance_of(frame: pd.DataFrame, column: Column) -> float:
    """What knowing nothing scores: the mean of what stands beside the values, else what the column says."""
    if "chance" in frame:
        levels = frame.loc[frame["metric"] == column.name, "chance"].dropna()
        if len(levels):
            return float(levels.mean())
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
