"""The study of explainability vectors: lambda2 is chosen on validation images, everything else is measured on test."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from xai.core.runtime import Runtime
from xai.core.settings import settings
from xai.data.catalogue import open_data
from xai.data.registry import subset
from xai.explainers.registry import Row
from xai.explainers.rows import load_row
from xai.metrics import registry as metrics
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.explainers import MovedSettings
from xai.papers.vectors.params import TransferParams, choose_lambda2
from xai.papers.vectors.transfer import Transfer
from xai.study.case import Case, check_images
from xai.study.frame import Frames, join
from xai.study.params import StudySettings, open_metrics, open_rows
from xai.study.statistics import run_means
from xai.study.study import Study

_CHOOSING = ("agreement_with_reference", "classification")
_REFERENCE = "ft_target@validation"


@settings
class VectorsStudy(StudySettings):
    """Settings of study=vectors.

    Args:
        model: The CLIP.
        source: The data set whose explanations are learned; `data` is the target.
        supervision: The row whose maps are learned from, and are the reference.
        transfer: How everything is trained.
    """

    model: ModelParams
    source: Any
    supervision: str
    transfer: TransferParams


@dataclass(kw_only=True)
class TransferStudy(Study):
    """A study whose lambda2 is chosen on the way.

    Args:
        transfer: The networks.
        validation: The sweep over lambda2 on validation images, and what it is chosen by.
        lambda2: The one of the rows that name none; None: chosen by `run`.
    """

    transfer: Transfer
    validation: Study
    lambda2: float | None

    def run(self) -> Frames:
        """Choose lambda2, then measure; frames of both splits.

        Raises:
            UserError: No row fits.
        """
        frames = []
        if self.lambda2 is None:
            frames.append(self.validation.run())
            self.lambda2 = self._chosen(frames[0])
        self.rows = [_at(row, self.lambda2) for row in self.rows]
        self.tell()
        return join([super().run(), *frames])

    def _chosen(self, frames: Frames) -> float:
        squared = [column.name for column in metrics.columns().values() if column.quadratic]
        means = run_means(frames.scores, ["lambda2"], squared)
        is_reference = means["explainer"] == _REFERENCE
        before = means.loc[is_reference & (means["metric"] == "accuracy"), "value"].to_numpy()[0]
        table = means[~is_reference].set_index(["lambda2", "metric"])["value"].unstack("metric")
        return choose_lambda2(table, (1 - self.transfer.params.accuracy_tolerance) * float(before))


def open_study(asked: VectorsStudy, runtime: Runtime) -> TransferStudy:
    """The rows of one pair of data sets and one seed.

    Raises:
        UserError: What could not be measured after the training is refused before it.
    """
    source, target = open_data(asked.source, "source"), open_data(asked.data, "data")
    rows, chosen = open_rows(asked.rows, asked.explainers), open_metrics(asked.metrics, asked.metric)
    supervision, proposed, ft_target = (
        load_row(name, asked.explainers) for name in (asked.supervision, "proposed", "ft_target")
    )
    # Before anything is trained.
    check_images(target, asked.case)
    subset(target.source, "validation", asked.transfer.validation_images, asked.seed)
    transfer = Transfer(runtime, asked.model, source, target, supervision, asked.case.block, asked.transfer, asked.seed)
    model = transfer.explained(target, transfer.ft_target)
    case = Case(runtime, model, target, asked.case, asked.seed, source=source.name)
    validation = replace(
        case,
        name="validation",
        params=replace(asked.case, split="validation", images=asked.transfer.validation_images),
    )
    sweep = over_lambda2(proposed, asked.transfer.lambda2_grid)
    choosing = open_metrics([*asked.metrics, *_CHOOSING], asked.metric)
    return TransferStudy(
        [*rows, *sweep],
        [(case, chosen)],
        reference=supervision,
        transfer=transfer,
        validation=Study(
            [*sweep, replace(ft_target, name=_REFERENCE)], [(validation, choosing)], reference=supervision
        ),
        lambda2=asked.transfer.lambda2,
    )


def over_lambda2(row: Row, grid: Sequence[float]) -> list[Row]:
    """Figure 3: the row at every lambda2."""
    return [replace(_at(row, value, always=True), name=f"{row.name}@lambda2={value:g}") for value in grid]


def _at(row: Row, lambda2: float, always: bool = False) -> Row:
    """The row with this lambda2, where it wants one and none was given."""
    params = row.params
    if not isinstance(params, MovedSettings) or getattr(params, "parameters", "proposed") != "proposed":
        return row
    return replace(row, params=replace(params, lambda2=lambda2)) if always or params.lambda2 is None else row
