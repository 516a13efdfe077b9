"""How the numbers of a column are shown: unit, digits, which way is better."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

UNDEFINED = "–"


class Column(Protocol):
    """What a view has to know of a metric's column; the registry of metrics has them."""

    @property
    def name(self) -> str:
        """In the frame."""

    @property
    def label(self) -> str:
        """In a table."""

    @property
    def about(self) -> str:
        """What it asks, in a sentence."""

    @property
    def better(self) -> str | None:
        """`higher`, `lower`, or None where neither is."""

    @property
    def unit(self) -> str:
        """`%` for a share, kept as a fraction and shown times 100; else empty, or what the numbers are in."""

    @property
    def digits(self) -> int:
        """After the point."""

    @property
    def chance(self) -> Any:
        """What knowing nothing scores: a number, or None; anything else stands in the frame."""

    @property
    def control(self) -> str | None:
        """The row that says how much the column rewards by itself."""

    @property
    def quadratic(self) -> bool:
        """Whether the mean over images is the root of the mean square."""


@dataclass(frozen=True)
class OtherColumn:
    """A column that no metric fills: a cost, or what a paper measures by the way; the attributes of `Column`."""

    name: str
    label: str
    about: str = ""
    better: str | None = None
    unit: str = ""
    digits: int = 3
    chance: float | None = None
    control: str | None = None
    quadratic: bool = False


_TIME = "Time that one map takes, in milliseconds, several images at once; training is not counted."
_COSTS = (
    OtherColumn("passes", "Passes", "Forward passes an image; a backward pass counts as two.", "lower", digits=0),
    OtherColumn("milliseconds", "ms an image", _TIME, "lower", "ms", 1),
    OtherColumn("train_seconds", "Training, s", "Time that training the explainer took.", "lower", "s", 1),
)
COSTS = {column.name: column for column in _COSTS}
"""Columns of the frame of costs."""


def column_of(name: str, columns: Mapping[str, Column]) -> Column:
    """The column of that name; one with nothing but its name where no metric has it."""
    return columns.get(name) or COSTS.get(name) or OtherColumn(name, name)


def arrow(column: Column) -> str:
    """Which way is better."""
    return {"higher": "↑", "lower": "↓"}.get(column.better or "", "")


def scale(column: Column, percent: bool = True) -> float:
    """What a value of the frame is multiplied by to be shown."""
    return 100.0 if column.unit == "%" and percent else 1.0


def after_point(column: Column, percent: bool = True) -> int:
    """Digits after the point."""
    return 3 if column.unit == "%" and not percent else column.digits


def number(value: float, digits: int) -> str:
    """A value with a fixed number of digits, a dash where it is undefined; no negative zero."""
    if math.isnan(value):
        return UNDEFINED
    text = f"{value:,.{digits}f}"
    return text.removeprefix("-") if float(text.replace(",", "")) == 0 else text


def signed(value: float, digits: int) -> str:
    """The same of a difference: with its sign."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and any(digit in "123456789" for digit in text) else text
