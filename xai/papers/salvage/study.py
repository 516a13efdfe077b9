"""The study of SALVAGE: what is explained is the surrogate, and pairs of objects ask for the grid pointing game."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

import torch

from xai.classifiers.learned import VitStages
from xai.classifiers.networks import explained
from xai.classifiers.params import ClassifierParams, Portion, SurrogateParams
from xai.core.errors import UserError
from xai.core.runtime import Runtime
from xai.core.settings import Count, Distinct, EvenCount, Whole, settings
from xai.data.catalogue import OpenData, open_data
from xai.data.registry import Split
from xai.explainers.registry import Row
from xai.explainers.rows import load_row, made_from
from xai.models.vit import VitParams
from xai.papers.salvage.explainers import LearnedSettings
from xai.study.case import Case, check_images
from xai.study.mosaic import check_probe, probed, with_probe
from xai.study.study import Study, StudySettings, open_metrics, open_rows

Examples = tuple[Whole, ...] | Literal["classes"] | Count
"""Images of a sheet: their numbers in the split, `classes` for the first of each class, or how many, evenly spread."""


@settings
class SalvageStudy(StudySettings):
    """Settings of study=salvage.

    Args:
        model: The vision transformer.
        classifier: How it is trained.
        surrogate: How it is fine-tuned on masked images.
        probe: The data set of pairs, null where there is no probe.
        probe_images: Images of it; even, for two ask about one picture.
        lengths: Shares of the training at which Figure 7 looks, of the `snapshots` of its rows.
        reference: The row whose maps others are held against, by the metric agreement_with_reference; null: none.
        examples: Sheets of chosen images under all methods, by what they are called (Figures 1, 8 and 9).
    """

    title = "SALVAGE"

    model: VitParams
    classifier: ClassifierParams
    surrogate: SurrogateParams
    probe: dict[str, Any] | None
    probe_images: EvenCount
    lengths: Annotated[tuple[Portion, ...], Distinct]
    reference: str | None
    examples: dict[str, Examples]


@dataclass
class StudyWithExamples(Study):
    """A study that also shows chosen images.

    Args:
        examples: By the name of a sheet, the numbers of its images in the split.
    """

    examples: Mapping[str, Sequence[int]] = field(default_factory=dict)


def open_study(asked: SalvageStudy, runtime: Runtime) -> StudyWithExamples:
    """The rows of one model, one data set and one seed.

    Raises:
        UserError: What could not be measured after the training is refused before it.
    """
    data = open_data(asked.data, "data")
    probe = None if asked.probe is None else open_data(asked.probe, "probe")
    rows = open_rows(asked.rows, asked.explainers)
    metrics = open_metrics(asked.metrics, asked.metric)
    # Before anything is trained.
    check_images(data, asked.case)
    examples = {name: chosen(data, asked.case.split, wanted, name) for name, wanted in asked.examples.items()}
    if probe is not None:
        check_probe(probe, data.name, data.source.classes)
    shorter = over_length(rows, asked.lengths)
    networks = VitStages(runtime, asked.model, data, asked.classifier, asked.seed, asked.surrogate)
    surrogate, classifier = explained(networks, "surrogate"), explained(networks, "classifier")
    case = Case(runtime, surrogate, data, asked.case, asked.seed, compared=classifier)
    pairs = None if probe is None else replace(probed(case, probe, asked.probe_images), name="probe")
    cases = with_probe(case, metrics, pairs)
    reference = None if asked.reference is None else load_row(asked.reference, asked.explainers, asked="reference")
    others = made_from([*rows, *([] if reference is None else [reference])], asked.explainers)
    return StudyWithExamples([*rows, *shorter], cases, others, reference, examples=examples)


def chosen(data: OpenData, split: Split, wanted: Examples, name: str) -> list[int]:
    """The numbers of the images of the sheet `name`; UserError: the split has not so many."""
    labels = data.source.labels(split)
    if wanted == "classes":
        return [int((labels == label).nonzero()[0]) for label in labels.unique()]
    if isinstance(wanted, int):
        return torch.linspace(0, len(labels) - 1, min(wanted, len(labels))).round().long().tolist()
    assert isinstance(wanted, tuple)
    beyond = [number for number in wanted if number >= len(labels)]
    if beyond or not wanted:
        what = f"image {beyond[0]} is not there" if beyond else "no image is named"
        raise UserError(
            f"examples: {name}: {what}: the {split} split of data={data.name} has the numbers 0 to {len(labels) - 1}"
        )
    return list(wanted)


def over_length(rows: Sequence[Row], lengths: Sequence[float]) -> list[Row]:
    """Figure 7: the rows that it shows again, after shares of the one training.

    Raises:
        UserError: No network was kept after such a share.
    """
    found = []
    for row in rows:
        if isinstance(row.params, LearnedSettings) and row.name in ("salvage", "salvage_uniform", "vit_shapley"):
            for share in lengths:
                if share not in (1, *row.params.snapshots):
                    raise UserError(
                        f"lengths: {row.name} keeps no network after {share:g} of its training: add it to "
                        f"explainers.{row.name}.snapshots"
                    )
                name = f"{row.name}@{share:g}"
                found.append(replace(row, name=name, params=replace(row.params, share=share)))
    return found
