"""Tables as plain data: rows by role and columns by metric, as Table 1 of explainability vectors, with the controls.

`xai.reports.renderers` prints them.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from xai.core.errors import UserError
from xai.metrics.significance import best_and_ties, confidence_interval, mean_and_deviation
from xai.reports.columns import COLUMNS, Column
from xai.reports.roles import KINDS, ROLES, Role
from xai.results import Result

Run = tuple[str, str | None, str, int]
"""What pairs the rows of a table: data, source, model and seed."""

Spread = Literal["deviation", "interval"]
"""What stands behind the ± of a cell: the sample deviation over runs, or half the 95 % interval of their mean."""

Published = Mapping[str, Mapping[str, float | Sequence[float]]]
"""Figures a paper printed: role -> metric -> mean, or [mean, deviation]."""


@dataclass(frozen=True)
class Cell:
    """Mean and deviation of one metric over the `n` runs that define it, in the column's unit; NaN where there is none.

    `deviation` is the sample deviation, or half the interval of the mean where the table's `spread` says so. `mark` is
    `best` for the best of the compared rows, `tied` for those not shown to differ from it, else empty.
    """

    mean: float = math.nan
    deviation: float = math.nan
    n: int = 0
    mark: str = ""


@dataclass(frozen=True)
class Row:
    """One role with a cell for each column of the table, and the number of runs behind it."""

    role: Role
    cells: tuple[Cell, ...]
    runs: int


@dataclass(frozen=True)
class Block:
    """Rows under one heading; `kind` is that of the roles, or `published`, or `sweep`."""

    kind: str
    heading: str
    rows: tuple[Row, ...]


@dataclass(frozen=True)
class Table:
    """Blocks of rows over common columns; `notes` say how to read the numbers, `spread` what stands behind the ±."""

    title: str
    columns: tuple[Column, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...]
    spread: Spread = "deviation"

    @property
    def rows(self) -> tuple[Row, ...]:
        """All rows from top to bottom, published ones included."""
        return tuple(row for block in self.blocks for row in block.rows)

    def row(self, role: str) -> Row:
        """The measured row of a role; UserError when the table has none."""
        measured = [row for block in self.blocks if block.kind != "published" for row in block.rows]
        for row in measured:
            if row.role.name == role:
                return row
        raise UserError(f"the table has no row {role!r}; it has {', '.join(row.role.name for row in measured)}")

    def cell(self, role: str, metric: str) -> Cell:
        """A measured cell; UserError when the table has no such row or column."""
        names = [column.name for column in self.columns]
        if metric not in names:
            raise UserError(f"the table has no column {metric!r}; it has {', '.join(names)}")
        return self.row(role).cells[names.index(metric)]


def transfer_table(
    results: Sequence[Result],
    *,
    title: str = "",
    published: Published | None = None,
    published_heading: str = "Published",
    roles: Mapping[str, Role] = ROLES,
    columns: Mapping[str, Column] = COLUMNS,
    kinds: Mapping[str, str] = KINDS,
    spread: Spread = "deviation",
    level: float = 0.05,
) -> Table:
    """Rows by role with mean and deviation over runs, the best of the models marked, and the chance levels.

    A run is a data set, a source, a model and a seed. A result without a source is the same for every source: it counts
    once in mean and deviation, and is paired with each of them. Bound, controls and chance are not compared.

    Args:
        results: Of one split; at most one for each role and run.
        title: Of the table; data sets, model and seeds of the results where it is empty.
        published: Figures of a paper, printed as a block of their own.
        published_heading: Says whose they are.
        roles: Rows in their order.
        columns: Metrics in their order; those that no result has are left out.
        kinds: Kinds of roles in the order of their blocks, with their headings; rows of the kind `method` are compared.
        spread: What stands behind the ±: the sample deviation, or half the 95 % interval of the mean.
        level: Significance level of the paired t-test between a row and the best one.

    Raises:
        UserError: No results, a role that is not in `roles`, results of two splits, or two of one role and run.
    """
    by_role = _by_role(results, roles)
    shown = _shown(results, columns)
    rows = {name: _row(roles[name], list(of_runs.values()), shown, spread) for name, of_runs in by_role.items()}
    chance = next((role for role in roles.values() if role.kind == "chance"), None)
    if chance is not None and any(column.name in r.chance for r in results for column in shown):
        rows[chance.name] = _chance_row(results, chance, shown)
    compared = {name: runs for name, runs in by_role.items() if roles[name].kind == "method"}
    pairs = _common_runs(compared)
    rows |= {name: _marked(rows[name], marks) for name, marks in _marks(compared, pairs, shown, level).items()}
    blocks = [
        Block(kind, heading, tuple(rows[name] for name in roles if name in rows and roles[name].kind == kind))
        for kind, heading in kinds.items()
    ]
    if published:
        blocks.append(_published_block(published, published_heading, roles, shown))
    marked = _notes_on_marks(kinds["method"], rows.values(), len(pairs), level) if len(compared) > 1 else []
    notes = (*_notes(rows.values(), spread), *marked, *_notes_on_gaps(rows.values()))
    return Table(title or describe(results), shown, tuple(block for block in blocks if block.rows), notes, spread)


def sweep_table(
    results: Sequence[Result],
    chosen: float | None,
    *,
    param: str = "lambda2",
    symbol: str = "λ2",
    title: str = "",
    columns: Mapping[str, Column] = COLUMNS,
) -> Table:
    """One row for each value of a parameter, averaged over runs, as Figure 3 in numbers; the chosen row says so.

    Args:
        results: Of one split; at most one for each value and run.
        chosen: Value that the main table reports, None where there is none.
        param: Key in the results' params.
        symbol: How it is printed.
        title: Of the table; data sets, model and seeds of the results where it is empty.
        columns: Metrics in their order; those that no result has are left out.

    Raises:
        UserError: No results, one that lacks the parameter, results of two splits, or two of one value and run.
    """
    missing = next((r for r in results if not isinstance(r.params.get(param), int | float)), None)
    if missing is not None:
        raise UserError(f"the result of {missing.role} for {_run_text(missing)} has no {param}; a sweep needs it")
    values = sorted({float(r.params[param]) for r in results})
    roles = {}
    for value in values:
        is_chosen = chosen is not None and math.isclose(value, chosen, abs_tol=1e-9)
        name = "chosen" if is_chosen else f"{param}-{value:g}"
        label = f"{symbol} = {value:g}" + " (chosen)" * is_chosen
        roles[value] = Role(name, label, label, "sweep", "The value the main table reports." * is_chosen)
    named = {role.name: role for role in roles.values()}
    by_role = _by_role([replace(r, role=roles[float(r.params[param])].name) for r in results], named)
    shown = _shown(results, columns)
    rows = tuple(_row(role, list(by_role[name].values()), shown) for name, role in named.items())
    notes = (*_notes(rows, "deviation"), *_notes_on_gaps(rows))
    return Table(title or describe(results), shown, (Block("sweep", "", rows),), notes)


def describe(results: Sequence[Result]) -> str:
    """What the results are of, in a line: directions, models, seeds, and the split where it is not the test split."""
    directions = dict.fromkeys(f"{r.source} → {r.data}" for r in results if r.source is not None)
    where = ", ".join(directions or dict.fromkeys(r.data for r in results))
    models = ", ".join(dict.fromkeys(r.model for r in results))
    seeds = sorted({r.seed for r in results})
    split = "" if results[0].split == "test" else f" · {results[0].split} split"
    return f"{where} · {models} · seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}{split}"


def _by_role(results: Sequence[Result], roles: Mapping[str, Role]) -> dict[str, dict[Run, Result]]:
    if not results:
        raise UserError("a table of no results; give at least one")
    splits = sorted({result.split for result in results})
    if len(splits) > 1:
        raise UserError(f"results of the splits {' and '.join(splits)} in one table; give those of one split")
    measured = [name for name, role in roles.items() if role.kind != "chance"]
    grouped: dict[str, dict[Run, Result]] = {}
    for result in results:
        if result.role not in measured:
            raise UserError(f"{result.role!r} is no row of this table; its rows are {', '.join(measured)}")
        run = (result.data, result.source, result.model, result.seed)
        twin = grouped.setdefault(result.role, {}).setdefault(run, result)
        if twin is not result:
            raise UserError(
                f"two results of {result.role} for {_run_text(result)}, with {dict(twin.params)} and "
                f"{dict(result.params)}; give one, or the mean would mix them"
            )
    return grouped


def _shown(results: Sequence[Result], columns: Mapping[str, Column]) -> tuple[Column, ...]:
    shown = tuple(c for c in columns.values() if any(c.name in r.metrics for r in results))
    if not shown:
        measured = ", ".join(sorted({name for result in results for name in result.metrics})) or "none"
        raise UserError(f"the metrics of these results are {measured}; the table shows {', '.join(columns)}")
    return shown


def _row(role: Role, results: Sequence[Result], columns: Sequence[Column], spread: Spread = "deviation") -> Row:
    cells = (_cell([c.scale * r.metrics.get(c.name, math.nan) for r in results], spread) for c in columns)
    return Row(role, tuple(cells), len(results))


def _chance_row(results: Sequence[Result], role: Role, columns: Sequence[Column]) -> Row:
    """Chance belongs to the images and not to a row, so each data set and seed counts once, and it does not deviate."""
    cells = []
    for column in columns:
        levels = {(r.data, r.seed): column.scale * r.chance[column.name] for r in results if column.name in r.chance}
        cells.append(replace(_cell(list(levels.values())), deviation=math.nan))
    return Row(role, tuple(cells), max(cell.n for cell in cells))


def _cell(values: Sequence[float], spread: Spread = "deviation") -> Cell:
    defined = [value for value in values if not math.isnan(value)]
    mean, deviation = mean_and_deviation(defined)
    if spread == "interval":
        low, high = confidence_interval(defined)
        deviation = (high - low) / 2
    return Cell(mean, deviation, len(defined))


def _common_runs(compared: Mapping[str, Mapping[Run, Result]]) -> list[dict[str, Result]]:
    """The runs that every compared row has, each as the result of each row."""
    runs = {run for of_runs in compared.values() for run in of_runs}
    pairs = []
    for data, source, model, seed in sorted(runs, key=lambda run: (run[0], run[1] or "", run[2], run[3])):
        found = {
            name: of_runs.get((data, source, model, seed)) or of_runs.get((data, None, model, seed))
            for name, of_runs in compared.items()
        }
        pair = {name: result for name, result in found.items() if result is not None}
        if len(pair) == len(compared):
            pairs.append(pair)
    return pairs


def _marks(
    compared: Mapping[str, Mapping[Run, Result]],
    pairs: Sequence[Mapping[str, Result]],
    columns: Sequence[Column],
    level: float,
) -> dict[str, list[str]]:
    marks = {name: [""] * len(columns) for name in compared}
    for index, column in enumerate(columns):
        values = {name: [pair[name].metrics.get(column.name, math.nan) for pair in pairs] for name in compared}
        values = {name: row for name, row in values.items() if row and all(map(math.isfinite, row))}
        # A row with nobody to compare it with is not the best of anything.
        if len(values) < 2:
            continue
        best, tied = best_and_ties(values, column.larger_is_better, level)
        # One run leaves nothing to test, so there the best stands alone.
        for name in tied if len(pairs) > 1 else ():
            marks[name][index] = "tied"
        if best is not None:
            marks[best][index] = "best"
    return marks


def _marked(row: Row, marks: Sequence[str]) -> Row:
    cells = (replace(cell, mark=mark) for cell, mark in zip(row.cells, marks, strict=True))
    return replace(row, cells=tuple(cells))


def _published_block(published: Published, heading: str, roles: Mapping[str, Role], columns: Sequence[Column]) -> Block:
    unknown = [name for name in published if name not in roles]
    if unknown:
        raise UserError(f"published figures of {unknown[0]!r}, no row of this table; its rows are {', '.join(roles)}")
    rows = []
    for name in (name for name in roles if name in published):
        cells = tuple(_published_cell(published[name].get(column.name), f"{name}.{column.name}") for column in columns)
        rows.append(Row(roles[name], cells, 0))
    return Block("published", heading, tuple(rows))


def _published_cell(figure: float | Sequence[float] | None, where: str) -> Cell:
    if figure is None:
        return Cell()
    if isinstance(figure, int | float):
        return Cell(float(figure))
    if isinstance(figure, str) or len(figure) not in (1, 2):
        raise UserError(f"the published figure of {where} is {figure!r}; it has to be a mean, or [mean, deviation]")
    return Cell(float(figure[0]), float(figure[1]) if len(figure) > 1 else math.nan)


def _notes(rows: Iterable[Row], spread: Spread) -> list[str]:
    measured = _measured(rows)
    most = max(row.runs for row in measured)
    if most < 2:
        return []
    fewer = defaultdict(list)
    for row in measured:
        if row.runs < most:
            fewer[row.runs].append(row.role.label)
    named = {"deviation": "sample standard deviation", "interval": "half the 95 % confidence interval (Student's t)"}
    return [f"Mean ± {named[spread]} over {most} runs."] + [
        f"Over {runs} run{'s' * (runs > 1)}: {', '.join(labels)}." for runs, labels in sorted(fewer.items())
    ]


def _notes_on_marks(compared: str, rows: Iterable[Row], pairs: int, level: float) -> list[str]:
    compared, measured = compared.lower(), _measured(rows)
    if pairs == 0:
        return [f"The {compared} share no run, so none of them is marked as the best."]
    bound = ", the bound left out" * any(row.role.kind == "bound" for row in measured)
    best = f"Bold and underlined: the best of the {compared}{bound}."
    if pairs == 1:
        return [f"{best} One run cannot show that a difference is significant, so nothing else is marked."]
    tied = f"Bold: not shown to differ from it (paired t-test over {pairs} runs, p ≥ {level:g})."
    fewer = pairs < max(row.runs for row in measured)
    return [f"{best} {tied}"] + [f"The marks compare the runs that all {compared} have."] * fewer


def _notes_on_gaps(rows: Iterable[Row]) -> list[str]:
    measured = _measured(rows)
    notes = []
    if any(0 < cell.n < row.runs for row in measured for cell in row.cells):
        notes.append("A metric that is undefined in some runs of a row is the mean over the others.")
    if any(cell.n == 0 for row in measured for cell in row.cells):
        notes.append("–: undefined or not measured.")
    return notes


def _measured(rows: Iterable[Row]) -> list[Row]:
    return [row for row in rows if row.role.kind != "chance"]


def _run_text(result: Result) -> str:
    direction = result.data if result.source is None else f"{result.source} → {result.data}"
    return f"{direction}, {result.model}, seed {result.seed}"
