"""SALVAGE's Figures 2, 3, 4, 6 and 7 (Naouar et al. 2025) as PNG; values are in percent."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from xai.core.errors import UserError
from xai.metrics.classification import confusion_overlap
from xai.metrics.significance import confidence_interval, mean_and_deviation
from xai.reports.drawings import GREEN, Drawing, Floats, legend_below, line_with_band, mean_curves, tidy
from xai.reports.figures import BLUE, GREY, ORANGE, to_png
from xai.reports.measured import Evidence, Measured, by_run
from xai.reports.removal_roles import COLUMNS, LIKELIHOOD, ROLES

_CURVES = {"rise": (GREEN, "--"), "vit_shapley": (ORANGE, "-."), "salvage": (BLUE, "-")}
"""The rows of Figure 2, the paper's three best, each with a line of its own where colours are not seen."""
_PANELS = ("mif", "lif", "srg", "r_mif", "r_lif", "r_srg")
_ABLATIONS = (
    ("vit_shapley", "salvage_uniform", "least squares or distributions"),
    ("salvage_uniform", "salvage", "uniform or informed masks"),
)
"""Figure 3: before, after, and what was changed."""
_SHADES = {"vit_shapley": ORANGE, "salvage_uniform": "#56b4e9", "salvage": BLUE}


def masking_curves(evidence: Evidence) -> bytes:
    """Figure 2: each metric against the number of masked patches, for RISE, ViT-Shapley and SALVAGE.

    Lines are means over images and seeds of one data set; the bands are 95 % intervals over seeds (Student's t).

    Raises:
        UserError: None of the three rows keeps its curves.
    """
    curves = {
        (role, metric): means
        for role in _CURVES
        for metric in _PANELS
        if (means := _mean_curves(evidence.rows, role, metric)) is not None
    }
    if not curves:
        raise UserError(f"no curves of {', '.join(_CURVES)} to draw Figure 2 from")
    figure = Figure(figsize=(10.0, 5.4), layout="constrained")
    panels = figure.subplots(2, 3, sharex=True)
    for panel, metric in zip(panels.flat, _PANELS, strict=True):
        column = COLUMNS[metric]
        panel.set_title(f"{column.label} ({'higher' if column.larger_is_better else 'lower'} is better)", fontsize=10)
        for role, (colour, style) in _CURVES.items():
            if (role, metric) in curves:
                # Entry i - 1 has i patches present.
                of_seeds = curves[role, metric]
                masked = of_seeds.shape[1] - np.arange(1, of_seeds.shape[1] + 1)
                line_with_band(panel, masked, of_seeds, ROLES[role].label, color=colour, linestyle=style)
        tidy(panel)
    for panel in panels[1]:
        panel.set_xlabel("masked patches", fontsize=9)
    for panel in panels[:, 0]:
        panel.set_ylabel("probability of the class, %", fontsize=9)
    legend_below(figure, panels[0, 0])
    return to_png(figure)


def ablations(evidence: Evidence) -> bytes:
    """Figure 3: R-SRG with and without each idea, a pair of bars for each data set, with 95 % intervals over seeds.

    Raises:
        UserError: No data set has both rows of one of the comparisons.
    """
    parts = evidence.by_data()
    values = {
        (data, role): [100 * row.result.metrics["r_srg"] for row in by_run(part.rows, role).values() if _has_r_srg(row)]
        for data, part in parts.items()
        for role in _SHADES
    }
    if not any(values[data, a] and values[data, b] for data in parts for a, b, _ in _ABLATIONS):
        raise UserError(f"no R-SRG of two of {', '.join(_SHADES)} on one data set to draw Figure 3 from")
    figure = Figure(figsize=(max(7.2, 2.6 + 3.1 * len(parts)), 3.4), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for letter, panel, (before, after, change) in zip("ab", panels, _ABLATIONS, strict=True):
        for shift, role in ((-0.2, before), (0.2, after)):
            for place, data in enumerate(parts):
                _bar(panel, place + shift, values[data, role], _SHADES[role], ROLES[role].label if place == 0 else "")
        panel.set_title(f"({letter}) {change}", fontsize=10)
        panel.set_xticks(range(len(parts)), list(parts))
        panel.set_xlim(-0.6, len(parts) - 0.4)
        panel.axhline(0, color=GREY, linewidth=0.8)
        panel.legend(fontsize=8, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2)
        tidy(panel)
    panels[0].set_ylabel("R-SRG, %", fontsize=9)
    return to_png(figure)


def overlap(evidence: Evidence) -> bytes:
    """Figure 4: images that explainer and classifier get right or wrong, in percent of all, mean over seeds.

    Raises:
        UserError: Neither SALVAGE nor ViT-Shapley keeps its predictions and those of the classifier.
    """
    shares = {
        role: share for role in ("salvage", "vit_shapley") if (share := _overlap(evidence.rows, role)) is not None
    }
    if not shares:
        raise UserError("no predictions of salvage or vit_shapley and of the classifier to draw Figure 4 from")
    figure = Figure(figsize=(3.3 * len(shares) + 0.6, 3.2), layout="constrained")
    panels = figure.subplots(1, len(shares), squeeze=False)[0]
    for panel, (role, share) in zip(panels, shares.items(), strict=True):
        panel.imshow(share, cmap="Blues", vmin=0, vmax=100)
        for row, column in np.ndindex(2, 2):
            dark = share[row, column] > 55
            text = f"{share[row, column]:.1f} %"
            panel.text(column, row, text, ha="center", va="center", fontsize=12, color="white" if dark else "black")
        panel.set_title(ROLES[role].label, fontsize=10)
        panel.set_xticks((0, 1), ("correct", "wrong"), fontsize=9)
        panel.set_yticks((0, 1), ("correct", "wrong"), fontsize=9, rotation=90, va="center")
        panel.set_xlabel("classifier", fontsize=9)
        panel.set_ylabel("explainer", fontsize=9)
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    return to_png(figure)


def mask_likelihood(evidence: Evidence) -> bytes:
    """Figure 6: mean probability of the true class by the size of the mask, drawn at random and informed.

    Raises:
        UserError: The likelihoods were not measured.
    """
    rows = list(by_run(evidence.rows, LIKELIHOOD).values())
    if not rows:
        raise UserError(f"no result of {LIKELIHOOD} to draw Figure 6 from")
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    axes.axhline(50, color=GREY, linestyle=":", linewidth=1.2)
    for name, colour, style in (("random", ORANGE, "-."), ("informed", BLUE, "-")):
        of_seeds = mean_curves([row.tensors[name] for row in rows])
        line_with_band(
            axes, np.arange(1, of_seeds.shape[1] + 1), of_seeds, f"{name} masks", color=colour, linestyle=style
        )
    axes.set_ylim(0, 100)
    axes.set_xlabel("patches present", fontsize=9)
    axes.set_ylabel("probability of the true class, %", fontsize=9)
    axes.legend(fontsize=9, frameon=False)
    tidy(axes)
    return to_png(figure)


def training_length(evidence: Evidence) -> bytes:
    """Figure 7: SRG after a share of the training, with informed masks and without; of ViT-Shapley where it was run.

    Points are means over seeds of one data set, bars their 95 % intervals (Student's t). The rows of the tables stand
    for the whole length where it was not run again.

    Raises:
        UserError: No row was trained for a share of the time.
    """
    if not evidence.length:
        raise UserError("no row trained for a share of the time to draw Figure 7 from")
    figure = Figure(figsize=(5.2, 3.4), layout="constrained")
    axes = figure.subplots()
    # Side by side, so that one bar does not hide the other.
    lines = (
        ("vit_shapley", "ViT-Shapley", GREY, ":", -1.0),
        ("salvage_uniform", "SALVAGE, uniform masks", ORANGE, "-.", 0.0),
        ("salvage", "SALVAGE, informed masks", BLUE, "-", 1.0),
    )
    for role, label, colour, style, shift in lines:
        values = _by_share(evidence, role)
        if len(values) < 2:
            continue
        shares = np.array(list(values))
        means = np.array([mean_and_deviation(group)[0] for group in values.values()])
        half = np.array([np.diff(confidence_interval(group))[0] / 2 for group in values.values()])
        axes.errorbar(
            100 * shares + shift,
            means,
            yerr=half,
            color=colour,
            linestyle=style,
            marker="o",
            markersize=5,
            capsize=3,
            label=label,
        )
    axes.set_xticks(sorted({100 * _share(row) for row in evidence.length} | {100.0}))
    axes.set_xlabel("share of the training, %", fontsize=9)
    axes.set_ylabel("SRG, %", fontsize=9)
    axes.legend(fontsize=9, frameon=False)
    tidy(axes)
    return to_png(figure)


DRAWINGS = (
    Drawing(
        "figure2",
        masking_curves,
        "Six line plots of MIF, LIF, SRG, R-MIF, R-LIF and R-SRG against the number of masked patches.",
        "Figure 2. A good order of the patches keeps LIF high for as long as it can and lets MIF fall at once; SRG is "
        "the gap between the two. Below, the patches that stay are drawn by their attribution instead of ranked by it.",
        860,
    ),
    Drawing(
        "figure3",
        ablations,
        "Two bar charts of R-SRG: ViT-Shapley against SALVAGE with uniform masks, and uniform against informed masks.",
        "Figure 3. (a) What it brings to learn the distribution of predictions rather than Shapley values by least "
        "squares; (b) what masks drawn by the network's own attributions bring. Bars without an interval are one run.",
        560,
        joint=True,
    ),
    Drawing(
        "figure4",
        overlap,
        "Two tables of two by two: images that explainer and classifier get right or wrong, in percent.",
        "Figure 4. The explainer as a classifier of its own, u(N), beside the classifier it explains: the diagonal is "
        "where both are right or both are wrong.",
        460,
    ),
    Drawing(
        "figure6",
        mask_likelihood,
        "Line plot of the mean probability of the true class over the number of patches present, random and informed.",
        "Figure 6. Informed masks are meant to stay near one half whatever their size, so that small and large masks "
        "both say something; random ones leave little to learn from the very small and the very large.",
        420,
    ),
    Drawing(
        "figure7",
        training_length,
        "Line plot of SRG after a quarter, half and all of the training, with informed and with uniform masks.",
        "Figure 7. How good the order of the patches is after a share of the training. Each point is a run of that "
        "length by itself.",
        420,
    ),
)
"""Figures that results can be drawn as, in the order of the paper."""


def _mean_curves(rows: Sequence[Measured], role: str, metric: str) -> Floats | None:
    """[seeds, M] in percent, mean over images; None where no seed keeps the curve."""
    curves = [curve for row in by_run(rows, role).values() if (curve := row.curve(metric)) is not None]
    return mean_curves(curves) if curves else None


def _bar(axes: Axes, place: float, values: Sequence[float], colour: str, label: str) -> None:
    mean, _ = mean_and_deviation(values)
    low, high = confidence_interval(values)
    error = [[mean - low], [high - mean]] if math.isfinite(low) else None
    axes.bar(place, mean, 0.36, color=colour, yerr=error, capsize=3, label=label, error_kw={"linewidth": 1.2})


def _has_r_srg(row: Measured) -> bool:
    return math.isfinite(row.result.metrics.get("r_srg", math.nan))


def _overlap(rows: Sequence[Measured], role: str) -> Floats | None:
    """Percent of images [explainer correct or wrong, classifier correct or wrong], mean over seeds."""
    needed = ("logits", "classifier_logits", "labels")
    of_seeds = [row.tensors for row in by_run(rows, role).values() if row.tensors.keys() >= set(needed)]
    if not of_seeds:
        return None
    shares: Floats = torch.stack([confusion_overlap(*(t[name] for name in needed)) for t in of_seeds]).mean(0).numpy()
    return 100 * shares


def _by_share(evidence: Evidence, role: str) -> dict[float, list[float]]:
    """SRG in percent of each seed, by the share of the training."""
    values: dict[float, list[float]] = {}
    for row in evidence.length:
        if row.result.role == role:
            values.setdefault(_share(row), []).append(100 * row.result.metrics["srg"])
    if 1.0 not in values:
        values[1.0] = [100 * row.result.metrics["srg"] for row in by_run(evidence.rows, role).values()]
    return {share: group for share, group in sorted(values.items()) if group}


def _share(row: Measured) -> float:
    return row.result.params["share"]
