"""Statistics of a frame: means with intervals, paired differences, Holm's correction, normalised values.

A frame has one line for explainer x metric x image : case, explainer,
label, kind, metric, model, data, source, seed, split, image, value, and a column for each parameter. A run is
what is repeated: a seed, and where tables pool them a data set or a source too.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from xai.core.errors import UserError

Values = NDArray[np.float64]

WHOLE = -1
"""The image of a value that is of all images together."""
MINIMUM_SEEDS = 3
"""Fewer seeds than this decide no claim."""
LEVEL = 0.05
"""Of tests; intervals cover 1 - LEVEL."""

_RUN = ["model", "data", "source", "split", "seed"]
_UPPER = 1 - LEVEL / 2
"""The share of a distribution below the upper end of an interval."""
_RESAMPLES = 1000
_ROUNDING = 1e-12


def t_interval(values: Sequence[float] | Values) -> tuple[float, float]:
    """Student-t interval (low, high) of the mean; NaN for fewer than two values."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2:
        return math.nan, math.nan
    # Not scipy's own interval, which is NaN where all values are the same.
    half = float(stats.t.ppf(_UPPER, len(data) - 1)) * data.std(ddof=1) / math.sqrt(len(data))
    return float(data.mean() - half), float(data.mean() + half)


def bootstrap(values: Sequence[float] | Values) -> tuple[float, float]:
    """Percentile bootstrap interval (low, high) of the mean, the same for the same values; NaN for fewer than two."""
    data = np.asarray(values, dtype=np.float64)
    if len(data) < 2:
        return math.nan, math.nan
    low, high = np.quantile(_resampled(len(data)) @ data / len(data), [1 - _UPPER, _UPPER])
    return float(low), float(high)


@lru_cache(maxsize=4)
def _resampled(n: int) -> Values:
    """How often each resample [R, n] holds each value."""
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=_RESAMPLES)
    return drawn.astype(np.float64)


def holm(p: Sequence[float]) -> list[float]:
    """P-values corrected for how many they are (Holm 1979); NaN stays NaN and is not counted."""
    values = np.asarray(p, dtype=np.float64)
    corrected = values.copy()
    tested = np.flatnonzero(np.isfinite(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    factors = np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(factors * values[order]), 1)
    return [float(value) for value in corrected]


def t_test(differences: Values, scale: float = 1.0) -> float:
    """Two-sided p-value that differences have the mean 0.

    Args:
        differences: Finite values.
        scale: Size of what was subtracted; what is less than rounding of it is taken as 0.

    Returns:
        1 where all are 0, 0 where all are the same but not 0; NaN where fewer than two leave nothing to judge by.
    """
    if len(differences) < 2:
        return math.nan
    if np.abs(differences).max() <= _ROUNDING * scale:
        return 1.0
    if np.ptp(differences) <= _ROUNDING * scale:
        return 0.0
    return float(stats.ttest_1samp(differences, 0.0).pvalue)


def run_means(frame: pd.DataFrame, quadratic: Collection[str] = ()) -> pd.DataFrame:
    """One line for explainer x metric x run: `value`, the mean over images that are not NaN, and `n_images`.

    Args:
        frame: Of one split.
        quadratic: Metrics whose mean over images is the root of the mean square, as of an RMSE.

    Raises:
        UserError: Two lines of one explainer, metric, run and image, which a mean would mix; or two splits.
    """
    return _runs(frame, quadratic).drop(columns="values")


def over_seeds(frame: pd.DataFrame, quadratic: Collection[str] = ()) -> pd.DataFrame:
    """A frame with one line for explainer x metric x model x data x source: the mean over seeds of the runs' means.

    Where several data sets are pooled, each then counts once, however many seeds it was measured with.
    """
    runs = run_means(frame, quadratic=quadratic)
    keys = ["explainer", "metric", *(key for key in _RUN if key != "seed")]
    groups = runs.groupby(keys, dropna=False, sort=False)
    means = groups.agg(label=("label", "first"), kind=("kind", "first"), value=("value", "mean")).reset_index()
    return means.assign(case="main", seed=0, image=WHOLE)


def summary(frame: pd.DataFrame, pool: Sequence[str] = (), quadratic: Collection[str] = ()) -> pd.DataFrame:
    """Mean over images, then over runs, with an interval.

    Args:
        frame: Of one split.
        pool: What counts as runs beside the seed: `data`, `source` or `model`.
        quadratic: Metrics whose mean over images is the root of the mean square.

    Returns:
        One line for explainer x metric (x model, data, source): `mean`; `low` and `high`, by Student's t over
        runs where there are two, else by bootstrap over the images of the one run; `how`: "seeds", "images" or "" where
        there is no interval; `spread`, the sample deviation of what `how` names; `n_images` of a run (0: one value for
        the whole split); `runs` and `seeds` that define the metric.
    """
    runs = _runs(frame, quadratic)
    keys = [key for key in ("explainer", "metric", "model", "data", "source", "split") if key not in pool]
    lines = []
    for key, group in runs.groupby(keys, dropna=False, sort=False):
        defined = group[group["value"].notna()]
        means = defined["value"].to_numpy()
        single = defined["values"].iloc[0] if len(defined) == 1 else np.empty(0)
        of, how = (means, "seeds") if len(means) > 1 else (single, "images" if len(single) > 1 else "")
        if how == "seeds":
            low, high = t_interval(means)
        elif group["metric"].iloc[0] in quadratic:
            low, high = np.sqrt(bootstrap(single**2))
        else:
            low, high = bootstrap(single)
        lines.append(
            dict(zip(keys, key, strict=True))
            | {"label": group["label"].iloc[0], "kind": group["kind"].iloc[0]}
            | {"mean": means.mean() if len(means) else math.nan, "low": low, "high": high}
            | {"spread": of.std(ddof=1) if how else math.nan, "how": how, "n_images": int(group["n_images"].max())}
            | {"runs": len(defined), "seeds": defined["seed"].nunique()}
        )
    return pd.DataFrame(lines)


def normalised(frame: pd.DataFrame, one: str, zero: str | None = None, quadratic: Collection[str] = ()) -> pd.DataFrame:
    """Values as the share of the way from the row `zero` (None: from 0) to the row `one`, in each run by itself.

    Returns:
        A frame with one line for explainer x metric x run; NaN where the two rows are equal or not measured.
    """
    runs = _each_source(run_means(frame, quadratic=quadratic))
    keys = ["metric", *_RUN]
    table = runs.set_index([*keys, "explainer"])["value"].unstack("explainer")
    for row in (one, *([] if zero is None else [zero])):
        if row not in table:
            raise UserError(f"normalised by {row!r}, no row of the frame; its rows are {', '.join(table.columns)}")
    start = table[zero] if zero is not None else 0.0
    way = (table[one] - start).replace(0.0, math.nan)
    shares = table.sub(start, axis=0).div(way, axis=0).melt(ignore_index=False, value_name="share").reset_index()
    found = runs.merge(shares, on=[*keys, "explainer"], how="left")
    found["source"] = found["source"].replace("", None)
    return found.drop(columns=["value", "n_images"]).rename(columns={"share": "value"}).assign(case="", image=WHOLE)


def wide(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """One metric with a line for each run and image, and a column for each explainer; NaN where one has none.

    A row without a source is the same for every source, and stands beside each.
    """
    lines = frame[frame["metric"] == metric]
    _refuse_mixtures(lines, [*_RUN, "explainer", "metric"])
    lines = _each_source(lines)
    return lines.set_index([*_RUN, "image", "explainer"])["value"].unstack("explainer")


@dataclass(frozen=True)
class Difference:
    """What one row has more than another, paired over images within runs, and over runs.

    `by_run` has the mean over the images that both rows define, run by run (of an RMSE: the difference of roots of mean
    squares); `over_runs` is the interval of their mean, by Student's t, and `p_runs` that of the paired t-test. Of
    single `images` (0 where values are of all together; each of a data set counts once, with its mean over the runs
    that have it) `over_images` has mean, low and high, and `p_images` the same test. What says nothing is NaN.
    """

    by_run: tuple[float, ...]
    seeds: int
    over_runs: tuple[float, float]
    p_runs: float
    images: int
    over_images: tuple[float, float, float]
    p_images: float
    quadratic: bool = False

    @property
    def mean(self) -> float:
        """What `interval` is of: the mean over runs; for a quadratic metric that over images where there are any."""
        if self.quadratic and self.images:
            return self.over_images[0]
        return math.fsum(self.by_run) / len(self.by_run)

    @property
    def interval(self) -> tuple[float, float]:
        """Over images where there are values of single images, else over runs."""
        return self.over_images[1:] if self.images else self.over_runs

    @property
    def p(self) -> float:
        """Of the test that belongs to `interval`."""
        return self.p_images if self.images else self.p_runs


def difference(
    a: "pd.Series[float]", b: "pd.Series[float]", null: float = 0.0, quadratic: bool = False
) -> Difference | None:
    """Paired difference a - b of two columns of `wide`; None where no run has both.

    Args:
        a: Values with the index of `wide`.
        b: The same.
        null: The difference that is tested against; `by_run` and the intervals are not changed by it.
        quadratic: Whether `by_run` is of roots of mean squares; over images it is of the values as they are.
    """
    each = a - b
    both = each.notna()
    means = (of_runs(a.where(both), quadratic) - of_runs(b.where(both), quadratic)).dropna()
    if means.empty:
        return None
    by_run = means.to_numpy(dtype=np.float64)
    complete = _in_runs(each, means.index)
    single = complete.loc[complete.index.get_level_values("image") != WHOLE]
    # One of each image of a data set: the mean over the runs that have it.
    images: Values = single.groupby(level=["data", "image"]).mean().dropna().to_numpy(dtype=np.float64)
    scale = float(max(a.abs().max(), b.abs().max()))
    return Difference(
        by_run=tuple(float(value) for value in by_run),
        seeds=means.index.get_level_values("seed").nunique(),
        over_runs=t_interval(by_run),
        p_runs=t_test(by_run - null, scale),
        images=len(images),
        over_images=(float(images.mean()), *t_interval(images)) if len(images) else (math.nan,) * 3,
        p_images=t_test(images - null, scale),
        quadratic=quadratic,
    )


@dataclass(frozen=True)
class Best:
    """The best of some rows, and those not shown to differ from it.

    Attributes:
        name: Of the best; None where no run has all rows, or there is nothing to compare.
        tied: Names of the others that the paired t-test, after Holm's correction, does not tell from it.
        runs: How many runs all rows have.
        over: What the test is over: "runs", "images" (of the one run), or "" where there is none.
    """

    name: str | None = None
    tied: frozenset[str] = frozenset()
    runs: int = 0
    over: str = ""


def best_and_ties(values: pd.DataFrame, better: str, quadratic: bool = False) -> Best:
    """The row with the best mean over the runs that all rows have; rows that are NaN everywhere do not take part.

    Args:
        values: Columns of `wide`.
        better: "higher" or "lower".
        quadratic: Whether the mean over images is the root of the mean square.
    """
    values = values.dropna(axis=1, how="all")
    runs = of_runs(values, quadratic).dropna()
    if values.shape[1] < 2 or runs.empty:
        return Best()
    means = runs.mean()
    best = str(means.idxmax() if better == "higher" else means.idxmin())
    common = _in_runs(values, runs.index)
    others = [str(name) for name in values if name != best]
    found = [difference(common[name], common[best], quadratic=quadratic) for name in others]
    over = "runs" if len(runs) > 1 else "images" if any(each and each.images > 1 for each in found) else ""
    p = holm([math.nan if each is None else each.p_runs if over == "runs" else each.p_images for each in found])
    tied = frozenset(name for name, value in zip(others, p, strict=True) if over and not value < LEVEL)
    return Best(best, tied, len(runs), over)


def of_runs(values: Any, quadratic: bool) -> Any:
    """Means of runs, of a series or a frame with the index of `wide`; NaN left out."""
    return (values**2).groupby(level=_RUN).mean() ** 0.5 if quadratic else values.groupby(level=_RUN).mean()


def _in_runs(values: Any, runs: Any) -> Any:
    """The lines of some runs."""
    return values.loc[values.index.droplevel(["image"]).isin(runs)]


def _runs(frame: pd.DataFrame, quadratic: Collection[str]) -> pd.DataFrame:
    """`run_means` with the values themselves, NaN and those of all images together left out."""
    if frame.empty:
        raise UserError("a frame without a line: measure something first")
    splits = sorted(frame["split"].unique())
    if len(splits) > 1:
        raise UserError(f"values of the splits {' and '.join(splits)} in one mean; give those of one split")
    keys = ["explainer", "metric", *_RUN]
    _refuse_mixtures(frame, keys)
    squared = frame["metric"].isin(list(quadratic))
    lines = frame.assign(value=frame["value"].where(~squared, frame["value"] ** 2))
    groups = lines.groupby(keys, dropna=False, sort=False)
    means = groups.agg(label=("label", "first"), kind=("kind", "first"), value=("value", "mean")).reset_index()
    means["value"] = means["value"].where(~means["metric"].isin(list(quadratic)), means["value"].abs() ** 0.5)
    single = (frame["value"].notna() & (frame["image"] != WHOLE)).to_numpy()
    number, values = groups.ngroup().to_numpy()[single], frame["value"].to_numpy(dtype=np.float64)[single]
    order = np.argsort(number, kind="stable")
    ends = np.searchsorted(number[order], np.arange(1, len(means)))
    means["values"] = pd.Series(np.split(values[order], ends), index=means.index, dtype=object)
    means["n_images"] = means["values"].map(len)
    return means


def _refuse_mixtures(lines: pd.DataFrame, keys: list[str]) -> None:
    twice = lines[lines.duplicated([*keys, "image"], keep=False)]
    if twice.empty:
        return
    first = twice.iloc[0]
    same = twice[(twice[["explainer", "metric", "image"]] == first[["explainer", "metric", "image"]]).all(axis=1)]
    apart = [name for name in (*same.columns,) if name not in (*keys, "image", "value") and same[name].nunique() > 1]
    told = f"which differ in {', '.join(apart)}" if apart else "the same line twice"
    raise UserError(
        f"two values of {first['metric']} for {first['explainer']} on {first['data']}, seed {first['seed']}, {told}: "
        "give those of one, or the mean would mix them"
    )


def _each_source(lines: pd.DataFrame) -> pd.DataFrame:
    """Lines without a source once for each source of their model and data; "" where there is none at all."""
    lines = lines.assign(source=lines["source"].astype(object).where(lines["source"].notna(), ""))
    sources = lines.loc[lines["source"] != "", ["model", "data", "source"]].drop_duplicates()
    if sources.empty:
        return lines
    spread = lines[lines["source"] == ""].drop(columns="source").merge(sources, on=["model", "data"], how="left")
    spread["source"] = spread["source"].where(spread["source"].notna(), "")
    return pd.concat([lines[lines["source"] != ""], spread], ignore_index=True)
