"""Figure 5 of SALVAGE in pictures: images that its own u(N) has wrong, explained for that and for the truth."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import cast

import torch

from xai.explainers.block import Explainer
from xai.explainers.registry import Row
from xai.report.gallery import chosen_images
from xai.report.page import Picture
from xai.report.pictures import Gallery, sheets
from xai.report.present import Told
from xai.study.case import Case
from xai.study.frame import Frames
from xai.study.maps import explain
from xai.study.study import Study

_MISTAKES = (
    "Figure 5. Images that SALVAGE itself, by u(N), classifies wrongly. Of each image the map of the class that it "
    "predicts stands beside that of the true class: what speaks for its mistake, and what it saw of the truth."
)


def told(study: Study, frames: Frames, output: Path) -> Told:
    """The sheet of Figure 5."""
    return Told(pictures=partial(pictures_of_mistakes, study))


def pictures_of_mistakes(study: Study, count: int) -> Iterator[Picture]:
    """The sheet of a study in which SALVAGE was measured; none where it is always right.

    Args:
        study: What was measured.
        count: Images on the sheet.
    """
    for row in study.measured_rows:
        found = mistakes(study.cases[0][0], row, count) if row.name == "salvage" and count else None
        if found is not None:
            (figure,) = sheets(found)
            alt = f"{len(found.images)} images, each with the maps of a wrong prediction and of the true class."
            yield Picture.of(figure, alt, _MISTAKES, 560)


def mistakes(case: Case, row: Row, count: int) -> Gallery | None:
    """Images that a row which classifies has wrong, with its maps of what it predicts and of the truth.

    Args:
        case: What was explained; its labels are known.
        row: Explains and classifies.
        count: How many images at most.
    """
    logits = explain(case, row).logits
    assert logits is not None
    predicted = logits.argmax(1)
    wrong = (predicted != case.labels).nonzero()[:, 0]
    if not len(wrong):
        return None
    chosen = wrong[chosen_images(torch.ones(len(wrong), dtype=torch.bool), count)]
    few, names = replace(case, only=tuple(case.rows[chosen].tolist())), case.model.classes
    read = [few.images(number) for number in range(len(few.blocks))]
    pixels = torch.cat([images.pixels for images in read])
    explainer, trainer = cast(Explainer, row.entry.prepare(case, row.params).build()), case.runtime.trainer
    with trainer.autocast():
        images = pixels.to(trainer.device)
        of_both = [explainer.attribute(images, of.to(trainer.device)).cpu() for of in (predicted[chosen], few.labels)]
    said, true = ([names[label] for label in labels.tolist()] for labels in (predicted[chosen], few.labels))
    regions = [images.regions for images in read if images.regions is not None]
    return Gallery(
        pixels,
        {row.label: of_both[0]},
        said,
        true=true,
        predicted=said,
        second={row.label: of_both[1]},
        second_classes=true,
        regions=torch.cat(regions) if regions else None,
    )
