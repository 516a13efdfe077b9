"""A table: what it shows in which order, as the YAML files of `conf/table/` say, and the cells that it consists of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pandas as pd

from xai.core.errors import UserError
from xai.core.settings import build
from xai.study.claims import Pooled, read_yaml
from xai.study.columns import Column, after_point

SPREADS = {"interval": "half the 95 % interval of the mean (Student's t)", "deviation": "sample standard deviation"}

UNITS = {"run": "runs", "data": "data sets"}


@dataclass(frozen=True)
class Symbol:
    """A parameter vector as a paper writes it: theta with a subscript, a superscript and perhaps a tilde."""

    sub: str
    sup: str = ""
    tilde: bool = False

    @property
    def text(self) -> str:
        """For a terminal, as in `θ_ft^T`."""
        return f"{'~' * self.tilde}θ_{self.sub}" + (f"^{self.sup}" if self.sup else "")


@dataclass(frozen=True)
class RowParams:
    """How a row is called, where not as in the frame; `about` says what it is."""

    label: str = ""
    about: str = ""
    symbol: Symbol | None = None


@dataclass(frozen=True)
class Group:
    """Rows under one heading; they compete for the best value where they are `compared`.

    Rows are named in their order; `*` in a name stands for anything, the name of a kind for all other rows of it.
    """

    heading: str
    rows: list[str]
    compared: bool = True


@dataclass(frozen=True)
class Published:
    """Figures a paper printed, in the unit of the table: data set -> row -> column -> mean, or [mean, deviation]."""

    about: str
    figures: dict[str, dict[str, dict[str, float | list[float]]]]

    def __post_init__(self) -> None:
        """Refuse what is neither a mean nor [mean, deviation]."""
        for data, rows in self.figures.items():
            for row, figures in rows.items():
                for column, figure in figures.items():
                    if isinstance(figure, list) and len(figure) != 2:
                        where = f"the published figure of {data}, {row}, {column}"
                        raise UserError(f"{where} is {figure}: it has to be a mean, or [mean, deviation]")


@dataclass(frozen=True)
class Normalisation:
    """Values as the share of the way from the row `zero` (null: from 0) to the row `one`, run by run."""

    one: str
    zero: str | None = None


_ALL = [
    Group("Explainers", ["trained", "refined", "post-hoc"]),
    Group("Controls", ["control"], compared=False),
    Group("Classifiers", ["classifier"], compared=False),
]


@dataclass(frozen=True)
class TableParams:
    """A table; a file of `conf/table/` holds one.

    Args:
        title: Above it.
        about: A sentence on what to look at.
        columns: Metrics and costs, in their order; empty: all that the frame has. Columns of a plug-in that were
            measured stand behind them, as rows that no group names stand below.
        groups: Rows in their order; measured rows that no group names stand below, under "Others".
        others: Whether they do; else both are left out, as of a short table beside the whole one.
        rows: How rows are called and what they are, by name.
        highlighted: Rows to be seen first.
        pool: What is averaged beside the seeds: `data`, `source`, `model`. Else there is a table for each.
        unit: What spread and tests are over: `run`, or `data`, where each data set (each pair of source and target)
            counts once, with its mean over seeds.
        pairs: Whether a data set that is its own source is left out.
        spread: What stands behind the ±: `interval`, half the 95 % interval of the mean, or `deviation`, over runs.
        percent: Whether shares are shown in percent.
        digits: Digits after the point, by column.
        chance: Whether there is a row of chance levels.
        normalisation: Null shows the values as they are.
        ranked: Whether values are ranks: of the rows on an image, 1 is the best (`xai.study.ranks`); the best rows come
            first.
        drop_empty: Whether columns that no row has a value of are left out.
        published: Figures of the paper.
        notes: Further lines below it.
    """

    title: str = ""
    about: str = ""
    columns: list[str] = field(default_factory=list)
    groups: list[Group] = field(default_factory=lambda: list(_ALL))
    others: bool = True
    rows: dict[str, RowParams] = field(default_factory=dict)
    highlighted: list[str] = field(default_factory=list)
    pool: list[Pooled] = field(default_factory=list)
    unit: Literal["run", "data"] = "run"
    pairs: bool = False
    spread: Literal["interval", "deviation"] = "interval"
    percent: bool = True
    digits: dict[str, int] = field(default_factory=dict)
    chance: bool = False
    normalisation: Normalisation | None = None
    ranked: bool = False
    drop_empty: bool = False
    published: Published | None = None
    notes: list[str] = field(default_factory=list)

    def row(self, name: str) -> RowParams:
        """How a row is called."""
        return self.rows.get(name, RowParams())

    def after_point(self, column: Column) -> int:
        """Digits of a column."""
        return self.digits.get(column.name, after_point(column, self.percent and self.normalisation is None))


def read_table(path: Path) -> TableParams:
    """Read a file of a table; what it lacks it has from the one in the same folder that it names as `like`.

    Raises:
        UserError: It is missing, no YAML or no table.
    """
    return build(TableParams, read_yaml(path, "table", ("title", "about", "columns", "published")), path.stem)


CHANCE = "chance"
"""The row of what knowing nothing scores."""


@dataclass(frozen=True)
class Cell:
    """One metric of one row, in the unit that is shown; NaN where there is none.

    `how` says what interval and spread are over: "seeds", "images" or "". `mark` is `best` for the best of the compared
    rows, `tied` for those not shown to differ from it, else empty.
    """

    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    spread: float = math.nan
    n_images: int = 0
    runs: int = 0
    how: str = ""
    mark: str = ""

    def shown_spread(self, spread: str) -> float:
        """What stands behind the ±; of a single run always its interval over images."""
        return self.spread if spread == "deviation" and self.how == "seeds" else (self.high - self.low) / 2


@dataclass(frozen=True)
class Row:
    """A row with a cell for each column."""

    name: str
    label: str
    cells: tuple[Cell, ...]
    about: str = ""
    symbol: Symbol | None = None
    highlighted: bool = False


@dataclass(frozen=True)
class Section:
    """Rows under one heading; `muted` where they do not compete."""

    heading: str
    rows: tuple[Row, ...]
    muted: bool = False


@dataclass(frozen=True)
class Table:
    """Sections of rows over common columns; `after_point` are the digits of each, `notes` say how to read it."""

    title: str
    columns: tuple[Column, ...]
    after_point: tuple[int, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    spread: str = "interval"

    @property
    def is_published(self) -> bool:
        """Whether nothing of it was measured."""
        return not any(cell.runs for section in self.sections for row in section.rows for cell in row.cells)

    def cell(self, row: str, column: str) -> Cell:
        """UserError when the table has no such row or column."""
        rows = {each.name: each for section in self.sections for each in section.rows}
        names = [each.name for each in self.columns]
        if row not in rows or column not in names:
            raise UserError(
                f"the table has no cell {row}, {column}: its rows are {', '.join(rows)}, its columns {', '.join(names)}"
            )
        return rows[row].cells[names.index(column)]


@dataclass(frozen=True)
class Reasons:
    """Why metrics are not there (a frame: explainer, metric or its family, reason), and rows are `unfit`, by name."""

    left_out: pd.DataFrame = field(default_factory=pd.DataFrame)
    unfit: Mapping[str, str] = field(default_factory=dict)
    families: Mapping[str, str] = field(default_factory=dict)

    def of(self, row: str, column: str) -> str:
        """Why the row has no such value."""
        if len(self.left_out):
            named = self.left_out["metric"].isin([column, self.families.get(column, column)])
            found = self.left_out.loc[named & (self.left_out["explainer"] == row), "reason"]
            if len(found):
                return str(found.iloc[0])
        return "undefined or not measured"


def as_frame(table: Table) -> pd.DataFrame:
    """Every cell in full precision, one line for row x column, in the unit of the table; `to_csv` writes it."""
    return pd.DataFrame(
        [
            {"group": section.heading, "row": row.name, "label": row.label, "column": column.name, "mean": cell.mean}
            | {"low": cell.low, "high": cell.high, "spread": cell.spread, "over": cell.how}
            | {"n_images": cell.n_images, "runs": cell.runs, "mark": cell.mark}
            for section in table.sections
            for row in section.rows
            for column, cell in zip(table.columns, row.cells, strict=True)
        ]
    )
