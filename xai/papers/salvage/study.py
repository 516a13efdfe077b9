"""The study of SALVAGE: what is explained is the surrogate, and pairs of objects ask for the grid pointing game."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from xai.classifiers.explained import explained
from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.classifiers.vit import VitStages
from xai.core.errors import UserError
from xai.core.runtime import Runtime
from xai.data.catalogue import OpenData, open_data
from xai.data.pair import PairSet
from xai.explainers.registry import Row
from xai.models.vit import VitParams
from xai.papers.salvage.explainers import SalvageSettings, VitShapleySettings
from xai.study.case import Case
from xai.study.params import StudySettings, open_metrics, open_rows
from xai.study.scores import Chosen
from xai.study.study import Study

PROBE = "grid_pointing"
"""The metric that pairs of objects are for."""


@dataclass(frozen=True)
class SalvageStudy(StudySettings):
    """Settings of study=salvage.

    Args:
        model: The vision transformer.
        classifier: How it is trained.
        surrogate: How it is fine-tuned on masked images.
        probe: The data set of pairs, null where there is no probe.
        probe_images: Images of it; even, for two ask about one picture.
        lengths: Shares of the training at which Figure 7 looks.
    """

    model: VitParams
    classifier: ClassifierParams
    surrogate: SurrogateParams
    probe: Any
    probe_images: int
    lengths: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse a probe that asks half a question."""
        super().__post_init__()
        if self.probe_images < 2 or self.probe_images % 2:
            raise UserError(f"probe_images={self.probe_images} must be even and at least 2: two ask about one picture")
        if self.probe is not None and not isinstance(self.probe, Mapping):
            raise UserError(f"probe={self.probe} must be the settings of a data set: probe={{name: mnist_pair}}")


def open_study(settings: SalvageStudy, runtime: Runtime) -> Study:
    """The rows of one model, one data set and one seed.

    Raises:
        UserError: What could not be measured after the training is refused before it.
    """
    data = open_data(settings.data, "data")
    probe = None if settings.probe is None else open_data(settings.probe, "probe")
    rows = open_rows(settings.rows, settings.explainers)
    metrics = open_metrics(settings.metrics, settings.metric)
    networks = VitStages(runtime, settings.model, data, settings.classifier, settings.surrogate, settings.seed)
    surrogate, classifier = explained(networks, "surrogate"), explained(networks, "classifier")
    case = Case(runtime, surrogate, data, settings.case, settings.seed, compared=classifier)
    cases: list[tuple[Case, Sequence[Chosen]]] = [(case, [each for each in metrics if each.metric.name != PROBE])]
    pairs = [each for each in metrics if each.metric.name == PROBE]
    if probe is not None:
        cases.append((_probed(case, probe, settings.probe_images), pairs))
    return Study([*rows, *over_length(rows, settings.lengths)], cases)


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
    # Rows 2i and 2i + 1 are the two questions about one picture.
    only = tuple(range(min(images, len(probe.source.labels(case.split)))))
    return replace(case, data=probe, name="probe", only=only, compared=None)
