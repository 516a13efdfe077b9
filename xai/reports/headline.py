"""What the numbers of a transfer say: sentences whose words follow from the comparisons."""

import math
from collections.abc import Mapping, Sequence

from xai.reports.renderers import number
from xai.reports.roles import ROLES, Role
from xai.results import Result

ALIKE = 0.01
"""Two values that differ by less than this share count as about the same."""

_EXPLAINERS = {"kernel_shap": "Kernel SHAP", "exact_shapley": "the exact Shapley value", "grad_cam": "Grad-CAM"}

Run = tuple[str, str | None, str, int]
Values = Mapping[Run, float]


def headline(results: Sequence[Result], chosen: float, image_size: int | None = None) -> list[str]:
    """Three sentences: what the table shows, what its controls say, and what it does not show.

    Args:
        results: The rows of the table, of one or more runs.
        chosen: The lambda2 of the proposed rows.
        image_size: Side of the images in pixels, where it is to be named.

    Returns:
        Three sentences of plain text; where rows are missing they say which.
    """
    error, accuracy = _values(results, "e_rmse"), _values(results, "accuracy")
    if not error.get("proposed") or not error.get("ft_target"):
        missing = [ROLES[role].label for role in ("ft_target", "proposed") if not error.get(role)]
        gap = f"Nothing can be said of the transfer: there is no E-RMSE of {' and of '.join(missing)}."
        return [gap, "Without it the controls have nothing to be compared with.", _limits(results, error, image_size)]
    return [_shown(results, error, accuracy, chosen), _controls(error), _limits(results, error, image_size)]


def reference_name(results: Sequence[Result]) -> str:
    """What the explanations are called that the rows were measured against."""
    names = dict.fromkeys(str(result.lineage.get("explainer", "kernel_shap")) for result in results)
    return " or ".join(_EXPLAINERS.get(name, name) for name in names) or "an attribution"


def _shown(
    results: Sequence[Result], error: Mapping[str, Values], accuracy: Mapping[str, Values], chosen: float
) -> str:
    ours, theirs = _paired(error["proposed"], error["ft_target"])
    data = " and ".join(dict.fromkeys(result.data for result in results))
    if math.isnan(ours):
        return f"On {data} there is no run with an E-RMSE of both, so proposed and fine-tuned on target do not compare."
    change = f"{abs(1 - ours / theirs):.0%}"
    verb = {-1: f"is {change} lower", 0: "stays about the same", 1: f"is {change} higher"}[_compare(ours, theirs)]
    text = (
        f"Adding the explainability vector with λ2 = {chosen:g} to the model fine-tuned on {data}, the explanation "
        f"error (E-RMSE) {verb}, {number(ours)} against {number(theirs)}"
    )
    kept, before = _paired(accuracy.get("proposed", {}), accuracy.get("ft_target", {}))
    if math.isfinite(kept) and before > 0:
        text += f", while {kept / before:.1%} of the accuracy is kept ({number(kept)} of {number(before)})"
    return text + _to_bound(error, ours < theirs)


def _to_bound(error: Mapping[str, Values], gained: bool) -> str:
    if not error.get("ft_target_x"):
        return "; no bound was trained to measure that by."
    ours, bound = _paired(error["proposed"], error["ft_target_x"])
    theirs, _ = _paired(error["ft_target"], error["ft_target_x"])
    if math.isnan(ours) or math.isnan(theirs):
        return "; the bound has no value to measure that by."
    if bound >= theirs:
        return (
            f"; the bound, {number(bound)}, is itself no better than fine-tuning on the target, so it bounds nothing."
        )
    if ours <= bound:
        return f"; that is no worse than the bound, trained on explained target images ({number(bound)})."
    if not gained:
        return f"; the bound, trained on explained target images, reaches {number(bound)}."
    share = (theirs - ours) / (theirs - bound)
    return f"; that is {share:.0%} of the way to the bound, trained on explained target images ({number(bound)})."


def _controls(error: Mapping[str, Values]) -> str:
    beaten, open_ = [], []
    for role in ROLES.values():
        if role.kind != "control" or not error.get(role.name):
            continue
        ours, control = _paired(error["proposed"], error[role.name])
        if math.isnan(ours):
            continue
        named = f"{role.short.lower()} ({number(control)}{_disagreement(error, role)})"
        if ours < control and _compare(ours, control) < 0:
            beaten.append(named)
        else:
            open_.append((named, role.doubt))
    if not beaten and not open_:
        return "No control was measured, so nothing rules out that something simpler than the transfer does as well."
    text = (
        f"By the same error it does better than the control{'s' * (len(beaten) > 1)} {_list(beaten)}"
        if beaten
        else "By the same error it beats no control"
    )
    if not open_:
        return text + ": each control that was measured."
    doubts = "; or that ".join(doubt for _, doubt in open_)
    joint = ", but not than " if beaten else ": not "
    return f"{text}{joint}{_list([name for name, _ in open_])}, so this table does not rule out that {doubts}."


def _disagreement(error: Mapping[str, Values], role: Role) -> str:
    """In how many runs proposed is better, where the runs do not agree."""
    runs = error["proposed"].keys() & error[role.name].keys()
    wins = sum(error["proposed"][run] < error[role.name][run] for run in runs)
    return f"; better in {wins} of {len(runs)} runs" if 0 < wins < len(runs) else ""


def _limits(results: Sequence[Result], error: Mapping[str, Values], image_size: int | None) -> str:
    seeds, images = len({result.seed for result in results}), sorted({result.n_images for result in results})
    count = " to ".join(f"{n:,}" for n in dict.fromkeys((images[0], images[-1]))) if images else "0"
    small = "small " if image_size is not None and image_size < 128 else ""
    size = f" of {image_size} × {image_size} pixels" if image_size is not None else ""
    number_of = "one seed, so no spread is known" if seeds <= 1 else f"{seeds} seeds"
    text = f"What it does not show: it is {number_of}, on {count} {small}images{size}"
    return text + (
        f"; {_specificity(error)}; and the reference is {reference_name(results)} of the classifier fine-tuned on the "
        "target, an estimate of what that classifier uses and not the truth about the image."
    )


def _specificity(error: Mapping[str, Values]) -> str:
    """How much of the gain is left when the map of a wrong class is asked for."""
    ours, other = _paired(error.get("proposed", {}), error.get("other_class", {}))
    theirs, _ = _paired(error.get("ft_target", {}), error.get("other_class", {}))
    if any(map(math.isnan, (ours, other, theirs))):
        return "whether the maps depend on the class was not measured"
    if ours >= theirs:
        return "with no gain there is nothing to call specific to the class"
    left = (theirs - other) / (theirs - ours)
    if left <= 0:
        return f"the gain is gone when another class's map is taken ({number(other)}), so the maps depend on the class"
    share = "all" if left > 1 else f"{left:.0%}"
    kept = f"{share} of the gain is left when another class's map is taken ({number(other)})"
    if left > 0.25:
        degree = "hardly" if left > 0.75 else "only partly"
        return f"{kept}, so the maps say where the object is and are {degree} specific to its class"
    return f"{kept}, so the maps are largely specific to the class"


def _values(results: Sequence[Result], metric: str) -> dict[str, dict[Run, float]]:
    """By role and run, what is defined."""
    found: dict[str, dict[Run, float]] = {}
    for result in results:
        value = result.metrics.get(metric, math.nan)
        if math.isfinite(value):
            found.setdefault(result.role, {})[result.model, result.source, result.data, result.seed] = value
    return found


def _paired(ours: Values, theirs: Values) -> tuple[float, float]:
    """The two means over the runs that both have; NaN where there is none."""
    runs = sorted(ours.keys() & theirs.keys(), key=str)
    if not runs:
        return math.nan, math.nan
    return math.fsum(ours[run] for run in runs) / len(runs), math.fsum(theirs[run] for run in runs) / len(runs)


def _compare(ours: float, theirs: float) -> int:
    """-1 where ours is smaller, 1 where it is larger, 0 where they are about the same."""
    if abs(ours - theirs) <= ALIKE * max(abs(ours), abs(theirs)):
        return 0
    return -1 if ours < theirs else 1


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
