"""The rows and columns of the tables of Learn to Rank (Schinagl et al. 2026)."""

import re
from dataclasses import replace

from xai.reports import removal_roles
from xai.reports.columns import Column
from xai.reports.data_tables import Scheme
from xai.reports.roles import Role

KINDS = {
    "method": "Methods",
    "ablation": "Ablations of ranking",
    "control": "Controls",
}
"""Kinds of rows in the order of a table, with the heading of their block."""

MOST_STEPS = 10
"""The largest T that has a row."""
SHORTCUT = "shortcut"
"""The role of the result that holds Figure 5; it is no row of a table."""
_REFINED = re.compile(r"(ranking|decoder|flat|rollout)_t(\d+)")


def refined(role: str) -> tuple[str, int] | None:
    """What was refined and by how many steps T, of a role such as `ranking_t3`; None of one that was not."""
    match = _REFINED.fullmatch(role)
    return (match[1], int(match[2])) if match else None


def _by_steps(start: str, label: str, short: str, kind: str, explanation: str, doubt: str = "") -> list[Role]:
    return [
        Role(f"{start}_t{t}", f"{label}, T = {t}", f"{short}, T = {t}", kind, explanation, doubt=doubt)
        for t in range(1, MOST_STEPS + 1)
    ]


_RANKING = (
    Role(
        "ranking",
        "Ranking",
        "Ranking",
        "method",
        "A network trained to order the pixels so that deleting them in that order lowers the classifier's confidence "
        "soonest, and inserting them raises it soonest; one forward pass an image (T = 0).",
    ),
    *_by_steps(
        "ranking",
        "Ranking, maps refined",
        "Maps",
        "method",
        "The network's map after T gradient steps of the training objective for the one image, by the map itself.",
    ),
    *_by_steps(
        "decoder",
        "Ranking, decoder refined",
        "Decoder",
        "method",
        "The network's map after T gradient steps of the training objective for the one image, by the decoder.",
    ),
)
_OF_PIXELS = tuple(
    replace(
        removal_roles.ROLES[name],
        name=f"{name}_pixels",
        label=f"{removal_roles.ROLES[name].label}, pixels",
        short=short,
        explanation=f"{removal_roles.ROLES[name].explanation} Pixel by pixel, not added up in patches.",
    )
    for name, short in (("saliency", "Saliency, px"), ("integrated_gradients", "Int. grad., px"))
)
_INPUT_X_GRADIENT = Role(
    "input_x_gradient_pixels",
    "Input x gradient, pixels",
    "Inp. x grad., px",
    "method",
    "The gradient of the class's output times what a pixel differs from the mean by: what the explainer looks at too.",
)
_ABLATIONS = (
    Role(
        "ranking_published",
        "Ranking, as published",
        "As published",
        "ablation",
        "The same network with the published settings: the embedding of the class beside every feature, and the loss "
        "of a map averaged over two classes, whichever it was drawn for.",
    ),
)
_CONTROLS = (
    *_by_steps(
        "flat",
        "Flat map, refined",
        "Flat",
        "control",
        "The same T gradient steps, begun with a map that is the same everywhere.",
        doubt="refinement needs no trained map to start from",
    ),
    *_by_steps(
        "rollout",
        "Attention rollout, refined",
        "Rollout",
        "control",
        "The same T gradient steps, begun with attention rollout.",
        doubt="refinement does as well from a map that nothing was trained for",
    ),
    removal_roles.ROLES["random"],
    removal_roles.ROLES["brightness"],
    replace(
        removal_roles.ROLES["position_prior"],
        explanation="The mean of the ranking maps over validation images, the same for every image.",
    ),
    replace(removal_roles.ROLES["object_mask"], explanation="The region of the object itself as a map."),
)
_SHARED = tuple(role for role in removal_roles.ROLES.values() if role.kind == "method")
ROLES = {role.name: role for role in (*_RANKING, *_SHARED, *_OF_PIXELS, _INPUT_X_GRADIENT, *_ABLATIONS, *_CONTROLS)}
"""All rows by name, in the order of the tables."""

REFERENCES = {"black": "black", "mean": "the mean colour of the data set", "blur": "the blurred image"}
"""What is shown instead of what is removed."""
_WHAT = {
    "deletion": (
        False,
        "Del.",
        "mean probability of the class over the share of pixels removed, those of the highest attribution first",
    ),
    "insertion": (
        True,
        "Ins.",
        "mean probability of the class over the share of pixels shown, those of the highest attribution first",
    ),
    "difference": (True, "Diff.", "insertion less deletion; 0 is what a random order scores on average"),
}
_CLASSES = {"": "predicted", "_true": "true"}


def _area(kind: str, target: str, reference: str = "") -> Column:
    better, short, asks = _WHAT[kind]
    said = ["true"] * bool(target) + [reference] * bool(reference)
    where = REFERENCES[reference] if reference else "black, mean and blur in turn, averaged"
    name = f"{kind}_auc{target}" + (f"_{reference}" if reference else "")
    explanation = f"Of the {_CLASSES[target]} class: {asks}. In place of removed pixels: {where}."
    label, abridged = ", ".join([kind.capitalize(), *said]), " ".join([short, *said])
    return Column(name, label, abridged, better, explanation, scale=100, digits=1)


_COLUMNS = (
    *(_area(kind, target) for target in _CLASSES for kind in _WHAT),
    Column(
        "class_correlation",
        "Class corr.",
        "Corr.",
        False,
        "Correlation of the maps of the predicted class and of the runner-up (or the true class, where the prediction "
        "is wrong): 1 is the same map whatever class is asked about.",
        digits=2,
    ),
    Column(
        "seconds_per_image",
        "ms an image",
        "ms",
        False,
        "Time that one map takes, in milliseconds, several images at once; training is not counted.",
        scale=1000,
        digits=1,
    ),
    *(_area(kind, target, name) for target in _CLASSES for kind in ("deletion", "insertion") for name in REFERENCES),
    removal_roles.COLUMNS["pointing_game"],
    removal_roles.COLUMNS["rra"],
)
COLUMNS = {column.name: column for column in _COLUMNS}
"""Metrics by name; areas are read in percent."""

SCHEME = Scheme(ROLES, COLUMNS, KINDS, frozenset({SHORTCUT}))
"""All of it."""
