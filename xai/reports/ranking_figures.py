"""Figures 3, 5 and 6 of Learn to Rank (Schinagl et al. 2026) as PNG; values are in percent."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from xai.core.errors import UserError
from xai.metrics.significance import confidence_interval
from xai.reports.drawings import GREEN, Drawing, legend_below, line_with_band, mean_curves, tidy
from xai.reports.figures import BLUE, GREY, ORANGE, to_png
from xai.reports.measured import Evidence, Measured, by_run, image_values
from xai.reports.ranking_roles import COLUMNS, REFERENCES, ROLES, SHORTCUT, refined

_SKY, _PURPLE, _AMBER = "#56b4e9", "#cc79a7", "#e69f00"
"""Further colours of Okabe and Ito."""
_REFINED = {"ranking": ("maps refined", BLUE, "o"), "decoder": ("decoder refined", ORANGE, "s")}
"""The lines of Figure 3a."""
_CLASSES = {"": ("predicted class", "-"), "_true": ("true class", "--")}
_CURVES = {
    "ranking_t3": (BLUE, "-", "o"),
    "ranking": (_SKY, "--", "s"),
    "salvage": (GREEN, "-.", "^"),
    "rise": (ORANGE, "-", "v"),
    "attention_rollout": (_PURPLE, "--", "D"),
    "integrated_gradients": (_AMBER, "-.", "P"),
    "random": (GREY, ":", ""),
}
"""The rows of Figure 6; colour, stroke and marker tell them apart."""
_MASS = re.compile(r"(flat_|clean_)?mass_t(\d+)")
_STARTS = {
    "": ("trained map", BLUE, "-", "o"),
    "flat_": ("flat map", ORANGE, "--", "s"),
    "clean_": ("classifier before", GREEN, "-.", "^"),
}
"""The lines of Figure 5."""

Points = Mapping[float, Sequence[Measured]]
"""The rows of all seeds by what is varied."""


def over_refinement(evidence: Evidence) -> bytes:
    """Figure 3a: insertion and deletion over T gradient steps, for the predicted and for the true class.

    Bars are 95 % intervals of the mean over images, each averaged over the seeds that share it (Student's t).

    Raises:
        UserError: No row was refined.
    """
    lines = {start: _by_steps(evidence, start) for start in _REFINED}
    if all(len(points) < 2 for points in lines.values()):
        raise UserError("no row with refined maps or a refined decoder to draw Figure 3a from")
    figure, panels = _insertion_and_deletion("gradient steps T")
    for panel, kind in zip(panels, ("insertion", "deletion"), strict=True):
        for start, (label, colour, marker) in _REFINED.items():
            for target, (of_class, stroke) in _CLASSES.items():
                # Side by side, so that one bar does not hide the other.
                shift = 0.05 * (1 if start == "decoder" else -1) + 0.02 * (1 if target else -1)
                style = {"color": colour, "linestyle": stroke, "marker": marker, "mfc": "white" if target else colour}
                if len(lines[start]) > 1:
                    _intervals(panel, lines[start], f"{kind}_auc{target}", f"{label}, {of_class}", shift, **style)
        panel.set_xticks(sorted({steps for points in lines.values() for steps in points}))
    legend_below(figure, panels[0], columns=2)
    return to_png(figure)


def over_path_steps(evidence: Evidence) -> bytes:
    """Figure 3b: insertion and deletion over S, the points on a path of training, for both classes.

    Bars are intervals as in Figure 3a.

    Raises:
        UserError: The explainer was not trained with other numbers of points.
    """
    points = _grouped(
        (row.result.params["path_steps"], row)
        for row in (*evidence.steps, *evidence.rows)
        if row.result.role == "ranking" and "path_steps" in row.result.params
    )
    if len(points) < 2:
        raise UserError("no explainers trained with two numbers of points on a path to draw Figure 3b from")
    figure, panels = _insertion_and_deletion("points S on a path")
    for panel, kind in zip(panels, ("insertion", "deletion"), strict=True):
        for (target, (label, stroke)), colour in zip(_CLASSES.items(), (BLUE, ORANGE), strict=True):
            style = {"color": colour, "linestyle": stroke, "marker": "o"}
            _intervals(panel, points, f"{kind}_auc{target}", label, 0.0, **style)
        panel.set_xscale("log", base=2)
        panel.set_xticks(list(points), [f"{steps:g}" for steps in points])
    legend_below(figure, panels[0])
    return to_png(figure)


def shortcut(evidence: Evidence) -> bytes:
    """Figure 5: the share of the attribution that lies on the mark over T, and of two controls.

    One begins with a flat map, the other asks about the classifier before it had learned the mark.

    Bars are intervals as in Figure 3a; the grey line is the share of the image that the mark covers.

    Raises:
        UserError: The shortcut was not measured.
    """
    rows = list(by_run(evidence.shortcut, SHORTCUT).values())
    names = {match[0]: match for row in rows for name in row.result.metrics if (match := _MASS.fullmatch(name))}
    if not names:
        raise UserError("no result of the marked class to draw Figure 5 from")
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    for prefix, (label, colour, stroke, marker) in _STARTS.items():
        steps = sorted(int(match[2]) for match in names.values() if (match[1] or "") == prefix)
        summaries = [_summary(rows, f"{prefix}mass_t{t}") for t in steps]
        shift = {"": -0.03, "flat_": 0.03}.get(prefix, 0.0)
        style = {"color": colour, "linestyle": stroke, "marker": marker}
        if steps:
            _bars(axes, [t + shift for t in steps], summaries, label, **style)
    area = _summary(rows, "mark_area")[0]
    if math.isfinite(area):
        axes.axhline(area, color=GREY, linestyle=":", linewidth=1.2, label="area of the mark")
    axes.set_ylim(bottom=0)
    axes.set_xticks(sorted({int(match[2]) for match in names.values()}))
    axes.set_xlabel("gradient steps T", fontsize=9)
    axes.set_ylabel("attribution on the mark, %", fontsize=9)
    tidy(axes)
    legend_below(figure, axes, 2)
    return to_png(figure)


def curves(evidence: Evidence) -> bytes:
    """Figure 6: the probability of the class over the share of pixels deleted and inserted, mean over references.

    Lines are means over images and seeds of one data set; the bands are 95 % intervals over seeds (Student's t).

    Raises:
        UserError: None of the rows keeps its curves.
    """
    found = {
        (role, kind, target): of_seeds
        for role in _CURVES
        for kind in ("deletion", "insertion")
        for target in _CLASSES
        if (of_seeds := _curves_of(by_run(evidence.rows, role).values(), f"curve_{kind}{target}"))
    }
    if not found:
        raise UserError(f"no curves of {', '.join(_CURVES)} to draw Figure 6 from")
    figure = Figure(figsize=(9.0, 7.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, sharey=True)
    for (target, (of_class, _)), line in zip(_CLASSES.items(), panels, strict=True):
        for panel, kind in zip(line, ("deletion", "insertion"), strict=True):
            better = "higher" if COLUMNS[f"{kind}_auc"].larger_is_better else "lower"
            panel.set_title(f"{kind}, {of_class} ({better} is better)", fontsize=10)
            for number, (role, (colour, stroke, marker)) in enumerate(_CURVES.items()):
                if (role, kind, target) in found:
                    means = mean_curves(found[role, kind, target])
                    share = np.linspace(0, 100, means.shape[1])
                    style = {"color": colour, "linestyle": stroke, "linewidth": 1.5, "marker": marker, "markersize": 4}
                    # Marks of different lines at different places, where the lines run together.
                    every = {"markevery": (number % 5, 5)}
                    line_with_band(panel, share, means, ROLES[role].label, **style, **every)
            panel.set_ylim(0, 100)
            tidy(panel)
        line[0].set_ylabel("probability of the class, %", fontsize=9)
    for panel, done in zip(panels[1], ("deleted", "inserted"), strict=True):
        panel.set_xlabel(f"pixels {done}, %", fontsize=9)
    legend_below(figure, panels[0, 0], columns=4)
    return to_png(figure)


DRAWINGS = (
    Drawing(
        "figure3a",
        over_refinement,
        "Two line plots of insertion and deletion over the number of gradient steps, for maps and decoder refined.",
        "Figure 3a. What gradient steps for the one image bring, taken by the map itself or by the decoder that drew "
        "it. Bars say how far the mean would move with other images; the claims compare the same images.",
        720,
    ),
    Drawing(
        "figure3b",
        over_path_steps,
        "Two line plots of insertion and deletion over the number of points on a path of training.",
        "Figure 3b. What it brings to judge a map at more shares of the pixels while it is trained. Each point is a "
        "training of its own.",
        720,
    ),
    Drawing(
        "figure5",
        shortcut,
        "Line plot of the share of attribution that lies on the mark over the number of gradient steps.",
        "Figure 5. The classifier was trained on with a white circle on every image of one class; the explainer never "
        "saw it. On images of that class refinement is to find what now decides.",
        420,
    ),
    Drawing(
        "figure6",
        curves,
        "Four line plots of the class's probability over the share of pixels deleted and inserted, for seven rows.",
        "Figure 6. A good order lowers deletion at once and raises insertion at once; a table's number is the area "
        "under the line. Mean over the three references.",
        760,
    ),
)
"""Figures that results can be drawn as, in the order of the paper."""


def _by_steps(evidence: Evidence, start: str) -> Points:
    """Rows after T steps; those after none are of the explainer as it was trained."""
    return _grouped(
        (steps, row)
        for row in (*evidence.rows, *evidence.refinement)
        for begin, steps in [refined(row.result.role) or (row.result.role, 0)]
        if begin == start or (begin == "ranking" and steps == 0)
    )


def _grouped(pairs: Iterable[tuple[float, Measured]]) -> Points:
    """One row of each model and seed for each value, the first where there are several."""
    found: dict[float, dict[tuple[str, int], Measured]] = {}
    for value, row in pairs:
        found.setdefault(value, {}).setdefault((row.result.model, row.result.seed), row)
    return {value: list(found[value].values()) for value in sorted(found)}


def _insertion_and_deletion(varied: str) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(8.4, 3.9), layout="constrained")
    panels: Sequence[Axes] = figure.subplots(1, 2)
    for panel, kind in zip(panels, ("insertion", "deletion"), strict=True):
        better = "higher" if COLUMNS[f"{kind}_auc"].larger_is_better else "lower"
        panel.set_title(f"{kind} ({better} is better)", fontsize=10)
        panel.set_xlabel(varied, fontsize=9)
        panel.set_ylabel(f"{kind} AUC, %", fontsize=9)
        tidy(panel)
    return figure, panels


def _intervals(axes: Axes, points: Points, metric: str, label: str, shift: float, **style: str) -> None:
    summaries = [_summary(rows, metric) for rows in points.values()]
    _bars(axes, [value + shift for value in points], summaries, label, **style)


def _bars(axes: Axes, places: Sequence[float], summaries: Sequence[Sequence[float]], label: str, **style: str) -> None:
    mean, low, high = np.array(summaries).T
    error = [mean - low, high - mean] if np.isfinite(low).any() else None
    axes.errorbar(places, mean, yerr=error, label=label, capsize=3, markersize=5, linewidth=1.6, **style)  # type: ignore[arg-type]


def _summary(rows: Sequence[Measured], metric: str) -> tuple[float, float, float]:
    """Mean and 95 % interval over images in percent; over seeds where the values of images were not kept."""
    of_rows = [row.per_image(metric) for row in rows]
    kept = [values for values in of_rows if values is not None]
    if len(kept) == len(rows):
        values = image_values(rows, kept).tolist()
    else:
        values = [mean for row in rows if math.isfinite(mean := row.mean(metric))]
    low, high = confidence_interval(values)
    return 100 * (math.fsum(values) / len(values) if values else math.nan), 100 * low, 100 * high


def _curves_of(rows: Iterable[Measured], name: str) -> list[Tensor]:
    """Curves [N, S] of each seed, mean over the references that were measured."""
    kept = [[row.tensors[f"{name}_{r}"] for r in REFERENCES if f"{name}_{r}" in row.tensors] for row in rows]
    return [torch.stack(of_references).double().mean(0) for of_references in kept if of_references]
