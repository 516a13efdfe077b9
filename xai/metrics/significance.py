"""Statistics between runs: what may be called better, and how sure a mean is.

A row of a table is one value per run (seed, data set), the same runs in the same order in every row.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from xai.core.errors import UserError

_ROUNDING = 1e-12
"""Differences that deviate from each other by less than this share of the values are the same difference."""


def paired_t_test(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p-value of the paired t-test that a and b have the same mean.

    Returns:
        In [0, 1]; 1 where a and b are equal run by run. NaN where the test says nothing: fewer than two pairs, a value
        that is not finite, or differences that are all the same but not zero, which leave no spread to judge them by.

    Raises:
        UserError: The rows differ in length.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1:
        raise UserError(f"a paired test of {len(a)} values against {len(b)}; both rows have to hold the same runs")
    if len(x) < 2 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        return math.nan
    difference = x - y
    if not difference.any():
        return 1.0
    if np.ptp(difference) <= _ROUNDING * max(np.abs(x).max(), np.abs(y).max()):
        return math.nan
    return float(stats.ttest_rel(x, y).pvalue)


def best_and_ties(
    rows: Mapping[str, Sequence[float]], larger_is_better: bool, level: float = 0.05
) -> tuple[str | None, set[str]]:
    """The row with the best mean, and all rows not shown to differ from it, itself included.

    As in Table 1 of explainability vectors: the best is underlined, and every row without a significant difference from
    it (paired t-test, p >= level) is bold. Where the test says nothing (a single run) no difference has been shown
    either. Rows that hold NaN are neither best nor tied.

    Args:
        rows: Values of each row, run by run.
        larger_is_better: Whether the metric is to be large.
        level: Significance level, between 0 and 1.

    Returns:
        The name of the best row (the first of equals) and the names of the tied ones; (None, empty) without any row to
        choose from.

    Raises:
        UserError: The rows differ in length, or level is out of range.
    """
    _check_level(level)
    lengths = {len(values) for values in rows.values()}
    if len(lengths) > 1:
        raise UserError(f"rows of {sorted(lengths)} values cannot be compared; all have to hold the same runs")
    usable = {name: values for name, values in rows.items() if len(values) and np.isfinite(values).all()}
    if not usable:
        return None, set()
    means = {name: float(np.mean(values)) for name, values in usable.items()}
    best = max(means, key=lambda name: means[name] if larger_is_better else -means[name])
    ties = {name for name, values in usable.items() if not paired_t_test(values, usable[best]) < level}
    return best, ties | {best}


def mean_and_deviation(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (divisor n - 1); the deviation of one value is NaN, of none both are."""
    data = np.asarray(values, dtype=np.float64)
    mean = float(data.mean()) if len(data) else math.nan
    return mean, float(data.std(ddof=1)) if len(data) > 1 else math.nan


def confidence_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """Student-t interval (low, high) that covers the mean with probability `level`; NaN for fewer than two values.

    Raises:
        UserError: Level is not between 0 and 1.
    """
    _check_level(level)
    mean, deviation = mean_and_deviation(values)
    if len(values) < 2:
        return math.nan, math.nan
    half = float(stats.t.ppf((1 + level) / 2, df=len(values) - 1)) * deviation / math.sqrt(len(values))
    return mean - half, mean + half


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise UserError(f"level is {level}; it has to be between 0 and 1, as 0.05 of a test or 0.95 of an interval")
