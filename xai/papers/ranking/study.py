"""The study of Learn to Rank: what is explained is the classifier, for its prediction, by maps of pixels."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

from omegaconf import OmegaConf
from pydantic import Field

from xai.classifiers.networks import explained
from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.core.composing import compose_choice
from xai.core.errors import UserError
from xai.core.runtime import Runtime
from xai.core.settings import Distinct, FieldError, settings
from xai.data.catalogue import OpenData, open_data
from xai.explainers.registry import Row, refusal
from xai.explainers.rows import load_row, made_from
from xai.models.families import NetworkParams
from xai.papers.families import AnyNetwork, classifier_stages, opened
from xai.papers.ranking.params import RankingSettings, RefinedSettings
from xai.papers.ranking.shortcut import Shortcut, ShortcutParams
from xai.study.case import Case, ExplainedModel, check_images
from xai.study.frame import Frames, join
from xai.study.study import Study, StudySettings, open_metrics, open_rows

_AFTER_STEPS = re.compile(r"_t\d+$")


@settings
class RankingStudy(StudySettings):
    """Settings of study=ranking.

    Args:
        model: The vision transformer or CNN.
        classifier: How it is trained.
        surrogate: How it is fine-tuned on masked images, where SALVAGE or ViT-Shapley is among the rows.
        path_steps: Numbers S of points on a path to train `ranking` with as well (Figure 3b).
        shortcut: The mark that Figure 5 looks for; null looks for none.
        judge: A model of conf/model, trained apart on the same images, which the metric `transfer` asks; null is none.
    """

    title = "Learn to Rank"

    model: AnyNetwork
    classifier: ClassifierParams
    surrogate: SurrogateParams
    path_steps: Annotated[tuple[Annotated[int, Field(ge=3, le=1000)], ...], Distinct]
    shortcut: ShortcutParams | None
    judge: str | None = None

    def __post_init__(self) -> None:
        """Refuse another class than the predicted one, which the columns of the true class stand beside."""
        if self.case.targets != "predicted":
            raise FieldError("case.targets", f"{self.case.targets} is not what study=ranking explains: use predicted")


@dataclass
class StudyWithShortcut(Study):
    """The rows of a table, and what Figure 5 asks."""

    shortcut: Shortcut | None = None

    def run(self) -> Frames:
        """Measure what is missing, find the rest; see `Study.run`."""
        found = super().run()
        return found if self.shortcut is None else join([found, self.shortcut.measured()])


def open_study(asked: RankingStudy, runtime: Runtime) -> StudyWithShortcut:
    """The rows of one model, one data set and one seed.

    Raises:
        UserError: What could not be measured after the training is refused before it.
    """
    data = open_data(asked.data, "data")
    rows, metrics = open_rows(asked.rows, asked.explainers), open_metrics(asked.metrics, asked.metric)
    check_images(data, asked.case)
    stages = classifier_stages(runtime, asked.model, data, asked.classifier, asked.surrogate, asked.seed)
    others = {name: load_row(name, asked.explainers) for name in ("ranking", "constant_pixels")}
    needed = made_from(rows, asked.explainers)
    others |= needed
    derived = [*over_steps(rows), *over_path_steps(others["ranking"], rows, asked.path_steps)]
    judge = None if asked.judge is None else _judge(asked, runtime, data)
    case = Case(runtime, explained(stages), data, asked.case, asked.seed, others=others, judge=judge)
    for row in (*rows, *needed.values(), *([] if asked.shortcut is None else [others["ranking"]])):
        # What the study is about is no row to be left out: its settings are to be mended.
        if isinstance(row.params, RankingSettings) and (reason := refusal(row.entry, row.params, case)):
            raise UserError(f"explainers.{row.name}: {reason}")
    shortcut = None
    if asked.shortcut is not None:
        maps = [load_row(f"{start}_t1", asked.explainers) for start in ("ranking", "flat")]
        ranked, flat = ([_after(row, step, rows) for step in range(_steps(row) + 1)] for row in maps)
        shortcut = Shortcut(stages, case, asked.shortcut, [others["ranking"], *ranked[1:]], flat)
    return StudyWithShortcut([*rows, *derived], [(case, metrics)], others, shortcut=shortcut)


def _judge(asked: RankingStudy, runtime: Runtime, data: OpenData) -> ExplainedModel:
    """The second classifier, trained as the first one is.

    Raises:
        UserError: It is none, or takes other images than the first.
    """
    name = str(asked.judge)
    # Below `model`, which its own settings refer to.
    values: Any = OmegaConf.to_container(
        OmegaConf.create({"model": compose_choice("model", name, "judge")}), resolve=True
    )
    model = opened(values["model"])
    if not isinstance(model, NetworkParams) or model.image_size != asked.model.image_size:
        raise UserError(f"judge={name} must be a network for images of {asked.model.image_size} px, as the first is")
    classifier = replace(asked.classifier, checkpoint=None)
    return explained(classifier_stages(runtime, model, data, classifier, None, asked.seed))


def over_steps(rows: Sequence[Row]) -> list[Row]:
    """Figure 3a: the maps after every number of steps 1 ... T of what some row refines."""
    found: dict[str, Row] = {}
    for row in rows:
        if isinstance(row.params, RefinedSettings):
            after = (_after(row, step, rows) for step in range(1, row.params.steps + 1))
            found |= {each.name: each for each in after if each not in rows}
    return list(found.values())


def over_path_steps(ranking: Row, rows: Sequence[Row], path_steps: Sequence[int]) -> Iterator[Row]:
    """Figure 3b: the explainer trained with other numbers S of points on a path, where it is a row."""
    params = ranking.params
    assert isinstance(params, RankingSettings)
    for steps in path_steps if ranking in rows else ():
        if steps != params.objective.steps:
            objective = replace(params.objective, steps=steps)
            yield replace(ranking, name=f"{ranking.name}@S={steps}", params=replace(params, objective=objective))


def _steps(row: Row) -> int:
    assert isinstance(row.params, RefinedSettings)
    return row.params.steps


def _after(row: Row, step: int, rows: Sequence[Row]) -> Row:
    """The same refinement after another number of steps: a row that is there already, or one for figures alone."""
    assert isinstance(row.params, RefinedSettings)
    params = replace(row.params, step=step)
    there = next((each for each in rows if each.entry is row.entry and each.params == params), None)
    return there or replace(row, name=f"{_AFTER_STEPS.sub('', row.name)}@t{step}", params=params)
