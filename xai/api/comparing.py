"""Which explainer to trust: several of them, several metrics, one frame. And what there is of both."""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch

from xai.api.case import InMemory, case_of, explained_by, row_of, workplace
from xai.api.door import lacking, one_line
from xai.api.explaining import check_explains
from xai.api.model import Model, check_model
from xai.core.composing import choices, shipped
from xai.core.errors import UserError
from xai.explainers import registry as explainer_registry
from xai.explainers.registry import Row, refusal
from xai.metrics import registry as metric_registry
from xai.study.case import Case, check_judge
from xai.study.effort import is_quick, lighter
from xai.study.frame import Frames, Measurement
from xai.study.study import Study, open_metrics

_SHORT = {name: f"{name}_auc" for name in ("deletion", "insertion", "difference")}
_COLUMNS = ["explainer", "label", "kind", "metric", "image", "value", "chance"]


def compare(
    model: Model,
    images: Any,
    labels: Any = None,
    explainers: Sequence[Any] | Any = None,
    metrics: Sequence[str] | str = ("srg", "difference"),
    *,
    effort: str | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    metric: Mapping[str, Mapping[str, Any]] | None = None,
    judge: Model | None = None,
    reference: Any = None,
    normalised: bool = False,
    block: int = 10,
    seed: int = 0,
) -> pd.DataFrame:
    """Score explainers of a classifier on images.

    Args:
        model: Of `xai.load` or `xai.wrap`.
        images: Pictures (PIL, or paths), uint8, or floats [B, 3, H, W] in [0, 1].
        labels: True classes, numbers or names, where they are known; then these are explained, else the predicted ones.
        explainers: As `xai.explain` takes them; or each by a name, `{"few": xai.explainer(model, "rise", masks=50)}`,
            or `{"rise": {"masks": 50}}`; None takes those of `task=compare` that fit, controls among them.
        metrics: As `xai.metrics()` lists them; `deletion`, `insertion` and `difference` are the areas under curves.
        effort: `quick` takes fewer passes for each map and each score, `full` those of the papers; None is quick for up
            to twenty images. What is asked for by name is not changed.
        settings: By explainer, settings instead of its own.
        metric: By metric family, settings instead of its own.
        judge: A second model of the same classes and image size, trained apart, which the metric `transfer` asks.
        reference: The explainer whose maps others are held against, for the metrics that need one.
        normalised: Whether the floats have been normalised as the model does, which is undone.
        block: Images that are explained together.
        seed: Of all that is drawn.

    Returns:
        One line for explainer, metric and image: explainer, label, kind, metric, image, value, chance (what knowing
        nothing would score; NaN where nobody has said). `frame.attrs` has `milliseconds` an image by explainer, and
        `left_out`: why explainers or metrics are not there.

    Raises:
        UserError: What was asked for by name does not fit; in one line.
    """
    check_model(model)
    ours = shipped("task/compare")
    pixels = model.pixels(images, normalised=normalised)
    known = None if labels is None else model.targets(labels, pixels)
    if is_quick(effort, len(pixels)):
        ours = lighter(ours, ours["quick"])
    rows = _rows(model, explainers, ours, settings or {})
    if judge is not None:
        _check_judge(model, judge)
    check_explains(reference, model)
    against = None if reference is None else row_of(reference, {}, model.fitted)
    if metrics is None or isinstance(metrics, Mapping) or not _listed(metrics):
        raise UserError(f"metrics={metrics!r} names none: give a list of them; settings are metric={{family: ...}}")
    wanted = {_SHORT.get(name, name) for name in _listed(metrics)}
    chosen = open_metrics(sorted(wanted), _of_metrics(wanted, ours, metric or {}))
    with workplace(model.device) as runtime:
        targets = "predicted" if known is None else "label"
        case = case_of(runtime, model, InMemory(model.classes, pixels, known), targets=targets, block=block, seed=seed)
        case = replace(case, judge=None if judge is None else explained_by(replace(judge, device=model.device)))
        study = _Careful(rows, [(case, chosen)], reference=against, strict=explainers is not None)
        found = study.run()
    return _frame(found, study.unfit, wanted)


class _Careful(Study):
    """A study of a stranger's network: what fails on it is told in a line, and left out where nobody named it."""

    def measuring(self, case: Case, row: Row) -> Callable[[], Measurement | None]:
        """As a study does it."""
        measure = super().measuring(case, row)

        def carefully() -> Measurement | None:
            try:
                with one_line(f"{row.name} on {case.model.name}"):
                    return measure()
            except UserError as error:
                if self.strict:
                    raise
                self.unfit[row.name] = str(error)
                return None

        return carefully


def _check_judge(model: Model, judge: Model) -> None:
    """Refuse a second classifier that cannot be asked about the maps of the first.

    Raises:
        UserError: Other classes, or another image size.
    """
    check_model(judge)
    if judge.classes != model.classes:
        raise UserError(f"judge={judge.name} has other classes than {model.name}: it is asked about the same ones")
    check_judge(judge.name, judge.image_size, model.image_size)


def _listed(values: Any) -> list[Any]:
    """A list, also where one thing alone was given."""
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]


def _rows(model: Model, asked: Any, ours: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    names = _listed(ours["rows"] if asked is None else asked)
    if not names:
        raise UserError("explainers is empty: name some, or leave it out")
    rows = [_row(model, each, asked[each] if isinstance(asked, Mapping) else None, ours, settings) for each in names]
    if twice := {row.name for row in rows if sum(row.name == each.name for each in rows) > 1}:
        raise UserError(f"{min(twice)} is there twice: give each a name of its own, explainers={{name: explainer}}")
    spare = sorted(set(settings) - {row.name for row in rows})
    if spare:
        raise UserError(f"settings of {', '.join(spare)}, which is not among the explainers: leave them out")
    return rows


def _row(
    model: Model, name: Any, given: Any, ours: Mapping[str, Any], settings: Mapping[str, Mapping[str, Any]]
) -> Row:
    """A row of an explainer's name or of one that is made, by itself or `given` with settings or under a name.

    `settings` are by the name of the row, and those of ours by the explainer's.
    """
    alone = given is None or isinstance(given, Mapping)
    explainer = name if alone else given
    check_explains(explainer, model)
    called = name if isinstance(name, str) else row_of(explainer, {}, model.fitted).name
    own = ours["explainers"].get(explainer, {}) if isinstance(explainer, str) and explainer not in model.fitted else {}
    row = row_of(
        explainer, {**own, **settings.get(called, {}), **(given if isinstance(given, Mapping) else {})}, model.fitted
    )
    return row if alone else replace(row, name=str(name), label=str(name))


def _of_metrics(wanted: set[str], ours: Mapping[str, Any], asked: Mapping[str, Any]) -> dict[str, Any]:
    given = {**ours["metric"], **asked}
    if not {"removal", "r_srg", "r_lif", "r_mif"} & wanted and "removal" not in asked:
        given["removal"] = {**given["removal"], "masks": 0}  # the relative scores cost most of the passes
    return given


def _frame(found: Frames, unfit: Mapping[str, str], wanted: set[str]) -> pd.DataFrame:
    """The scores that were asked for, and beside them why others are not there."""
    frame, reasons = found.scores, dict(unfit)
    for line in found.left_out.to_dict("records"):
        reasons[f"{line['explainer']}, {line['metric']}"] = str(line["reason"])
    if not len(frame):
        raise UserError("nothing could be measured: " + "; ".join(f"{name}: {why}" for name, why in reasons.items()))
    families = {name for name in wanted if name in metric_registry.names()}
    if not families:
        frame = frame[frame.metric.isin(wanted)]
    frame = frame[_COLUMNS].reset_index(drop=True)
    frame.attrs["milliseconds"] = dict(zip(found.costs.explainer, found.costs.milliseconds, strict=True))
    frame.attrs["left_out"] = reasons
    absent = sorted(wanted - families - set(frame.metric))
    if absent:
        warnings.warn(f"no explainer could be scored by {', '.join(absent)}: see frame.attrs['left_out']", stacklevel=3)
    return frame


def explainers(model: Model | None = None) -> pd.DataFrame:
    """The explainers there are, and of a model which of them fit.

    Args:
        model: Of `xai.load` or `xai.wrap`; None asks for no model.

    Returns:
        One line for each, by name: label, kind, about, class_specific, level (`patch`, `pixel`, or `either`, by its
        setting `resolution`; empty where settings are needed), and with a model `fits` and `why_not`.
    """
    if model is not None:
        check_model(model)
    lines = []
    names = sorted({*explainer_registry.names(), *(model.fitted if model else ())})
    with workplace(torch.device("cpu") if model is None else model.device) as runtime:
        case, absent = None, {}
        if model is not None:
            with torch.inference_mode(False):  # in which nothing can have gradients
                blank = torch.full((1, 3, model.image_size, model.image_size), 0.5)
                absent = lacking(model.network(), blank)
            case = case_of(runtime, model, InMemory(model.classes, blank))
        for name in names:
            reason: str | None
            level = ""
            row = _alone(name, model.fitted if model else {})
            if row is None:
                info, reason = explainer_registry.entry(name).info, "it is a row of a study: settings are needed"
            else:
                info, level = row.entry.info, "pixel" if row.params.of_pixels else "patch"
                level = "either" if hasattr(row.params, "resolution") else level
                reason = None if case is None else refusal(row.entry, row.params, case)
                reason = reason or next((absent[need] for need in sorted(info.needs) if need in absent), None)
            line = {"name": name, "label": info.label, "kind": info.kind, "about": info.about}
            line |= {"class_specific": info.class_specific, "level": level}
            lines.append(line if model is None else {**line, "fits": reason is None, "why_not": reason or ""})
    return pd.DataFrame(lines).set_index("name")


def _alone(name: str, fitted: Mapping[str, Any]) -> Row | None:
    """The row of an explainer by its name alone; None where a row of a study gives settings that have no defaults."""
    try:
        return row_of(name, {}, fitted)
    except UserError:
        if name in fitted or name in choices("explainer"):
            raise
        return None


def metrics() -> pd.DataFrame:
    """The metrics there are: by name label, about, better (`higher` or `lower`), and what each needs."""
    lines = []
    for name, column in metric_registry.columns().items():
        needs = metric_registry.metric_of(name).needs | column.needs
        line = {"name": name, "label": column.label, "about": column.about, "better": column.better or ""}
        lines.append({**line, "needs": ", ".join(sorted(needs))})
    return pd.DataFrame(lines).set_index("name")
