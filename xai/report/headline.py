"""What a study comes to: sentences whose words follow from the numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from xai.report.figures import Source
from xai.study.columns import number, three_digits
from xai.study.statistics import MINIMUM_SEEDS, Best, of_runs, wide

FEW_IMAGES = 30
"""Fewer are too few to tell explainers apart by anything but a large difference."""
ALIKE = 0.01
"""Two values that differ by less than this share count as about the same."""


def compared(source: Source, metric: str, best: Best) -> list[str]:
    """Which explainer to trust, what it costs, and how far that carries."""
    lines = source.of(metric)
    if best.name is None or lines.empty:
        return [f"No two rows have {source.column(metric).label}, so nothing is said of which to trust."]
    labels = lines.groupby("explainer")["label"].first().to_dict()
    kinds = lines.groupby("explainer")["kind"].first().to_dict()
    means = source.over_runs(metric, lines)
    label = labels[best.name]
    value = f"{source.column(metric).label} ({_valued(source, metric, float(means[best.name]))})"
    tied = [name for name in means.index if name in best.tied and name != best.name]
    controls = [name for name in tied if kinds[name] == "control"]
    if kinds[best.name] == "control":
        first = (
            f"None can be trusted on these numbers: the control {label} has the best {value}, and it explains nothing."
        )
    elif controls:
        named = _list([labels[name] for name in controls])
        first = (
            f"{label} has the best {value}, but it is not shown to be better than the control {named}: trust none yet."
        )
    elif not best.over:
        first = f"{label} has the best {value}; with nothing to test that by, it may be chance."
    elif best.over == "images" and _images(lines) < FEW_IMAGES:
        first = f"{label} has the best {value}, on {_images(lines)} images: too few to say which to trust."
    elif tied:
        first = f"{label} has the best {value}; {_list([labels[name] for name in tied])} cannot be told from it."
    else:
        first = f"Trust {label}: it has the best {value}, and every other row is shown to be worse (over {best.over})."
    explainers = [best.name, *(name for name in tied if kinds[name] != "control")]
    return [first, *_costs(source, explainers, labels), _reach(source, lines)]


def _costs(source: Source, names: Sequence[str], labels: Mapping[Any, Any]) -> list[str]:
    """What the best costs, and the cheapest of those that are as good."""
    if source.costs.empty or "milliseconds" not in source.costs:
        return []
    costs = source.costs.groupby("explainer")[["milliseconds"]].mean()["milliseconds"].dropna()
    known = [name for name in names if name in costs.index]
    if not known or known[0] != names[0]:
        return []
    text = f"A map of {labels[names[0]]} takes {_time(costs[names[0]])}"
    cheapest = min(known, key=lambda name: float(costs[name]))
    if costs[cheapest] < 0.8 * costs[names[0]]:
        ratio = costs[names[0]] / costs[cheapest] if costs[cheapest] > 0 else math.inf
        times = f", {ratio:.0f} times less" if 1.95 <= ratio < math.inf else ""
        text += f"; {labels[cheapest]}, not told from it, takes {_time(costs[cheapest])}{times}"
    trained = (
        source.costs.groupby("explainer")["train_seconds"].mean() if "train_seconds" in source.costs else costs[:0]
    )
    if names[0] in trained and trained[names[0]] > 0:
        text += f"; it was trained for {trained[names[0]]:,.0f} s before"
    return [f"{text}."]


def _reach(source: Source, lines: pd.DataFrame) -> str:
    images, seeds = _images(lines), lines["seed"].nunique()
    data = _list([str(name) for name in lines["data"].unique()])
    text = f"Measured on {images or 'all'} image{'s' * (images != 1)} of {data}, "
    text += "with one seed" if seeds == 1 else f"over {seeds} seeds"
    limits = []
    if 0 < images < FEW_IMAGES:
        limits.append(f"with fewer than {FEW_IMAGES} images only large differences show")
    if seeds < MINIMUM_SEEDS:
        limits.append(f"below {MINIMUM_SEEDS} seeds the spread between trainings is not known")
    return text + (f": {', and '.join(limits)}." if limits else ".")


def transferred(source: Source, doubts: Mapping[str, str], reference: str) -> list[str]:
    """Three sentences on a transfer: what the table shows, what its controls say, and what it does not show.

    Args:
        source: The rows of the table; `proposed` with its lambda2.
        doubts: By control what could be true where it does as well as the method; follows "that".
        reference: What the maps were measured against.
    """
    error, accuracy = _by_run(source, "e_rmse"), _by_run(source, "accuracy")
    limits = _limits(source, error, reference)
    missing = [name for name in ("ft_target", "proposed") if name not in error]
    if missing:
        gap = f"Nothing can be said of the transfer: there is no E-RMSE of {' and of '.join(missing)}."
        return [gap, "Without it the controls have nothing to be compared with.", limits]
    return [_shown(source, error, accuracy), _controls(source, error, doubts), limits]


def _shown(source: Source, error: pd.DataFrame, accuracy: pd.DataFrame) -> str:
    ours, theirs = _paired(error, "proposed", "ft_target")
    lines = source.of("e_rmse", ["proposed"])
    data = _list([str(name) for name in lines["data"].unique()])
    if math.isnan(ours):
        return f"On {data} there is no run with an E-RMSE of both, so proposed and fine-tuned on target do not compare."
    chosen = (
        f" with λ2 = {lines['lambda2'].median():g}" if "lambda2" in lines and lines["lambda2"].notna().any() else ""
    )
    change = _share(abs(1 - ours / theirs)) if theirs else "far"
    verb = {-1: f"is {change} lower", 0: "stays about the same", 1: f"is {change} higher"}[_compare(ours, theirs)]
    text = (
        f"Adding the explainability vector{chosen} to the model fine-tuned on {data}, the explanation error (E-RMSE) "
        f"{verb}, {ours:.3f} against {theirs:.3f}"
    )
    kept, before = _paired(accuracy, "proposed", "ft_target")
    if math.isfinite(kept) and before > 0:
        of = f"{_valued(source, 'accuracy', kept)} of {_valued(source, 'accuracy', before)}"
        text += f", while {_share(kept / before, 1)} of the accuracy is kept ({of})"
    return text + _to_bound(error, ours < theirs)


def _to_bound(error: pd.DataFrame, gained: bool) -> str:
    if "ft_target_x" not in error:
        return "; no bound was trained to measure that by."
    ours, bound = _paired(error, "proposed", "ft_target_x")
    theirs, _ = _paired(error, "ft_target", "ft_target_x")
    if math.isnan(ours) or math.isnan(theirs):
        return "; the bound has no value to measure that by."
    if bound >= theirs:
        return f"; the bound, {bound:.3f}, is itself no better than fine-tuning on the target, so it bounds nothing."
    if ours <= bound:
        return f"; that is no worse than the bound, trained on explained target images ({bound:.3f})."
    if not gained:
        return f"; the bound, trained on explained target images, reaches {bound:.3f}."
    share = (theirs - ours) / (theirs - bound)
    return f"; that is {_share(share)} of the way to the bound, trained on explained target images ({bound:.3f})."


def _controls(source: Source, error: pd.DataFrame, doubts: Mapping[str, str]) -> str:
    lines = source.of("e_rmse")
    labels = lines[lines["kind"] == "control"].groupby("explainer", sort=False)["label"].first().to_dict()
    beaten, others = [], []
    for name, label in labels.items():
        ours, control = _paired(error, "proposed", str(name))
        if math.isnan(ours):
            continue
        both = error[["proposed", name]].dropna()
        wins = int((both["proposed"] < both[name]).sum())
        split = f"; better in {wins} of {len(both)} runs" if 0 < wins < len(both) else ""
        told = f"{label} ({control:.3f}{split})"
        if _compare(ours, control) < 0:
            beaten.append(told)
        else:
            others.append((told, doubts.get(str(name), f"{label} does as well")))
    if not beaten and not others:
        return "No control was measured, so nothing rules out that something simpler than the transfer does as well."
    text = "By the same error it beats no control"
    if beaten:
        text = f"By the same error it does better than the control{'s' * (len(beaten) > 1)} {_list(beaten)}"
    if not others:
        return f"{text}: each control that was measured."
    joint = ", but not than " if beaten else ": not "
    doubted = "; or that ".join(doubt for _, doubt in others)
    return f"{text}{joint}{_list([told for told, _ in others])}, so this table does not rule out that {doubted}."


def _limits(source: Source, error: pd.DataFrame, reference: str) -> str:
    seeds = source.scores["seed"].nunique() if "seed" in source.scores else 0
    images = _images(source.scores)
    spread = "one seed, so no spread is known" if seeds <= 1 else f"{seeds} seeds"
    return (
        f"What it does not show: it is {spread}, on {images:,} images; {_specificity(error)}; and the reference is "
        f"{reference} of the classifier fine-tuned on the target, an estimate of what that classifier uses and not the "
        "truth about the image."
    )


def _specificity(error: pd.DataFrame) -> str:
    """How much of the gain is left when the map of a wrong class is asked for."""
    ours, other = _paired(error, "proposed", "other_class")
    theirs, _ = _paired(error, "ft_target", "other_class")
    if any(map(math.isnan, (ours, other, theirs))):
        return "whether the maps depend on the class was not measured"
    if ours >= theirs:
        return "with no gain there is nothing to call specific to the class"
    left = (theirs - other) / (theirs - ours)
    if left <= 0:
        return f"the gain is gone when another class's map is taken ({other:.3f}), so the maps depend on the class"
    kept = f"{'all' if left > 1 else _share(left)} of the gain is left when another class's map is taken ({other:.3f})"
    if left > 0.25:
        degree = "hardly" if left > 0.75 else "only partly"
        return f"{kept}, so the maps say where the object is and are {degree} specific to its class"
    return f"{kept}, so the maps are largely specific to the class"


def _images(lines: pd.DataFrame) -> int:
    """How many different images lines are of."""
    return len(lines.loc[lines["image"] >= 0, ["data", "image"]].drop_duplicates()) if len(lines) else 0


def _by_run(source: Source, metric: str) -> pd.DataFrame:
    """Means of runs, a column for each row of the table; a row without a source has its value in all of them."""
    lines = source.of(metric)
    return pd.DataFrame() if lines.empty else of_runs(wide(lines, metric), source.column(metric).quadratic)


def _paired(values: pd.DataFrame, a: str, b: str) -> tuple[float, float]:
    """The two means over the runs that both have; NaN where there is none."""
    if a not in values or b not in values:
        return math.nan, math.nan
    both = values[[a, b]].dropna()
    return float(both[a].mean()), float(both[b].mean())


def _compare(ours: float, theirs: float) -> int:
    """-1 where ours is smaller, 1 where it is larger, 0 where they are about the same."""
    if abs(ours - theirs) <= ALIKE * max(abs(ours), abs(theirs)):
        return 0
    return -1 if ours < theirs else 1


def _valued(source: Source, metric: str, value: float) -> str:
    return f"{number(value, 1)} %" if source.column(metric).unit == "%" else number(value, 3)


def _time(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{three_digits(milliseconds)} ms"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _share(value: float, digits: int = 0) -> str:
    return f"{100 * value:.{digits}f} %"
