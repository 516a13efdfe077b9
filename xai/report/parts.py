"""What a table consists of: cells in rows in sections, and its numbers as a frame."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from xai.core.errors import UserError
from xai.report.layout import Symbol
from xai.study.columns import Column

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
    """Why something is not there.

    Args:
        left_out: Frame of metrics that rows cannot have: explainer, metric (its family, or a column), reason.
        unfit: Why rows were not measured, by name.
        families: Metric family of each column.
    """

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
