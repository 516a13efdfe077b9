"""How the numbers of a column are shown: unit, digits, which way is better."""

import math
from collections.abc import Mapping

from xai.metrics.registry import Column

UNDEFINED = "–"


_TIME = "Time that one map takes, in milliseconds, several images at once; training is not counted."
_COSTS = (
    Column("passes", "Passes", "Forward passes an image; a backward pass counts as two.", "lower", digits=0),
    Column("milliseconds", "ms an image", _TIME, "lower", "ms", digits=1),
    Column("train_seconds", "Training, s", "Time that training the explainer took.", "lower", "s", digits=1),
)
COSTS = {column.name: column for column in _COSTS}
"""Columns of the frame of costs."""


def column_of(name: str, columns: Mapping[str, Column]) -> Column:
    """The column of that name; one with nothing but its name where no metric has it."""
    return columns.get(name) or COSTS.get(name) or Column(name, name, "", None)


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


def three_digits(value: float) -> str:
    """A value of any size, as of times and counts: three digits, or all that stand before the point."""
    return number(value, 0) if abs(value) >= 100 or math.isnan(value) else f"{value:.3g}"


def signed(value: float, digits: int) -> str:
    """The same of a difference: with its sign."""
    text = number(value, digits)
    return f"+{text}" if value > 0 and any(digit in "123456789" for digit in text) else text


def points(value: float, column: Column) -> str:
    """A difference in a column, as it is shown."""
    return signed(scale(column) * value, after_point(column))
