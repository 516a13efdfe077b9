"""Places instead of values: which explainer is first, image by image, by each metric."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from xai.metrics.registry import Column
from xai.study.columns import column_of
from xai.study.statistics import WHOLE

PLACE = Column(
    "mean_place",
    "Mean place, %",
    "Mean over the metrics of the place by each of them, 0 for the first of all rows and 100 for the last.",
    "lower",
    digits=0,
)
_RUN = ("model", "data", "source", "split", "seed")


def as_ranks(frame: pd.DataFrame, columns: Mapping[str, Column]) -> pd.DataFrame:
    """A frame of scores whose values are ranks: of the rows that a metric has on an image, 1 is the best.

    Equal ones share their mean rank. The mean over images of these ranks, with its interval, is what Friedman's test
    compares. A line for each row says its mean place over all metrics (`PLACE`); rows come in that order. Metrics of
    which neither end is better are left out.
    """
    known = {name: column_of(str(name), columns) for name in frame["metric"].unique()}
    lines = frame[frame["metric"].map(lambda name: known[name].better is not None) & frame["value"].notna()]
    # Where there is no source it is the same for all of them.
    lines = lines.assign(source=lines["source"].astype(object).where(lines["source"].notna(), ""))
    upwards = lines["metric"].map(lambda name: known[name].better == "higher")
    signed = lines["value"].where(~upwards, -lines["value"])
    keys = [*(name for name in (*_RUN, "case") if name in lines), "metric", "image"]
    groups = signed.groupby([lines[key] for key in keys], dropna=False)
    ranks, rows = groups.rank(), groups.transform("count")
    found = lines.assign(value=ranks, chance=np.nan)
    share = found.assign(value=(100 * (ranks - 1) / (rows - 1)).where(rows > 1))
    own = ["explainer", *(name for name in _RUN if name in lines)]
    by_metric = share.groupby([*own, "metric"], dropna=False, sort=False)["value"].mean()
    places = by_metric.groupby(level=own, dropna=False, sort=False).mean().rename("value").reset_index()
    first = found.drop_duplicates(own).drop(columns=["value", "metric", "image"])
    means = first.merge(places, on=own).assign(metric=PLACE.name, image=WHOLE)
    order = means.groupby("explainer", sort=False)["value"].mean().sort_values(kind="stable")
    joined = pd.concat([found, means], ignore_index=True)
    joined["source"] = joined["source"].replace("", None)
    return joined.sort_values("explainer", key=lambda names: names.map(order), kind="stable", ignore_index=True)


def of_ranks(columns: Sequence[Column]) -> list[Column]:
    """The same columns as they are where values are ranks; those of which neither end is better are left out."""
    shown = [each for each in columns if each.better is not None]
    return [PLACE, *(replace(each, better="lower", unit="", digits=1, chance=None, quadratic=False) for each in shown)]
