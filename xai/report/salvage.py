"""Figures 1, 5, 8 and 9 of SALVAGE in pictures: chosen images under all methods, and what its own u(N) has wrong."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import cast

import torch

from xai.explainers.block import Explainer
from xai.explainers.registry import Row
from xai.papers.salvage.study import StudyWithExamples
from xai.report.gallery import chosen_images, gallery, images_of
from xai.report.page import Picture
from xai.report.pictures import Gallery, sheets
from xai.report.present import OTHER_SETTINGS, Told
from xai.study.case import Case
from xai.study.frame import Frames
from xai.study.maps import explain
from xai.study.study import Study

_EXAMPLES = "Chosen images of the split under all methods; red speaks for the class that is named, blue against it."
_MISTAKES = (
    "Figure 5. Images that SALVAGE itself, by u(N), classifies wrongly. Of each image the map of the class that it "
    "predicts stands beside that of the true class: what speaks for its mistake, and what it saw of the truth."
)


def told(study: StudyWithExamples, frames: Frames, output: Path) -> Told:
    """The sheets of chosen images, and that of Figure 5."""
    return Told(pictures=lambda count: chain(pictures_of_examples(study), pictures_of_mistakes(study, count)))


def pictures_of_examples(study: StudyWithExamples) -> Iterator[Picture]:
    """Chosen images under all methods; controls are left out."""
    case = study.cases[0][0]
    methods = [
        row for row in study.measured_rows if row.entry.info.kind != "control" and OTHER_SETTINGS not in row.name
    ]
    for name, numbers in study.examples.items():
        found = gallery(replace(case, only=tuple(numbers)), methods, len(numbers), second=False)
        for figure in sheets(found) if found is not None else ():
            alt = f"{name}: {len(numbers)} images, each with the maps of {', '.join(row.label for row in methods)}."
            yield Picture.of(figure, alt, f"{name}. {_EXAMPLES}", 900)


def pictures_of_mistakes(study: Study, count: int) -> Iterator[Picture]:
    """The sheet of a study in which SALVAGE was measured; none where it is always right."""
    for row in study.measured_rows:
        found = mistakes(study.cases[0][0], row, count) if row.name == "salvage" and count else None
        if found is not None:
            (figure,) = sheets(found)
            alt = f"{len(found.images)} images, each with the maps of a wrong prediction and of the true class."
            yield Picture.of(figure, alt, _MISTAKES, 560)


def mistakes(case: Case, row: Row, count: int) -> Gallery | None:
    """Images that a row which classifies has wrong, with its maps of what it predicts and of the truth."""
    logits = explain(case, row).logits
    assert logits is not None
    predicted = logits.argmax(1)
    wrong = (predicted != case.labels).nonzero()[:, 0]
    if not len(wrong):
        return None
    chosen = wrong[chosen_images(torch.ones(len(wrong), dtype=torch.bool), count)]
    few, names = replace(case, only=tuple(case.rows[chosen].tolist())), case.model.classes
    pixels, regions = images_of(few)
    explainer, trainer = cast(Explainer, row.entry.prepare(case, row.params).build()), case.runtime.trainer
    with trainer.autocast():
        images = pixels.to(trainer.device)
        of_both = [explainer.attribute(images, of.to(trainer.device)).cpu() for of in (predicted[chosen], few.labels)]
    said, true = ([names[label] for label in labels.tolist()] for labels in (predicted[chosen], few.labels))
    return Gallery(
        pixels,
        {row.label: of_both[0]},
        said,
        true=true,
        predicted=said,
        second={row.label: of_both[1]},
        second_classes=true,
        regions=regions,
    )
