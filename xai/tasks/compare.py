"""`task=compare`: any explainers of a classifier of your own, by any metrics; what is trained is asked for by name."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from xai.api.model import Model
from xai.classifiers.clip import clip_of_file
from xai.classifiers.networks import explained
from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.core.errors import UserError
from xai.core.files import fingerprint_file
from xai.core.folders import shown
from xai.core.progress import Stopwatch
from xai.core.runtime import Runtime, open_runtime, say_end, say_heading
from xai.core.settings import Count, build, settings
from xai.data.catalogue import OpenData, open_data
from xai.data.disk_set import tidy_name
from xai.data.images import crop_of
from xai.data.pictures import check_readable, find_pictures
from xai.explainers.rows import ALL, cost_of, every_row, load_row, made_from
from xai.metrics import registry as metrics
from xai.models.families import Geometry, NetworkParams, published_classes
from xai.models.files import read_spec
from xai.models.named import NamedParams
from xai.models.weights import read_weights
from xai.papers.families import AnyModel, classifier_stages, opened
from xai.papers.vectors.base import ModelParams
from xai.report.figures import open_figure
from xai.report.headline import compared
from xai.report.present import Told, present, source_of
from xai.study.case import Case, ExplainedModel, check_images, check_judge, facts
from xai.study.cost import asked_of, say_cost
from xai.study.effort import Quick, is_quick, lighter
from xai.study.frame import Frames
from xai.study.mosaic import mosaic_of, no_mosaic, probed, with_probe
from xai.study.scores import Chosen
from xai.study.statistics import best_and_ties, wide
from xai.study.study import Study, StudySettings, open_metrics, open_rows
from xai.tasks.picture import load_named, says_nothing
from xai.tasks.registry import Task

QUICK = (
    "Measured quickly (effort=quick): with few masks of each explainer that draws some and few points of each curve; "
    "effort=full takes as many as the papers, and several references."
)


@settings
class CompareSettings(StudySettings):
    """Settings of task=compare.

    Args:
        model: The classifier's family and architecture; a checkpoint of this framework says it itself.
        checkpoint: The classifier; null takes a published one, where the model is one.
        classes: Names of the classes of a classifier that is not of this framework, or a text file with one a line.
        image: A picture, a folder or a glob, or several, instead of a data set.
        classifier: How one would be trained; nothing is, unless no checkpoint is given and `train` is true.
        surrogate: How it is fine-tuned on masked images, where a trained explainer asks for it.
        effort: `quick` or `full`, as it was settled.
        rank_by: The column that says which explainer to trust.
        judge: The file of a second classifier of the same images and classes, for the metric `transfer`.
        reference: The row whose maps others are held against; null: none, and metrics that need one are left out.
        probe: A data set with several objects an image, for the grid pointing game; null: grids of four of the images.
        budget: Forward passes that a map of a row may cost that `rows=[all]` brings; null: any number.
    """

    title = "Explainers compared"

    model: AnyModel
    checkpoint: str | None
    classes: str | tuple[str, ...] | None
    image: str | tuple[str, ...] | None
    classifier: ClassifierParams
    surrogate: SurrogateParams
    effort: str
    rank_by: str
    judge: str | None
    reference: str | None
    probe: dict[str, Any] | None
    budget: Count | None


def _settle(values: dict[str, Any], typed: Sequence[str]) -> dict[str, Any]:
    """Fewer passes for a few pictures, unless the user has said how many, or that he waits."""
    data, image = values.get("data"), values.get("image")
    if image is None and isinstance(data, Mapping) and data.get("name") == "pictures":
        image = data.get("path")
    _check_quick(build(Quick, values["quick"], "quick"))
    effort = values["effort"]
    pictures = len(find_pictures(image, "image")) if image is not None and effort is None else None
    quick = is_quick(effort, pictures)
    if any(each.startswith("logger.") for each in typed):
        typed = [*typed, "logger"]  # whoever sets up a logger wants it
    found = lighter(values, values["quick"], typed) if quick else values
    return {**found, "effort": "quick" if quick else "full", "data": data if image else _as_seen(values, typed)}


def _as_seen(values: Mapping[str, Any], typed: Sequence[str]) -> Any:
    """Settings of data; photographs of which nobody has said how they are cut are cut as for the classifier."""
    data, file = values.get("data"), values.get("checkpoint")
    said = {f"data.{key}" for key in ("fit", "resize", "interpolation")} & set(typed)
    if not isinstance(data, Mapping) or said or (data.get("fit"), data.get("resize", 1)) != ("crop", None):
        return data
    found = _squares(opened(values["model"]), file if isinstance(file, str) else None)
    return {**data, **found, "resize": None if found["resize"] == data.get("size") else found["resize"]}


def _squares(model: Geometry, checkpoint: str | None) -> dict[str, Any]:
    """How photographs become squares for a classifier: as it was trained, or as its library does it."""
    said = None if checkpoint is None else read_spec(Path(checkpoint))
    if said is not None:
        return {"resize": said.side, "fit": said.fit, "interpolation": said.interpolation}
    fit, interpolation = (model.fit, model.interpolation) if isinstance(model, NamedParams) else ("crop", "bicubic")
    return {"resize": model.resized, "fit": fit, "interpolation": interpolation}


def _check_quick(quick: Quick) -> None:
    """Refuse what only a quick comparison would read, whether this is one or not."""
    for asked, rows in (("quick.rows", quick.rows), ("quick.explainers", quick.explainers)):
        for row in rows:
            load_row(row, quick.explainers, "quick.explainers", asked)
    for figure in quick.figures:
        open_figure(figure)
    open_metrics(quick.metrics, quick.metric, "quick.")


def run(asked: CompareSettings, output: Path) -> None:
    """Measure, and say which explainer to trust and what it costs."""
    watch = Stopwatch()
    named = _named(asked)
    data = open_data(with_classes(_pictures(asked), asked.checkpoint, named.classes if named else None), "data")
    named_rows = [name for name in asked.rows if name != ALL]
    rows = open_rows(named_rows, asked.explainers) if named_rows or not asked.rows else []
    chosen = open_metrics(asked.metrics, asked.metric)
    model: Any = asked.model
    runtime = open_runtime(asked, output, small=model.embedded and named is None)
    say_heading(data.name, model.name, seed=asked.seed)
    params = asked.case
    if data.name in ("pictures", "photos") and len(data.source.labels(params.split)) < (params.images or 0):
        # The number is there to keep a large split from being measured whole; of a few pictures all are meant.
        params = replace(params, images=None)
    check_images(data, params)
    probe = None if asked.probe is None else open_data(asked.probe, "probe")
    judge = None if asked.judge is None else _judge(asked, runtime, data)
    # What a row is made from costs what its settings here say.
    others = {name: load_row(name, asked.explainers) for name in asked.explainers}
    case = Case(runtime, _opened(asked, runtime, data, named), data, params, asked.seed, others=others, judge=judge)
    unfit: dict[str, str] = {}
    if ALL in asked.rows:
        more, unfit = every_row(rows, asked.explainers, partial(cost_of, case), asked.budget)
        rows = [*rows, *more]
    reference = None if asked.reference is None else load_row(asked.reference, asked.explainers, asked="reference")
    sources = made_from([*rows, *([] if reference is None else [reference])], asked.explainers)
    study = Study(rows, _cases(case, chosen, probe), sources, reference, unfit=unfit)
    watch.lap("start")
    blank, side = case.blank().eval(), case.model.image_size
    grey = torch.full((1, 3, side, side), 0.5, device=runtime.trainer.device)
    advice = "" if asked.effort == "quick" else "effort=quick asks less"
    say_cost(asked_of(study, blank.players), blank.to(grey.device), grey, advice)
    frames = study.run()
    watch.lap("maps and scores")
    lines = headline(frames, asked.rank_by)
    if asked.effort == "quick":
        lines.append(QUICK)
    # Maps of a second class cost as many passes again.
    page = present(study, frames, asked, output, Told(lines, grid=True, second=asked.effort != "quick"))
    watch.lap("tables, figures and the page")
    watch.tell()
    say_end(runtime, f"report: [bold]{shown(page)}[/]")


def _cases(case: Case, chosen: Sequence[Chosen], probe: OpenData | None) -> list[tuple[Case, Sequence[Chosen]]]:
    """The case; and where no image has several objects, grids of its images for the metric that is about them."""
    there = facts(case)["cells"] is None or (probe is None and no_mosaic(case) is not None)
    if there or not any("cells" in each.needs for each in chosen):
        return [(case, chosen)]
    return with_probe(case, chosen, mosaic_of(case) if probe is None else probed(case, probe))


def _judge(asked: CompareSettings, runtime: Runtime, data: OpenData) -> ExplainedModel:
    """The second classifier, from a file that says what it is.

    Raises:
        UserError: It is none, or takes other images than the first.
    """
    assert asked.judge is not None
    spec = read_spec(Path(asked.judge))
    if spec is None:
        read_weights(Path(asked.judge), what="judge")  # which says what is missing or damaged
    if spec is None or not isinstance(spec.model, NetworkParams):
        why = f"judge={asked.judge} is no classifier of this framework"
        raise UserError(f"{why}: task=train method=classifier makes one")
    check_judge(asked.judge, spec.model.image_size, asked.model.image_size)
    params = replace(asked.classifier, checkpoint=asked.judge)
    return explained(classifier_stages(runtime, spec.model, data, params, None, asked.seed))


def _pictures(asked: CompareSettings) -> Mapping[str, Any]:
    """Settings of the data set, or of the pictures that are asked for instead; these are cut as the classifier does."""
    data: Mapping[str, Any] = asked.data
    if asked.image is not None:
        check_readable(find_pictures(asked.image, "image"))
        data = {"name": "pictures", "path": asked.image, "size": asked.model.image_size}
    if data.get("name") == "pictures":
        known = _squares(asked.model, asked.checkpoint)
        known["share"] = crop_of(asked.model.image_size, known.pop("resize"))
        data = {**data, **{key: value for key, value in known.items() if data.get(key) is None}}
    return data


def _named(asked: CompareSettings) -> Model | None:
    """A classifier of timm or torchvision; None for one of ours.

    Raises:
        UserError: It cannot be read; names are given to one that has them, or nobody says those of one for pictures.
    """
    checkpoint, of_data = None if asked.checkpoint is None else Path(asked.checkpoint), asked.data.get("classes")
    if isinstance(asked.model, NamedParams):
        unlabelled = asked.data.get("name") in ("pictures", "photos")
        names = of_data if asked.classes is None and unlabelled else asked.classes
        return load_named(asked.model, checkpoint, names, asked.trainer.device)
    unlabelled = asked.image is not None or asked.data.get("name") in ("pictures", "photos")
    # Of `image` the data set says nothing, nor what its classes are called.
    unsaid = asked.classes is not None or asked.image is not None or of_data is None
    if checkpoint is not None and unlabelled and unsaid and read_spec(checkpoint, asked.model) is None:
        instead = "data=pictures data.path=PICTURES data.classes=names.txt in place of image and classes"
        kept = f"; or keep model, and give {instead}" if isinstance(asked.model, NetworkParams) else ""
        raise UserError(says_nothing(checkpoint, asked.model) + kept)
    if asked.classes is not None:
        raise UserError(f"classes={asked.classes}: model={asked.model.name} says itself what they are: leave it out")
    return None


def with_classes(
    data: Mapping[str, Any], checkpoint: str | None, named: tuple[str, ...] | None = None
) -> Mapping[str, Any]:
    """Settings of data; of pictures without labels with the classes that the classifier says, or ImageNet's.

    Raises:
        UserError: The file is missing or broken.
    """
    if data.get("name") not in ("pictures", "photos"):
        return data
    if named is not None:
        return {**data, "classes": named}
    if data.get("classes") is not None:
        return data
    said = None if checkpoint is None else read_spec(Path(checkpoint))
    classes = published_classes() if checkpoint is None else said and said.classes
    return {**data, "classes": classes}


def _opened(asked: CompareSettings, runtime: Runtime, data: OpenData, named: Model | None) -> ExplainedModel:
    """The classifier that is explained; UserError: there is none, or it does not fit the data set."""
    checkpoint = None if asked.checkpoint is None else Path(asked.checkpoint)
    if named is not None:
        return _explained(named, asked, data)
    if isinstance(asked.model, ModelParams):
        return clip_of_file(runtime, asked.model, data, _needed(checkpoint, asked.model.name))
    params = replace(asked.classifier, checkpoint=asked.checkpoint)
    assert isinstance(asked.model, NetworkParams)
    networks = classifier_stages(runtime, asked.model, data, params, asked.surrogate, asked.seed)
    if not networks.is_published:
        _needed(checkpoint, asked.model.name)
    return explained(networks)


def _explained(model: Model, asked: CompareSettings, data: OpenData) -> ExplainedModel:
    """A classifier of timm or torchvision as a study has it; its classes are those of the data set, in their order."""
    classes = tuple(data.source.classes)
    # Data sets say the names of folders as a prompt does: hot_dog is hot dog.
    alike = tuple(map(tidy_name, classes)) == tuple(map(tidy_name, model.classes))
    if len(classes) != len(model.classes) or (asked.classes is not None and not alike):
        raise UserError(
            f"{model.name} has {len(model.classes)} classes ({', '.join(model.classes[:3])}, ...), and "
            f"data={data.name} has {len(classes)} ({', '.join(classes[:3])}, ...): they have to be the same"
        )
    weights = None if asked.checkpoint is None else fingerprint_file(Path(asked.checkpoint))
    identity: dict[str, Any] = {"named": asdict(asked.model), "weights": weights}
    if asked.classes is not None and model.classes != classes:
        identity["classes"] = model.classes  # by which a CLIP tells images apart
    return ExplainedModel(
        model.name, lambda: identity, model.image_size, model.mean, classes, make=model.network, blank=model.network
    )


def _needed(checkpoint: Path | None, model: str) -> Path:
    if checkpoint is None:
        raise UserError(
            f"model={model} needs a checkpoint, for nothing is trained here: give checkpoint=FILE "
            "(task=train method=classifier makes one)"
        )
    return checkpoint


def headline(frames: Frames, column: str) -> list[str]:
    """Which explainer to trust, and what it costs."""
    source, known = source_of(frames), metrics.columns()[column]
    values = wide(source.scores, column)
    return compared(source, column, best_and_ties(values, known.better or "higher", known.quadratic))


TASK = Task("task=compare", CompareSettings, run, settle=_settle)
