"""The registry of metrics: what each of them asks, the columns it fills, and the one place that computes it.

A metric is a pure function of what is measured, with `@metric` above it. It fills one column or several that share
their passes, and gives one float64 value an image, NaN where the image has none.
"""

import importlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from xai.core import plugins
from xai.core.errors import UserError, check_finite
from xai.core.settings import build, settings, unknown
from xai.metrics.measured import Measured as Measured
from xai.metrics.measured import TargetGame as TargetGame
from xai.metrics.measured import given as given
from xai.metrics.variations import Variation

_MODULES = (
    "xai.metrics.removal",
    "xai.metrics.perturbation",
    "xai.metrics.held_out",
    "xai.metrics.road",
    "xai.metrics.faithfulness",
    "xai.metrics.robustness",
    "xai.metrics.complexity",
    "xai.metrics.localisation",
    "xai.metrics.agreement",
    "xai.metrics.classification",
    "xai.papers.salvage.likelihood",
    "xai.papers.ranking.mark",
)
"""What is imported at the first look-up, in the order of the columns."""

NEEDS = {
    "maps": "the row makes no maps",
    "game": "the classifier cannot answer with patches removed",
    "network": "no classifier can be asked about changed images",
    "judge": "there is no second classifier to ask: give one as judge=FILE",
    "again": "nobody knows the network that the maps are made by, which would have to be another",
    "labels": "the images have no labels",
    "logits": "the row makes maps and no predictions",
    "regions": "the data set has no regions of objects",
    "cells": "the data set does not place several objects on an image",
    "reference": "there are no reference maps",
    "second": "there are no maps of a second class",
    "reference_second": "there are no reference maps of a second class",
}
"""What a metric may need, and what is said where a case or a row has it not."""

_TENSORS = {
    "maps": "maps",
    "second": "maps of the second class",
    "reference": "reference maps",
    "reference_second": "reference maps of the second class",
    "logits": "logits",
    "classifier_logits": "classifier's logits",
}
"""What may hold NaN or infinity and must not."""


Chance = Callable[[Measured], Tensor | float]
"""What maps or guesses that know nothing of the images would score, [B], or one number for all."""


@dataclass(frozen=True)
class Column:
    """One number an image.

    Args:
        name: In frames, tables and settings.
        label: In a table.
        about: What it asks, in a sentence.
        better: `higher`, `lower`, or None where neither is.
        unit: `%` for a share that is read in percent (its value stays between 0 and 1), else empty.
        short: Read by nothing any more; plug-ins may still give it.
        digits: Digits after the point.
        needs: What it needs beyond what its metric needs.
        chance: What knowing nothing scores, where that is the same everywhere.
        chance_from: What computes it, where it depends on what is measured; a function with a name, for columns go to
            other processes.
        control: The control row to read it against, where one is telling.
        quadratic: Whether the average over images is the root of the mean square, as of an RMSE.
    """

    name: str
    label: str
    about: str
    better: str | None = "higher"
    unit: str = ""
    short: str = ""
    digits: int = 3
    needs: frozenset[str] = frozenset()
    chance: float | None = None
    chance_from: Chance | None = None
    control: str | None = None
    quadratic: bool = False

    def chance_of(self, block: Measured) -> Tensor | None:
        """Chance levels [B] of these images, float64; None where the column has none."""
        level = self.chance if self.chance_from is None else self.chance_from(block)
        if level is None or isinstance(level, Tensor):
            return None if level is None else level.double()
        return torch.full((len(block.rows),), level, dtype=torch.float64)

    def average(self, values: Tensor) -> Tensor:
        """The average of values [N] over the images that have one, a scalar; NaN where none has."""
        return values.square().nanmean().sqrt() if self.quadratic else values.nanmean()


def percent(name: str, label: str, about: str, **more: Any) -> Column:
    """A column of shares that are read in percent."""
    return Column(name, label, about, **{"unit": "%", "digits": 1, **more})


@settings
class NoParams:
    """Of a metric that has nothing to set."""


Compute = Callable[[Measured, Any], dict[str, Tensor]]


@dataclass(frozen=True)
class Metric:
    """An entry of the registry.

    Args:
        name: By which settings and frames know it.
        compute: The function: what is measured and the settings, to values by column and curve.
        columns_of: The columns it fills with given settings.
        curves_of: The names of its curves with given settings.
        needs: What it needs, of `NEEDS`.
        params: The class of its settings; every field has a default.
        level: `patch` where it takes maps of patches only, else `any`.
        whole: Whether it is asked once about all images of a split, and not block by block. Its values are [N], or [1]
            where there is one for them all.
        passes: From its settings and M patches, how many changed images the classifier is asked about for one image and
            row, at most; None where it is none.
        again: From its settings, in which other cases it wants the row's maps as well.
        revision: Counted up where the function's answers change, so that kept scores are not taken for them.
    """

    name: str
    compute: Compute
    columns_of: Callable[[Any], tuple[Column, ...]]
    curves_of: Callable[[Any], tuple[str, ...]]
    needs: frozenset[str]
    params: type
    level: str
    whole: bool
    passes: Callable[[Any, int], float] | None = None
    again: Callable[[Any], Sequence[Variation]] | None = None
    revision: int = 0

    def settings(self, values: Mapping[str, Any] | None = None, above: str = "") -> Any:
        """Its settings from plain values, which stand in `<above>metric.<name>`; a UserError names what is not one."""
        return build(self.params, values or {}, f"{above}metric.{self.name}")


_ENTRIES: dict[str, Metric] = {}
_filled = False


def metric(
    name: str,
    *,
    columns: Iterable[Column] | Callable[[Any], Iterable[Column]],
    needs: Iterable[str],
    params: type = NoParams,
    curves: Iterable[str] | Callable[[Any], Iterable[str]] = (),
    level: str = "any",
    whole: bool = False,
    passes: Callable[[Any, int], float] | None = None,
    again: Callable[[Any], Sequence[Variation]] | None = None,
    revision: int = 0,
) -> Callable[[Compute], Compute]:
    """Register the function below as a metric; see `Metric`. Columns and curves may depend on the settings.

    With `again`, a metric has maps of variations of the case in `Measured.again`, which it need not say it needs.

    Raises:
        ValueError: The name or a column is taken, or a need is not one of `NEEDS`.
    """
    _fill()

    def add(function: Compute) -> Compute:
        asked = frozenset((*needs, *(["again"] if again else [])))
        entry = Metric(name, function, _of(columns), _of(curves), asked, params, level, whole, passes, again, revision)
        filled = entry.columns_of(params())
        asked = entry.needs.union(*(column.needs for column in filled))
        if not asked <= set(NEEDS):
            raise ValueError(f"metric {name} needs {sorted(asked - set(NEEDS))}: known are {', '.join(NEEDS)}")
        others = dict(_ENTRIES)
        if name in others and others[name].compute.__module__ == function.__module__ == "__main__":
            del others[name]  # a cell of a notebook is run again
        taken = {column.name for other in others.values() for column in other.columns_of(other.params())}
        clash = sorted(taken & {column.name for column in filled})
        if name in others or clash:
            raise ValueError(f"metric {name} is registered already{f', and so is {clash[0]}' if clash else ''}")
        _ENTRIES[name] = entry
        plugins.registered()
        return function

    return add


def names() -> list[str]:
    """All metrics: the project's own by family, whichever was imported first, and then those of plugins."""
    _fill()
    plugins.load()
    order = {module: place for place, module in enumerate(_MODULES)}
    return sorted(_ENTRIES, key=lambda name: order.get(_ENTRIES[name].compute.__module__, len(order)))


def entry(name: str) -> Metric:
    """Look a metric up by name; an unknown name is a `UserError` that suggests the nearest."""
    _fill()
    plugins.load()
    if name not in _ENTRIES:
        raise UserError(unknown(f"metric={name}", name, _ENTRIES, "metric", "choose from"))
    return _ENTRIES[name]


def columns() -> dict[str, Column]:
    """The columns of all metrics with their default settings, by name."""
    return {name: column for name, (column, _) in _by_column().items()}


def ranked_by(column: str, asked: str) -> Column:
    """A column that is better one way; UserError, which begins as it was `asked` for: it is not, or there is none."""
    known = columns()
    if column not in known:
        raise UserError(unknown(f"{asked}{column}", column, known, "column", "choose from"))
    if known[column].better is None:
        raise UserError(f"{asked}{column} is better neither way: name a column that is")
    return known[column]


def families() -> dict[str, str]:
    """The names of the metrics that fill them, by the columns' names, with default settings."""
    return {name: each.name for name, (_, each) in _by_column().items()}


def added() -> list[str]:
    """The columns of metrics that did not come with the framework, with default settings."""
    return [name for name, (_, each) in _by_column().items() if each.compute.__module__.partition(".")[0] != "xai"]


def _by_column() -> dict[str, tuple[Column, Metric]]:
    return {column.name: (column, each) for each in map(entry, names()) for column in each.columns_of(each.params())}


def metric_of(column: str, values: Mapping[str, Any] | None = None) -> Metric:
    """The metric that fills a column, with its default settings or with the values given.

    Raises:
        UserError: There is none; the nearest name is suggested.
    """
    for each in map(entry, names()):
        settable = set(values or {}) <= set(each.params.__annotations__)
        for chosen in [each.params(), *([each.settings(values)] if settable and values else [])]:
            if any(column == own.name for own in each.columns_of(chosen)):
                return each
    raise UserError(unknown(f"column {column}", column, columns(), "column", "choose from"))


def missing(what: Metric | Column, available: Collection[str], level: str = "patch") -> str | None:
    """Why a metric, or a single column of it, has to be left out, in one line; None where it need not be.

    Args:
        what: The metric; or the column, of a metric that is not left out.
        available: What the case and the row have, of `NEEDS`.
        level: Whether the row's maps are of patches or of pixels.
    """
    for need, reason in NEEDS.items():
        if need in what.needs and need not in available:
            return f"{what.name} is left out: {reason}"
    if isinstance(what, Metric) and what.level == "patch" and level == "pixel":
        return f"{what.name} is left out: the maps are of pixels, and it takes maps of patches"
    return None


def compute(entry: Metric, block: Measured, params: Any = None) -> dict[str, Tensor]:
    """The values of a metric, the one way to them: no map and no logit that is not finite gets any value.

    Args:
        entry: The metric.
        block: What is measured.
        params: Its settings; None takes the defaults.

    Returns:
        Float64 on the CPU: [B] by column ([1] where a metric of the whole split gives one value), [B, K] by curve.
        Columns that need more than `block` has are not in it.

    Raises:
        UserError: Something it needs is not there; maps or logits hold NaN or infinity, or do not fit what they are
            measured against.
        ValueError: The metric gives what it has not declared, or not what it has.
    """
    settings = entry.params() if params is None else params
    # Of what it does not need nothing is asked, which may be images to read, or networks.
    reason = missing(entry, [need for need in entry.needs if need == "game" or getattr(block, need) is not None])
    if reason:
        raise UserError(reason)
    for name, said in _TENSORS.items():
        if (given := getattr(block, name)) is not None:
            check_finite(given, f"the {said}", "all values must be finite", block.rows)
    for number, maps in enumerate(block.again or ()):
        check_finite(maps, f"the maps of variation {number + 1}", "all values must be finite", block.rows)
    values = {name: value.detach().double().cpu() for name, value in entry.compute(block, settings).items()}
    known = {column.name for column in entry.columns_of(settings)}
    owed = {column.name for column in entry.columns_of(settings) if not column.needs}
    if not owed <= set(values) <= known.union(entry.curves_of(settings)):
        raise ValueError(f"metric {entry.name} gives {sorted(values)} and has declared {sorted(known)}")
    for name, value in values.items():
        if name in known and value.shape != (len(block.rows),) and not (entry.whole and value.shape == (1,)):
            raise ValueError(f"metric {entry.name} gives {list(value.shape)} as {name} of {len(block.rows)} images")
    return values


def _of(what: Any) -> Callable[[Any], tuple[Any, ...]]:
    if callable(what):
        return lambda params: tuple(what(params))
    fixed = tuple(what)
    return lambda params: fixed


def _fill() -> None:
    """Import the families, once. A plugin's metrics come after them, whichever is imported first."""
    global _filled
    if not _filled:
        _filled = True
        for module in _MODULES:
            importlib.import_module(module)
