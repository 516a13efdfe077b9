"""The study of SALVAGE: what is explained is the surrogate, and pairs of objects ask for the grid pointing game."""

from collections.abc import Sequence
from dataclasses import replace

from xai.classifiers.explained import explained
from xai.classifiers.vit import VitStages
from xai.core.errors import UserError
from xai.data.catalogue import OpenData
from xai.data.pair import PairSet
from xai.explainers.registry import Row
from xai.papers.salvage.explainers import SalvageSettings, VitShapleySettings
from xai.study.case import Case, CaseParams
from xai.study.scores import Chosen
from xai.study.study import Study

PROBE = "grid_pointing"
"""The metric that pairs of objects are for."""


def open_study(
    networks: VitStages,
    rows: Sequence[Row],
    metrics: Sequence[Chosen],
    params: CaseParams,
    probe: OpenData | None,
    probe_images: int,
    lengths: Sequence[float],
) -> Study:
    """The rows of one model, one data set and one seed.

    Args:
        networks: The classifier, its surrogate, and what is trained from them.
        rows: Explainers.
        metrics: What their maps are measured by.
        params: Which images.
        probe: The data set of pairs, None where there is no probe.
        probe_images: Images of it; even, for two ask about one picture.
        lengths: Shares of the training at which Figure 7 looks.

    Raises:
        UserError: What could not be measured after the training is refused before it.
    """
    case = Case(
        networks.runtime,
        explained(networks, "surrogate"),
        networks.data,
        params,
        networks.seed,
        compared=explained(networks, "classifier"),
    )
    cases: list[tuple[Case, Sequence[Chosen]]] = [
        (case, [each for each in metrics if each.metric.name != PROBE]),
    ]
    pairs = [each for each in metrics if each.metric.name == PROBE]
    if probe is not None and pairs:
        cases.append((_probed(case, probe, probe_images), pairs))
    return Study([*rows, *over_length(rows, lengths)], cases)


def over_length(rows: Sequence[Row], lengths: Sequence[float]) -> list[Row]:
    """Figure 7: the trained rows again, trained for shares of the usual length."""
    trained = [(row, row.params) for row in rows if row.name in ("salvage", "salvage_uniform", "vit_shapley")]
    return [
        replace(row, name=f"{row.name}@{share:g}", params=replace(params, share=share))
        for row, params in trained
        if isinstance(params, SalvageSettings | VitShapleySettings)
        for share in lengths
    ]


def _probed(case: Case, probe: OpenData, images: int) -> Case:
    if not isinstance(probe.source, PairSet):
        raise UserError(f"probe={probe.name} is no data set of pairs: use mnist_pair")
    if tuple(probe.source.classes) != tuple(case.data.source.classes):
        raise UserError(f"probe={probe.name} has other classes than data={case.data.name}: use pairs of the same")
    if images < 2 or images % 2:
        raise UserError(f"probe_images={images} must be even and at least 2: two ask about one picture")
    # Rows 2i and 2i + 1 are the two questions about one picture.
    only = tuple(range(min(images, len(probe.source.labels(case.split)))))
    return replace(case, data=probe, name="probe", only=only, compared=None)
