"""The tasks and methods a user can name: each takes its settings, runs its stages, and shows what came of them."""

import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from xai.classifiers.params import SurrogateParams
from xai.classifiers.vit import VitStages
from xai.core import plugins
from xai.core.errors import UserError
from xai.core.files import explain_disk_errors
from xai.core.loggers import build_logger, closing_logger
from xai.core.progress import console
from xai.core.runtime import Runtime
from xai.core.settings import build, unknown
from xai.core.store import Store
from xai.data.catalogue import OpenData, open_data
from xai.settings import (
    ApplyConfig,
    ClassifierConfig,
    ExplainConfig,
    RankingConfig,
    StudyConfig,
    SurrogateConfig,
)
from xai.stages.families import FAMILIES, check_family, classifier_stages, family, settle
from xai.stages.removal import RemovalExamination
from xai.stages.supervision import open_supervision
from xai.tasks.compare import CompareSettings
from xai.tasks.compare import run as run_compare
from xai.tasks.study import STUDIES, run_study
from xai.tasks.supervise import SuperviseSettings
from xai.tasks.supervise import run as run_supervise


def run(config: DictConfig, output: Path, typed: Sequence[str] = ()) -> None:
    """Run one job.

    Args:
        config: As Hydra composed it.
        output: The folder of this run.
        typed: Keys that the user typed, such as `model` or `model.image_size`; the others are defaults.

    Raises:
        UserError: For whatever the user can mend.
    """
    values = _plain(config)
    plugins.load(_module_names(values.get("plugins", [])))
    schema, work = _chosen(values)
    values = _plain(_settled(config, schema, values, typed))
    known = {field.name for kind, _ in (*TASKS.values(), *METHODS.values()) for field in fields(kind)}
    known |= {field.name for paper in STUDIES.values() for field in fields(paper.settings)}
    for key in values:
        if key not in known:
            raise UserError(unknown(key, key, known))
    wanted = {field.name for field in fields(schema)}
    _check_family(schema, values)
    settings = build(schema, {key: value for key, value in values.items() if key in wanted})
    with closing_logger(), explain_disk_errors(output, "choose another folder with name=..."):
        output.mkdir(parents=True, exist_ok=True)
        work(settings, output)


def _module_names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(f"plugins={value} must be a list of modules, as in plugins=[my_package.my_module]")
    return value


def _chosen(values: dict[str, Any]) -> tuple[type[Any], Callable[[Any, Path], None]]:
    """What a configuration asks for: its task, or its method where the task is to run one."""
    if values.get("task") == "study":
        if values.get("study") not in STUDIES:
            raise UserError(unknown(f"study={values.get('study')}", str(values.get("study")), STUDIES))
        return STUDIES[str(values["study"])].settings, run_study
    key, choices = ("method", METHODS) if values.get("task") == "method" else ("task", TASKS)
    name = values.get(key)
    if name not in choices:
        raise UserError(unknown(f"{key}={name}", str(name), [*choices, *(["method"] if key == "task" else [])]))
    return choices[str(name)]


def _check_family(schema: type[Any], values: dict[str, Any]) -> None:
    """Refuse a model of a family that a task or method is not made for."""
    if isinstance(values.get("model"), dict):
        check_family(_families(schema), values["model"], _asked(values))


def _families(schema: type[Any]) -> tuple[Any, ...]:
    wanted = get_type_hints(schema)["model"]
    return get_args(wanted) or (wanted,)


def _asked(values: dict[str, Any]) -> str:
    return f"method={values['method']}" if values["task"] == "method" else f"task={values['task']}"


def _settled(config: DictConfig, schema: type[Any], values: dict[str, Any], typed: Sequence[str]) -> DictConfig:
    """The configuration with the model that the file of a checkpoint says it is of, where one is given."""
    group = values if "checkpoint" in get_type_hints(schema) else values.get("classifier")
    checkpoint = group.get("checkpoint") if isinstance(group, dict) else None
    given = values.get("model")
    if not isinstance(checkpoint, str) or not isinstance(given, dict):
        return config
    said = settle(given, Path(checkpoint), [key for key in typed if key.partition(".")[0] == "model"])
    held, families = family(said or given), _families(schema)
    if held not in families and held is not family(given):
        needed = " or ".join(FAMILIES[each].about for each in families)
        what = f"{checkpoint} holds {FAMILIES[held].about}"
        raise UserError(f"{what}, and {_asked(values)} needs {needed}: give such a checkpoint")
    # What refers to the model, such as the size of images, is to see this one.
    whole: Any = OmegaConf.to_container(config)
    own = whole["model"] if said and said["name"] == given.get("name") else {}
    return OmegaConf.create({**whole, "model": {**own, **said}}) if said else config


def _plain(config: DictConfig) -> dict[str, Any]:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} is not set: give it as {missing[0]}=...")
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _runtime(settings: Any, output: Path) -> Runtime:
    torch.use_deterministic_algorithms(True, warn_only=True)
    threads = settings.trainer.threads or (1 if settings.model.embedded else None)
    if threads:
        # Threads of a small operation mostly wait for each other, and on a busy machine for whole time slices.
        torch.set_num_threads(threads)
    return Runtime(Store(Path(settings.store)), settings.trainer, build_logger(settings.logger, output, settings.name))


def _classifier(settings: ClassifierConfig, output: Path) -> None:
    # A surrogate that nobody asks for is never made, so how it would be trained does not matter.
    _train(settings, None, "classifier", output)


def _surrogate(settings: SurrogateConfig, output: Path) -> None:
    _train(settings, settings.surrogate, "surrogate", output)


def _train(settings: ClassifierConfig, surrogate: SurrogateParams | None, kind: str, output: Path) -> None:
    data = open_data(settings.data, "data")
    runtime = _runtime(settings, output)
    _say_heading(data.name, settings.model.name, settings.seed)
    stages = classifier_stages(runtime, settings.model, data, settings.classifier, surrogate, settings.seed)
    written = stages.hand_over(kind, output)
    for shown, accuracy in stages.validation_accuracy(kind).items():
        console.print(f"  validation accuracy, {shown:<24} {accuracy:.3f}", highlight=False)
    console.print(f"store: {runtime.store.summary()} ({escape(os.path.relpath(runtime.store.root))})", highlight=False)
    console.print(f"[bold]{escape(os.path.relpath(written))}[/] is the {kind}", highlight=False)


def _study(settings: StudyConfig, output: Path) -> None:
    from xai.reports.study_run import run_study
    from xai.stages.study import Study, open_baselines

    data = open_data(settings.data, "data")
    probe = None if settings.probe is None else _probe(settings.probe)
    baselines = open_baselines(settings.baselines)
    runtime = _runtime(settings, output)
    _say_heading(data.name, settings.model.name, settings.seed)
    stages = VitStages(runtime, settings.model, data, settings.classifier, settings.surrogate, settings.seed)
    examination = RemovalExamination(stages, settings.evaluation, probe)
    study = Study(
        stages,
        examination,
        settings.salvage,
        settings.vit_shapley,
        baselines,
        settings.rows,
        settings.lengths,
        settings.likelihood,
    )
    run_study(study, output, settings.pictures, _command())


def _ranking(settings: RankingConfig, output: Path) -> None:
    from xai.papers.ranking.networks import RankingStages
    from xai.reports.ranking_study_run import run_ranking
    from xai.stages.perturbation import PerturbationExamination
    from xai.stages.ranking_study import RankingStudy, Rivals
    from xai.stages.study import open_baselines

    data = open_data(settings.data, "data")
    baselines = open_baselines(settings.baselines, pixels=True)
    runtime = _runtime(settings, output)
    _say_heading(data.name, settings.model.name, settings.seed)
    stages = classifier_stages(runtime, settings.model, data, settings.classifier, settings.surrogate, settings.seed)
    study = RankingStudy(
        RankingStages(stages, settings.ranking),
        PerturbationExamination(stages, settings.perturbation),
        settings.refinement,
        Rivals(stages if isinstance(stages, VitStages) else None, settings.salvage, settings.vit_shapley),
        baselines,
        settings.rows,
        settings.path_steps,
        settings.shortcut,
    )
    run_ranking(study, output, settings.pictures, _command())


def _probe(settings: Any) -> OpenData:
    if not isinstance(settings, dict):
        raise UserError(f"probe={settings} must be the settings of a data set: probe={{name: mnist_pair}}")
    return open_data(settings, "probe")


def _say_heading(data: str, model: str, seed: int) -> None:
    console.print(f"[bold]{escape(data)}[/], {escape(model)}, seed {seed}", highlight=False)


def _apply_vector(settings: ApplyConfig, output: Path) -> None:
    from xai.stages.apply_vector import apply_vector

    runtime = _runtime(settings, output)
    data = open_data(settings.data, "data")
    vector, checkpoint = Path(settings.vector), Path(settings.checkpoint)
    applied = apply_vector(
        runtime, settings.model, data, vector, checkpoint, settings.apply_vector, settings.seed, output
    )
    for name, before in applied.before.items():
        console.print(f"  {name:<14} {before:.3f} -> {applied.after[name]:.3f}", highlight=False)
    file = escape(os.path.relpath(applied.file))
    console.print(f"[bold]{file}[/] now explains itself; a picture of yours:", highlight=False)
    console.print(f"python run.py method=explain checkpoint={file} image=photo.png", highlight=False, soft_wrap=True)


def _explain(settings: ExplainConfig, output: Path) -> None:
    from xai.reports.explain_run import present_explanation
    from xai.stages.explain import explain_image
    from xai.stages.post_hoc import PostHocParams

    supervision = open_supervision(settings.supervision)
    post_hoc = PostHocParams(supervision, settings.objective, settings.refinement, settings.seed)
    checkpoint = None if settings.checkpoint is None else Path(settings.checkpoint)
    target = None if settings.target is None else str(settings.target)
    image = Path(settings.image)
    found = explain_image(settings.model, checkpoint, image, target, settings.trainer, post_hoc)
    present_explanation(found, image)


def _command() -> str:
    return shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])


TASKS: dict[str, tuple[type[Any], Callable[[Any, Path], None]]] = {
    "supervise": (SuperviseSettings, run_supervise),
    "compare": (CompareSettings, run_compare),
}
"""Name of a task other than running a method -> its settings and what runs it."""

METHODS: dict[str, tuple[type[Any], Callable[[Any, Path], None]]] = {
    "classifier": (ClassifierConfig, _classifier),
    "surrogate": (SurrogateConfig, _surrogate),
    "salvage": (StudyConfig, _study),
    "vit_shapley": (StudyConfig, _study),
    "ranking": (RankingConfig, _ranking),
    "apply_vector": (ApplyConfig, _apply_vector),
    "explain": (ExplainConfig, _explain),
}
"""Name of a method -> its settings and what runs it."""
