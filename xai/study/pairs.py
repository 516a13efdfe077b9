"""All ordered pairs of data sets, source and target: what goes together over them, and in how many something holds.

Pairs share data sets, so that they are no independent draws: what a correlation over them is worth is asked of a
permutation of the sets (Mantel 1967), beside the p-value that papers give.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Annotated, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field
from scipy import stats

from xai.core.errors import UserError
from xai.metrics.registry import Column
from xai.study.columns import column_of
from xai.study.statistics import LEVEL, MINIMUM_SEEDS, run_means, t_interval

_MOST_ORDERS = 5040
"""Orders of the sets that a permutation test tries: all of up to seven sets, else so many drawn at random."""
_FEWEST_ORDERS = round(1 / LEVEL)
"""With fewer no p-value could be below the level."""
_ONE = 1 - 1e-12
"""Fisher's z of a correlation of 1 is infinite."""


@dataclass(frozen=True)
class Quantity:
    """One number of each pair: a metric of a row, less that of another where one is named; `label` is for figures."""

    metric: str = ""
    row: str = "proposed"
    less: str = ""
    label: str = ""


@dataclass(frozen=True)
class Relation:
    """Two numbers of each pair are claimed to go together: x, which is known beforehand, tells y.

    `paper` says where in the paper; `sign` is that of the correlation: 1, both grow together, or -1.
    """

    x: Quantity
    y: Quantity
    paper: str
    sign: Literal[1, -1]


@dataclass(frozen=True)
class Condition:
    """A metric of a row, divided by that of `relative_to`, lies `below` one number and is at `least` another."""

    metric: str
    row: str
    relative_to: str
    below: float | None = None
    least: float | None = None


@dataclass(frozen=True)
class Share:
    """All of some conditions are claimed to hold in more than the share `of` the pairs; `paper` says where."""

    text: str
    conditions: Annotated[list[Condition], Field(min_length=1)]
    paper: str = ""
    of: float = 0.5


@dataclass(frozen=True)
class Choice:
    """Of the sources of a target, the one that is best by something known beforehand is claimed to be a good choice.

    It is the one with the `lowest` of `by`, else the highest, and is to be lower in `of` than the mean over all sources
    of the target; `paper` says where in the paper.
    """

    text: str
    by: Quantity
    of: Quantity
    lowest: bool
    paper: str = ""


@dataclass(frozen=True)
class Correlation:
    """Pearson's r over n pairs; its p-value as of independent pairs, and by permuting the sets (NaN: too few)."""

    r: float
    p: float
    permuted: float
    n: int


def of_pairs(frame: pd.DataFrame, columns: Mapping[str, Column]) -> pd.DataFrame:
    """A line for each pair and seed, index (source, data, seed), and a column for each (metric, row)."""
    lines = frame[frame["source"].notna() & (frame["source"] != frame["data"])]
    if lines.empty:
        raise UserError("no pair of two data sets was measured: give several as data@source and as data")
    quadratic = [name for name in lines["metric"].unique() if column_of(name, columns).quadratic]
    means = run_means(lines, quadratic=quadratic)
    return means.set_index(["source", "data", "seed", "metric", "explainer"])["value"].unstack(["metric", "explainer"])


def quantity(pairs: pd.DataFrame, wanted: Quantity) -> "pd.Series[float]":
    """One number of each pair and seed; NaN where it was not measured."""
    values = [
        pairs[wanted.metric, row] if (wanted.metric, row) in pairs else pd.Series(math.nan, index=pairs.index)
        for row in filter(None, (wanted.row, wanted.less))
    ]
    return values[0] if len(values) == 1 else values[0] - values[1]


def correlation(x: "pd.Series[float]", y: "pd.Series[float]") -> Correlation:
    """Of two numbers of each pair, index (source, data), without NaN; NaN where fewer than three pairs have both."""
    both = pd.DataFrame({"x": x, "y": y}).dropna()
    if len(both) < 3 or both["x"].nunique() < 2 or both["y"].nunique() < 2:
        return Correlation(math.nan, math.nan, math.nan, len(both))
    found = stats.pearsonr(both["x"], both["y"])
    return Correlation(float(found.statistic), float(found.pvalue), _permuted(both), len(both))


def _permuted(both: pd.DataFrame) -> float:
    """Share of the orders of the sets, the present one among them, in which |r| is as large.

    Of orders that leave each measured pair a measured one; NaN where these are too few to tell anything by.
    """
    sets = sorted({*both.index.get_level_values(0), *both.index.get_level_values(1)})
    place = {name: number for number, name in enumerate(sets)}
    at = np.array([[place[source], place[data]] for source, data in both.index])
    x = np.full((len(sets), len(sets)), math.nan)
    x[at[:, 0], at[:, 1]] = both["x"]
    moved = [x[order[at[:, 0]], order[at[:, 1]]] for order in _orders(len(sets))]
    sizes = [abs(float(np.corrcoef(each, both["y"])[0, 1])) for each in moved if np.isfinite(each).all()]
    return float(np.mean(np.array(sizes) >= sizes[0] - 1e-12)) if len(sizes) >= _FEWEST_ORDERS else math.nan


def _orders(count: int) -> list[NDArray[np.int64]]:
    if math.factorial(count) <= _MOST_ORDERS:
        return [np.array(order) for order in permutations(range(count))]
    drawn = np.random.default_rng(0)
    return [np.arange(count), *(drawn.permutation(count) for _ in range(_MOST_ORDERS - 1))]


def judge_relation(pairs: pd.DataFrame, relation: Relation, columns: Mapping[str, Column]) -> dict[str, Any]:
    """A line of the table of verdicts: the mean over seeds of each seed's own r and its interval, by Fisher's z.

    It holds where every seed, of at least three, and the interval have the sign and the permutation of the sets gives
    p < .05. The p-values are those of r of the means over seeds, which have less noise and so a larger r: it is said
    beside them.
    """
    x, y = (quantity(pairs, each) for each in (relation.x, relation.y))
    labels = [each.label or column_of(each.metric, columns).label for each in (relation.x, relation.y)]
    found = correlation(*(each.groupby(level=["source", "data"]).mean() for each in (x, y)))
    each_seed = [correlation(*(each.xs(seed, level="seed") for each in (x, y))).r for seed in x.index.unique("seed")]
    seeds = [r for r in each_seed if math.isfinite(r)]
    held = [relation.sign * r > 0 for r in seeds]
    told = f"{labels[0][:1].upper()}{labels[0][1:]}"
    permuted, why = f"{found.permuted:.2g}", "the sets in another order do as well" * (found.permuted >= LEVEL)
    if math.isnan(found.permuted):
        permuted, why = "–", "the sets have too few orders to permute"
    z = [math.atanh(min(max(r, -_ONE), _ONE)) for r in seeds]
    low, high = t_interval(z)
    of_means = f"of the means over seeds r = {found.r:.2f}, p = {found.p:.1g} as of independent pairs"
    return _line(
        f"{told} tells {labels[1]} ({'+' if relation.sign > 0 else '−'})",
        relation.paper,
        f"r over {found.n} pairs; {of_means}, {permuted} by permuting the sets",
        seeds,
        held,
        value=math.tanh(float(np.mean(z))) if z else math.nan,
        p=found.permuted,
        why=why,
        interval=(math.tanh(low), math.tanh(high)),
    )


def judge_share(pairs: pd.DataFrame, share: Share) -> dict[str, Any]:
    """A line of the table of verdicts: the share of the pairs, of those that define all ratios, in which all hold."""
    ratios = pd.DataFrame(index=pairs.index)
    for number, each in enumerate(share.conditions):
        mine, theirs = (quantity(pairs, Quantity(each.metric, row)) for row in (each.row, each.relative_to))
        ratios[number] = mine / theirs
    ratios = ratios.dropna()
    if not len(ratios):
        return _line(share.text, share.paper, "share of the pairs", [], [])
    holds = pd.Series(True, index=ratios.index)
    for number, each in enumerate(share.conditions):
        if each.below is not None:
            holds &= ratios[number] < each.below
        if each.least is not None:
            holds &= ratios[number] >= each.least
    seeds = holds.groupby(level="seed").mean()
    count = len(holds.groupby(level=["source", "data"]).size())
    low, high = t_interval(list(seeds))
    held = [value > share.of for value in seeds]
    interval = (max(low, 0.0), min(high, 1.0))
    of = f"share of {count} pairs"
    return _line(share.text, share.paper, of, list(seeds), held, interval=interval, threshold=share.of)


def judge_choice(pairs: pd.DataFrame, choice: Choice) -> dict[str, Any]:
    """A line of the table of verdicts: what the chosen source gives less the mean of all sources, mean over targets."""
    both = pd.DataFrame({"by": quantity(pairs, choice.by), "of": quantity(pairs, choice.of)}).dropna()
    if both.empty:
        return _line(choice.text, choice.paper, "chosen less mean", [], [])
    gained = []
    for (seed, _), of_target in both.groupby(level=["seed", "data"]):
        by, of = (of_target[name].to_numpy(dtype=np.float64) for name in ("by", "of"))
        gained.append((seed, of[by.argmin() if choice.lowest else by.argmax()] - of.mean()))
    seeds = pd.DataFrame(gained, columns=["seed", "gained"]).groupby("seed")["gained"].mean()
    what = f"chosen less mean, over {both.index.unique('data').size} targets"
    return _line(choice.text, choice.paper, what, list(seeds), [value < 0 for value in seeds])


def _line(
    text: str,
    paper: str,
    metric: str,
    seeds: Sequence[float],
    held: Sequence[bool],
    *,
    value: float | None = None,
    p: float = math.nan,
    why: str = "",
    interval: tuple[float, float] | None = None,
    threshold: float = 0.0,
) -> dict[str, Any]:
    """A line of the table of verdicts, by the values of some seeds; `value` and `interval` are of them unless given."""
    mean = float(np.mean(seeds)) if seeds else math.nan
    found, (low, high) = mean if value is None else value, interval or t_interval(seeds)
    verdict = "undecided"
    if not math.isfinite(found):
        verdict, why = "not measured", "no run has it"
    elif len(seeds) < MINIMUM_SEEDS:
        why = f"{len(seeds)} seed{'s' * (len(seeds) != 1)}, of at least {MINIMUM_SEEDS}"
    elif len(set(held)) > 1:
        why = "the seeds disagree"
    elif not why and low <= threshold <= high:
        why = f"the interval holds {threshold:g}"
    elif not why:
        verdict = "holds" if held[0] else "does not hold"
    said = {"claim": text, "paper": paper, "metric": metric, "difference": found, "low": low, "high": high}
    return said | {"seeds": len(seeds), "p": p, "verdict": verdict, "why": why}
