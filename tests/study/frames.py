"""Made-up frames: a few rows, metrics, seeds and images, with values that are given or drawn."""

import numpy as np
import pandas as pd

from xai.metrics.registry import Column
from xai.study.statistics import difference, wide

KINDS = {"ours": "trained", "rise": "post-hoc", "random": "control", "grad_cam": "post-hoc"}
COLUMNS = {
    "srg": Column("srg", "SRG", "Symmetric relevance gain.", "higher", "%", digits=1, chance=0.0, control="random"),
    "mif": Column("mif", "MIF", "Most influential first.", "lower", "%", digits=1),
    "mcc": Column("mcc", "MCC", "Matthews correlation.", "higher", chance=0.0),
    "e_rmse": Column("e_rmse", "E-RMSE", "Distance to the reference.", "lower", quadratic=True),
    "time_of_day": Column("time_of_day", "Time of day", "", None),
}


def lines(explainer, metric, values, seed=0, images=None, **changes):
    """A line for each image; one number is a value of all images together."""
    whole = np.isscalar(values)
    values = np.atleast_1d(np.asarray(values, dtype=np.float64))
    images = [-1] if whole else range(len(values)) if images is None else images
    common = {
        "case": "main",
        "explainer": explainer,
        "label": explainer.upper(),
        "kind": KINDS.get(explainer, "post-hoc"),
        "metric": metric,
        "model": "vit_tiny",
        "data": "cluttered",
        "source": None,
        "seed": seed,
        "split": "test",
    }
    return pd.DataFrame({"image": list(images), "value": values}).assign(**(common | changes))


def frame(*parts):
    return pd.concat(parts, ignore_index=True)


def drawn(means, metric="srg", seeds=3, images=40, deviation=0.05, start=0, **changes):
    """Rows whose values are drawn around a mean of their own, the same images in every seed."""
    generator = np.random.default_rng(start)
    return frame(
        *(
            lines(row, metric, generator.normal(mean, deviation, images), seed, **changes)
            for row, mean in means.items()
            for seed in range(seeds)
        )
    )


def paired(given, metric, a, b, than=None, quadratic=False):
    """What row `a` has more of a metric than row `b` has of it, or of the metric `than`; None where no run has both."""
    mine, theirs = wide(given, metric), wide(given, than or metric)
    if a not in mine or b not in theirs:
        return None
    return difference(*mine[a].align(theirs[b], join="inner"), quadratic=quadratic)
