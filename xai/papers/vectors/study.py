"""The study of explainability vectors: alpha and lambda2 are chosen on validation images, the rest on test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from xai.core.runtime import Runtime
from xai.core.settings import Count, settings
from xai.data.catalogue import check_side, open_data
from xai.data.registry import subset
from xai.explainers.registry import Row
from xai.explainers.rows import load_row, warn_of_grey
from xai.models.spec import square_of
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.choice import Choice, choose
from xai.papers.vectors.explainers import MovedSettings
from xai.papers.vectors.transfer import Transfer, TransferParams
from xai.study.case import Case, check_images
from xai.study.frame import Frames, Measurement, frames, join
from xai.study.maps import explain
from xai.study.mosaic import check_probe, probed, with_probe
from xai.study.scores import Scores
from xai.study.study import Study, StudySettings, open_metrics, open_rows

_CHOOSING = ("e_rmse", "accuracy")
_REFERENCE = "ft_target@validation"


@settings
class VectorsStudy(StudySettings):
    """Settings of study=vectors.

    Args:
        model: The CLIP.
        source: The data set whose explanations are learned; `data` is the target.
        supervision: The row whose maps are learned from, and are the reference.
        transfer: How everything is trained.
        top: Patches that the pictures of Figure 4 show: those of the highest attribution.
        probe: A data set of several objects an image, for the metric grid_pointing; null: none.
    """

    title = "Explainability vectors"

    model: ModelParams
    source: Any
    supervision: str
    transfer: TransferParams
    top: Count
    probe: dict[str, Any] | None


@dataclass(kw_only=True)
class TransferStudy(Study):
    """A study whose alpha and lambda2 are chosen on the way.

    Args:
        transfer: The networks; at the alpha of the choice as soon as there is one.
        choosing: By alpha, the sweep over lambda2 on validation images; the first measures ft target beside it.
        choice: What the rows are at that name no lambda2; None: chosen by `run`.
        top: Patches that pictures show.
    """

    transfer: Transfer
    choosing: Mapping[float, Study]
    choice: Choice | None
    top: int

    def run(self) -> Frames:
        """Choose, then measure; frames of both splits; UserError: no row fits."""
        choosing = []
        if self.choice is None:
            choosing = [each.run() for each in self.choosing.values()]
            self.choice = _chosen(join(choosing).scores, self.transfer.params.accuracy_tolerance)
        self.transfer = self.transfer.at(self.choice.alpha)
        self.cases = [(_of(case, self.transfer), asked) for case, asked in self.cases]
        self.rows = [_at(row, self.choice.lambda2) for row in self.rows]
        self.tell()
        return join([super().run(), *choosing, self._theory()])

    def _theory(self) -> Frames:
        """What is known of the transfer before its maps are looked at, as lines of the row that is transferred."""
        case = self.cases[0][0]
        row = next((row for row in self.rows if row.name == "proposed"), None)
        if row is None:
            return frames([])
        found = self.transfer.diagnostics(bound=any(row.name == "ft_target_x" for row in self.rows))
        columns = {name: torch.tensor([value], dtype=torch.float64) for name, value in found.items()}
        return frames([Measurement(case, row, explain(case, row), {"theory": Scores(case.rows, columns, {}, {})})])


def _of(case: Case, transfer: Transfer) -> Case:
    return replace(case, model=replace(case.model, networks=transfer))


def _chosen(scores: pd.DataFrame, tolerance: float) -> Choice:
    by_candidate = ["alpha", "lambda2"]
    of_rows, reference = scores[scores["explainer"] != _REFERENCE], scores[scores["explainer"] == _REFERENCE]
    error, right = (
        of_rows[of_rows["metric"] == metric].pivot_table("value", "image", by_candidate) for metric in _CHOOSING
    )
    before = reference[reference["metric"] == "accuracy"].set_index("image")["value"].loc[right.index]
    candidates = [(float(each[0]), float(each[1])) for each in right.columns]
    return choose(candidates, error.to_numpy() ** 2, right.to_numpy(), before.to_numpy(), tolerance)


def open_study(asked: VectorsStudy, runtime: Runtime) -> TransferStudy:
    """The rows of one pair of data sets and one seed.

    Raises:
        UserError: What could not be measured after the training is refused before it.
    """
    source, target = open_data(asked.source, "source"), open_data(asked.data, "data")
    rows, chosen = open_rows(asked.rows, asked.explainers), open_metrics(asked.metrics, asked.metric)
    supervision, proposed, ft_target = (
        load_row(name, asked.explainers, asked=typed)
        for name, typed in ((asked.supervision, "supervision"), ("proposed", "rows"), ("ft_target", "rows"))
    )
    # Before anything is trained.
    check_images(target, asked.case)
    for each in (source, target):
        check_side(each, asked.model.image_size, asked.model.name)
    probe = None if asked.probe is None else open_data(asked.probe, "probe")
    if probe is not None:
        check_probe(probe, target.name, target.source.classes)
    subset(target.source, "validation", asked.transfer.validation_images, asked.seed)
    photographs = [each.name for each in (source, target) if square_of(each.spec) is not None]
    warn_of_grey(supervision, asked.explainers.get(asked.supervision, {}), photographs)
    params = asked.transfer
    alphas = params.alpha_grid if params.alpha is None else (params.alpha,)
    lambdas = params.lambda2_grid if params.lambda2 is None else (params.lambda2,)
    transfer = Transfer(
        runtime, asked.model, source, target, supervision, asked.case.block, params, alphas[0], asked.seed
    )
    transfer.train_classifiers()
    case = Case(
        runtime, transfer.explained(target, transfer.ft_target), target, asked.case, asked.seed, source=source.name
    )
    validation = replace(
        case, name="validation", params=replace(asked.case, split="validation", images=params.validation_images)
    )
    cases = with_probe(case, chosen, None if probe is None else probed(case, probe))
    # Maps of a second class have references of their own, which the choice does without.
    measured = open_metrics([*asked.metrics, *_CHOOSING], asked.metric)
    measured = [each for each in measured if not each.needs & {"second", "cells"}]
    choosing: dict[float, Study] = {}
    for alpha in alphas:
        settings = f"alpha={alpha:g}," if len(alphas) > 1 else ""
        sweep = over_lambda2(proposed, lambdas, settings)
        if not choosing:
            sweep.append(replace(ft_target, name=_REFERENCE))
        choosing[alpha] = Study(sweep, [(_of(validation, transfer.at(alpha)), measured)], reference=supervision)
    return TransferStudy(
        [*rows, *over_lambda2(proposed, params.lambda2_grid)],
        cases,
        reference=supervision,
        transfer=transfer,
        choosing=choosing,
        choice=Choice(alphas[0], lambdas[0]) if len(alphas) == len(lambdas) == 1 else None,
        top=asked.top,
    )


def over_lambda2(row: Row, grid: Sequence[float], settings: str = "") -> list[Row]:
    """Figure 3: the row at every lambda2."""
    return [replace(_at(row, value, always=True), name=f"{row.name}@{settings}lambda2={value:g}") for value in grid]


def _at(row: Row, lambda2: float, always: bool = False) -> Row:
    """The row with this lambda2, where it wants one and none was given."""
    params = row.params
    if not isinstance(params, MovedSettings) or getattr(params, "parameters", "proposed") != "proposed":
        return row
    return replace(row, params=replace(params, lambda2=lambda2)) if always or params.lambda2 is None else row
