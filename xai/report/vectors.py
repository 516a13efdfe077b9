"""What a transfer of explainability vectors comes to: sentences, the sweep, diagnostics, and its sheets of pictures."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from xai.metrics import registry as metrics
from xai.metrics.functional.agreement import normalise
from xai.papers.vectors.choice import Choice
from xai.papers.vectors.study import TransferStudy
from xai.report.figures.style import GREY
from xai.report.gallery import of_study
from xai.report.headline import transferred
from xai.report.layout import Table, TableParams
from xai.report.page import Picture
from xai.report.pictures import Gallery, draw_picture, enlarged, pixels_of, wrapped
from xai.report.pictures import sheets as picture_sheets
from xai.report.present import OTHER_SETTINGS, Told, source_of, usual
from xai.report.tables import build_tables, by_parameter
from xai.study.columns import three_digits
from xai.study.frame import Frames

_SWEEP = TableParams(
    title="Explainability vectors over λ2",
    columns=[
        "accuracy",
        "e_rmse",
        "kendall",
        "iou@1",
        "iou@5",
        "iou@10",
        "contrast",
        "centred_correlation",
        "rma",
        "pointing_game",
    ],
    percent=False,
    notes=["The choice was made on the validation split; these are the test images. No line needed any training."],
)
_DOUBTS = {
    "random_vector": "any change of the parameters of that size would do",
    "other_class": "the maps hardly depend on the class that is asked for",
    "class_mean": "the maps hold nothing but what they have in common for all classes",
    "source_prior": "one map for all images would do",
    "brightness": "the maps follow brightness and not the classifier",
    "constant": "a map that says nothing is nearer to the reference",
}
"""By control, what could be true where it does as well as the method; follows "that"."""

_THEORY = {
    "similarity_ft": "cosine of the classification vectors, source and target (Appendix C)",
    "similarity_star": "cosine of the explainability vectors, source and target (Appendix C)",
    "risk": "risk R of equation 12: the explainability vector on the target's classification loss",
    "risk_random": "the same of a random vector with the same norms",
    "risk_diagonal": "the risk by the diagonal of the Hessian alone (Appendix A)",
}


_OWN = (
    "Which numbers are this machine's own: data, splits, coalitions and the scores of given maps are the same "
    "everywhere, but training from nothing amplifies rounding, so that rows with trained weights differ on another "
    "processor as they do with another seed. Expect an E-RMSE of the transferred model that is up to 0.2 higher or "
    "lower, and an accuracy that is up to 2 points."
)
"""The spread over seeds and processors of the embedded model; Table 1, glyphs to MNIST, has .82, .90 and .92."""

_TWO_COLUMNS = (
    "What is not the paper's: each image that the vector is learned from is explained for its class and for one other, "
    "so that maps are of the class they are asked for; transfer.other_column=false learns from the first alone."
)

_MODELS = ("zero_shot", "ft_source", "ft_source_x", "ft_target", "proposed", "ft_target_x")
"""Rows of Figures 4 and 7."""
_OPENING = ("ft_target", "proposed")
"""Rows whose maps of two classes open the page, beside the reference."""
_CAPTION = (
    "Red speaks for the class that is named, blue against it; each map is drawn as it is compared with the reference, "
    "with mean 0 and deviation 1. The two maps of an image are of its true class and of the class that rivals it most; "
    "beside them stands what they differ by, which the column contrast compares with what the references differ by. "
    "The images are spread evenly over the test split, a third of them misclassified; none was picked by its maps."
)


def told(study: TransferStudy, frames: Frames, output: Path) -> Told:
    """Hand over what a user can hold, and say what the study comes to."""
    transfer, choice = study.transfer, study.choice
    assert choice is not None
    transfer.hand_over(output, choice.lambda2)
    made = {"α and λ2": f"{choice.alpha:g} and {choice.lambda2:g}, {reason(choice)}"}
    theory = frames.scores[frames.scores["metric"].isin(_THEORY)]
    made |= {_THEORY[name]: three_digits(value) for name, value in zip(theory["metric"], theory["value"], strict=True)}
    assert study.reference is not None
    rows = replace(source_of(frames), scores=usual(frames.scores))
    summary = transferred(rows, _DOUBTS, study.reference.label)
    if transfer.params.other_column:
        summary = [*summary, _TWO_COLUMNS]
    return Told(
        [*summary, _OWN] if transfer.model.embedded else summary,
        {"sweep": sweep_tables(frames, choice.lambda2)},
        made,
        opening=lambda count: two_classes(study, count),
        pictures=lambda count: top_patches(study, count),
    )


def top_patches(study: TransferStudy, count: int) -> list[Picture]:
    """Figure 4: the patches that the reference and the models put first, of `count` images."""
    found = _gallery(study, _MODELS, count, second=False)
    if found is None:
        return []
    alt = f"{len(found.images)} images: the {study.top} patches of highest attribution by {', '.join(found.maps)}."
    caption = (
        f"Figures 4 and 7. The {study.top} patches that each model puts first for the true class, and IoU@{study.top} "
        "with those of the reference. The images are spread evenly over the test split, a third of them misclassified."
    )
    reference = next(iter(found.maps))
    return [Picture.of(top_sheet(found, study.top, reference), alt, caption, 900)]


def two_classes(study: TransferStudy, count: int) -> list[Picture]:
    """A sheet of `count` images with the maps of two classes of each, and what the two differ by."""
    found = _gallery(study, _OPENING, count)
    if found is None:
        return []
    first, second = (
        {label: normalise(maps.double().flatten(1)).reshape(maps.shape) for label, maps in each.items()}
        for each in (found.maps, found.second)
    )
    shown: dict[str, Tensor] = {}
    for label, maps in first.items():
        shown[label] = maps
        if label in second:
            shown[f"Difference, {label}"] = maps - second[label]
    alt = f"{len(found.images)} images: maps of two classes of each, and their difference, by {', '.join(first)}."
    return [
        Picture.of(figure, alt, _CAPTION, 900) for figure in picture_sheets(replace(found, maps=shown, second=second))
    ]


def _gallery(study: TransferStudy, models: Sequence[str], count: int, second: bool = True) -> Gallery | None:
    """Images with the maps of the reference and of some models; None where one or the other was not measured."""
    rows = [row for row in study.measured_rows if row.name in models]
    if study.reference is None or not rows:
        return None
    reference = replace(study.reference, label=f"{study.reference.label} (reference)")
    return of_study(study, [reference, *rows], count, second)


def reason(choice: Choice) -> str:
    """What a choice was made by, as the end of a sentence."""
    if not choice.images:
        return "as asked for"
    alike = ", ".join(f"{lambda2:g}" + f" (α {alpha:g})" * (alpha != choice.alpha) for alpha, lambda2 in choice.alike)
    gained, error = (100 * value for value in choice.gained)
    return (
        f"chosen on {choice.images} validation images: the smallest λ2 within one standard error of the least E-RMSE "
        f"({alike}); the accuracy changes by {gained:+.1f} ± {error:.1f} points (standard error)"
    )


def sweep_tables(frames: Frames, chosen: float) -> list[Table]:
    """Figure 3 in numbers: a line for each lambda2 on the images that are reported, of whichever split."""
    scores = frames.scores[frames.scores["case"] == "main"]
    lines = scores[scores["explainer"].str.startswith(f"proposed{OTHER_SETTINGS}")]
    return build_tables(by_parameter(lines, "lambda2", "λ2", chosen), _SWEEP, metrics.columns()) if len(lines) else []


_DARK = 0.25
"""Of its brightness, what is left of a patch that is not among the first."""


def first_patches(maps: Tensor, count: int) -> Tensor:
    """The `count` patches of the highest attribution of each map [N, h, w]: bool [N, h, w]; of ties the first ones."""
    flat = maps.flatten(1)
    order = flat.argsort(dim=1, descending=True, stable=True)[:, :count]
    return torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, True).reshape(maps.shape)


def top_sheet(gallery: Gallery, count: int, reference: str) -> Figure:
    """Images down, maps across: the first `count` patches as they are and the rest dark.

    Args:
        gallery: Images and maps, all on the patch grid.
        count: K.
        reference: The label of the maps that the others are compared with: below each stands the IoU with its patches.
    """
    first = {label: first_patches(maps, count) for label, maps in gallery.maps.items()}
    images = pixels_of(gallery.images)
    high, wide = images.shape[1:3]
    figure = Figure(figsize=(1.25 * (len(first) + 1) + 0.3, len(images) * (1.25 * high / wide + 0.34) + 0.5))
    figure.set_layout_engine("constrained", w_pad=0.02, h_pad=0.02, wspace=0.02, hspace=0.02)
    panels = figure.subplots(len(images), len(first) + 1, squeeze=False)
    panels[0, 0].set_title("input", fontsize=8)
    for number, image in enumerate(images):
        draw_picture(panels[number, 0], image)
        panels[number, 0].set_xlabel(f"for {gallery.classes[number]}", fontsize=8, color=GREY, parse_math=False)
        for axes, (label, chosen) in zip(panels[number, 1:], first.items(), strict=True):
            canvas, rows, columns = enlarged(image, chosen.shape[1:])
            bright = np.where(chosen[number].numpy()[rows][:, columns], 1.0, _DARK)
            draw_picture(axes, canvas / 255 * bright[..., None])
            if number == 0:
                axes.set_title(wrapped(label), fontsize=8, parse_math=False)
            if label != reference:
                others = first[reference][number]
                both, either = others & chosen[number], others | chosen[number]
                axes.set_xlabel(f"IoU {int(both.sum()) / int(either.sum()):.2f}", fontsize=8)
    return figure
