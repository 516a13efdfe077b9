"""The tasks and methods a user can name: each takes its settings, runs its stages, and shows what came of them."""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, get_type_hints

import torch
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from xai.artifacts import Store
from xai.config import build, unknown
from xai.errors import UserError
from xai.files import explain_disk_errors, write_atomically
from xai.loggers import LoggerParams, build_logger, closing_logger
from xai.models.vit import VitParams
from xai.progress import console
from xai.stages.apply_vector import ApplyParams
from xai.stages.base import ModelParams
from xai.stages.context import Lab, OpenData, open_data
from xai.stages.removal import EvaluationParams, RemovalExamination
from xai.stages.supervision import open_supervision
from xai.stages.transfer_params import TransferParams
from xai.stages.vit import VitStages
from xai.stages.vit_params import ClassifierParams, SalvageParams, SurrogateParams, VitShapleyParams
from xai.training import TrainerParams


@dataclass(frozen=True)
class Common:
    """Settings of every task and method."""

    task: str
    method: str
    name: str
    seed: int
    store: str
    trainer: TrainerParams
    logger: LoggerParams

    def __post_init__(self) -> None:
        """Refuse seeds that generators do not take."""
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed={self.seed} must lie between 0 and 2147483647")


@dataclass(frozen=True)
class TransferConfig(Common):
    """Settings of method=transfer."""

    model: ModelParams
    data: Any
    source: Any
    supervision: Any
    transfer: TransferParams
    pictures: int

    def __post_init__(self) -> None:
        """Refuse a negative number of pictures."""
        super().__post_init__()
        if self.pictures < 0:
            raise UserError(f"pictures={self.pictures} must be 0 or more")


@dataclass(frozen=True)
class SuperviseConfig(Common):
    """Settings of task=supervise."""

    model: ModelParams
    data: Any
    supervision: Any
    transfer: TransferParams
    checkpoint: str | None
    split: str
    images: int | None


@dataclass(frozen=True)
class ClassifierConfig(Common):
    """Settings of method=classifier."""

    model: VitParams
    data: Any
    classifier: ClassifierParams


@dataclass(frozen=True)
class SurrogateConfig(ClassifierConfig):
    """Settings of method=surrogate."""

    surrogate: SurrogateParams


@dataclass(frozen=True)
class StudyConfig(SurrogateConfig):
    """Settings of method=salvage and method=vit_shapley."""

    salvage: SalvageParams
    vit_shapley: VitShapleyParams
    baselines: Any
    rows: tuple[str, ...]
    evaluation: EvaluationParams
    probe: Any
    lengths: tuple[float, ...]
    likelihood: bool
    pictures: int

    def __post_init__(self) -> None:
        """Refuse a negative number of pictures, and rows without the method's own."""
        super().__post_init__()
        if self.pictures < 0:
            raise UserError(f"pictures={self.pictures} must be 0 or more")
        if self.method not in self.rows:
            raise UserError(f"rows has no {self.method}, which method={self.method} is about: add it")


@dataclass(frozen=True)
class ApplyConfig(Common):
    """Settings of method=apply_vector."""

    model: ModelParams
    data: Any
    vector: str
    checkpoint: str
    apply_vector: ApplyParams


@dataclass(frozen=True)
class ExplainConfig(Common):
    """Settings of method=explain; the model may be of either kind."""

    model: Any
    image: str
    checkpoint: str
    target: Any


def run(config: DictConfig, output: Path) -> None:
    """Run one job.

    Args:
        config: As Hydra composed it.
        output: The folder of this run.

    Raises:
        UserError: For whatever the user can mend.
    """
    values = _plain(config)
    schema, work = _chosen(values)
    known = {field.name for kind, _ in (*TASKS.values(), *METHODS.values()) for field in fields(kind)}
    for key in values:
        if key not in known:
            raise UserError(unknown(key, key, known))
    wanted = {field.name for field in fields(schema)}
    _check_family(schema, values)
    settings = build(schema, {key: value for key, value in values.items() if key in wanted})
    with closing_logger(), explain_disk_errors(output, "choose another folder with name=..."):
        output.mkdir(parents=True, exist_ok=True)
        work(settings, output)


def _chosen(values: dict[str, Any]) -> tuple[type[Any], Callable[[Any, Path], None]]:
    """What a configuration asks for: its task, or its method where the task is to run one."""
    key, choices = ("method", METHODS) if values.get("task") == "method" else ("task", TASKS)
    name = values.get(key)
    if name not in choices:
        raise UserError(unknown(f"{key}={name}", str(name), [*choices, *(["method"] if key == "task" else [])]))
    return choices[str(name)]


def _check_family(schema: type[Any], values: dict[str, Any]) -> None:
    """Refuse a model of the other family, or its settings would be told one by one to be misspelt."""
    wanted = get_type_hints(schema)["model"]
    if wanted not in _FAMILIES or not isinstance(values.get("model"), dict):
        return
    given = _family(values["model"])
    if given is not wanted:
        what, example = _FAMILIES[wanted]
        asked = f"method={values['method']}" if values["task"] == "method" else f"task={values['task']}"
        name = values["model"].get("name")
        raise UserError(f"model={name} is {_FAMILIES[given][0]}, and {asked} needs {what}: use model={example}")


def _family(model: dict[str, Any]) -> Any:
    """The kind of model that settings are of, by the settings that only this kind has; a CLIP where there are none."""
    own = {family: {field.name for field in fields(family)} for family in _FAMILIES}
    of_vit, of_clip = own[VitParams] - own[ModelParams], own[ModelParams] - own[VitParams]
    return VitParams if of_vit & set(model) and not of_clip & set(model) else ModelParams


def _plain(config: DictConfig) -> dict[str, Any]:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} is not set: give it as {missing[0]}=...")
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _lab(settings: Any, output: Path) -> Lab:
    torch.use_deterministic_algorithms(True, warn_only=True)
    threads = settings.trainer.threads or (1 if settings.model.embedded else None)
    if threads:
        # Threads of a small operation mostly wait for each other, and on a busy machine for whole time slices.
        torch.set_num_threads(threads)
    return Lab(Store(Path(settings.store)), settings.trainer, build_logger(settings.logger, output, settings.name))


def _transfer(settings: TransferConfig, output: Path) -> None:
    from xai.reports.transfer_run import present
    from xai.stages.transfer import Transfer

    source, target = open_data(settings.source, "source"), open_data(settings.data, "data")
    supervision = open_supervision(settings.supervision)
    lab = _lab(settings, output)
    console.print(
        f"[bold]{escape(source.name)} -> {escape(target.name)}[/], {escape(settings.model.name)}, seed {settings.seed}",
        highlight=False,
    )
    job = Transfer(lab, settings.model, source, target, supervision, settings.transfer, settings.seed)
    outcome = job.run()
    present(lab, job, outcome, output, settings.pictures, _command())


def _supervise(settings: SuperviseConfig, output: Path) -> None:
    from xai.stages.supervise import Supervise

    data, supervision = open_data(settings.data, "data"), open_supervision(settings.supervision)
    lab = _lab(settings, output)
    checkpoint = None if settings.checkpoint is None else Path(settings.checkpoint)
    job = Supervise(
        lab,
        settings.model,
        data,
        settings.split,
        supervision,
        settings.seed,
        settings.images,
        checkpoint,
        settings.transfer,
    )
    heading = f"[bold]{escape(data.name)} {escape(settings.split)}[/], {escape(settings.model.name)}"
    console.print(f"{heading}, {escape(supervision.name)}, seed {settings.seed}", highlight=False)
    written = job.run(output)
    file, size = escape(os.path.relpath(written.file)), " x ".join(map(str, (written.images, *written.grid)))
    store = escape(os.path.relpath(lab.store.root))
    console.print(f"store: {lab.store.summary()} ({store})", highlight=False, soft_wrap=True)
    console.print(f"[bold]{file}[/] holds {size} attributions; to use them:", highlight=False, soft_wrap=True)
    line = f"safetensors.torch.load_file({str(file)!r})"
    console.print(
        f"{line}  # rows [N] of the split, labels [N], attributions [N, h, w]", highlight=False, soft_wrap=True
    )


def _classifier(settings: ClassifierConfig, output: Path) -> None:
    # A surrogate that nobody asks for is never made, so how it would be trained does not matter.
    _train(settings, None, "classifier", output)


def _surrogate(settings: SurrogateConfig, output: Path) -> None:
    _train(settings, settings.surrogate, "surrogate", output)


def _train(settings: ClassifierConfig, surrogate: SurrogateParams | None, kind: str, output: Path) -> None:
    data = open_data(settings.data, "data")
    lab = _lab(settings, output)
    _say_heading(data.name, settings.model.name, settings.seed)
    stages = VitStages(lab, settings.model, data, settings.classifier, surrogate, settings.seed)
    written = stages.hand_over(kind, output)
    for shown, accuracy in stages.validation_accuracy(kind).items():
        console.print(f"  validation accuracy, {shown:<24} {accuracy:.3f}", highlight=False)
    console.print(f"store: {lab.store.summary()} ({escape(os.path.relpath(lab.store.root))})", highlight=False)
    console.print(f"[bold]{escape(os.path.relpath(written))}[/] is the {kind}", highlight=False)


def _study(settings: StudyConfig, output: Path) -> None:
    from xai.reports.study_run import run_study
    from xai.stages.study import Study, open_baselines

    data = open_data(settings.data, "data")
    probe = None if settings.probe is None else _probe(settings.probe)
    baselines = open_baselines(settings.baselines)
    lab = _lab(settings, output)
    _say_heading(data.name, settings.model.name, settings.seed)
    stages = VitStages(lab, settings.model, data, settings.classifier, settings.surrogate, settings.seed)
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


def _probe(settings: Any) -> OpenData:
    if not isinstance(settings, dict):
        raise UserError(f"probe={settings} must be the settings of a data set: probe={{name: mnist_pair}}")
    return open_data(settings, "probe")


def _say_heading(data: str, model: str, seed: int) -> None:
    console.print(f"[bold]{escape(data)}[/], {escape(model)}, seed {seed}", highlight=False)


def _apply_vector(settings: ApplyConfig, output: Path) -> None:
    from xai.stages.apply_vector import apply_vector

    lab = _lab(settings, output)
    data = open_data(settings.data, "data")
    vector, checkpoint = Path(settings.vector), Path(settings.checkpoint)
    applied = apply_vector(lab, settings.model, data, vector, checkpoint, settings.apply_vector, settings.seed, output)
    for name, before in applied.before.items():
        console.print(f"  {name:<14} {before:.3f} -> {applied.after[name]:.3f}", highlight=False)
    file = escape(os.path.relpath(applied.file))
    console.print(f"[bold]{file}[/] now explains itself; a picture of yours:", highlight=False)
    console.print(f"python run.py method=explain checkpoint={file} image=photo.png", highlight=False, soft_wrap=True)


def _explain(settings: ExplainConfig, output: Path) -> None:
    from xai.reports.figures import heatmap_overlay
    from xai.stages.explain import explain_image

    image = Path(settings.image)
    target = None if settings.target is None else str(settings.target)
    model = build(_family(settings.model), settings.model, "model")
    found = explain_image(model, Path(settings.checkpoint), image, target, settings.trainer)
    picture = heatmap_overlay((found.pixels * 255).round().to(torch.uint8), found.attributions)
    file = image.with_name(f"{image.stem}.explained.png")
    with explain_disk_errors(
        file.parent, "the heat map is written beside the picture: copy that to a folder you can write to"
    ):
        write_atomically(file, lambda temporary: picture.save(temporary, format="PNG"))
    console.print(
        escape(f"predicted: {found.predicted}; explained: {found.target} (probability {found.probability:.3f})"),
        highlight=False,
    )
    if not found.explains:
        console.print("this classifier has not learned to explain itself: give it a vector first (method=apply_vector)")
    console.print(f"heat map: [bold]{escape(str(file))}[/]", highlight=False)


def _command() -> str:
    return shlex.join(["python", os.path.relpath(sys.argv[0]), *sys.argv[1:]])


_FAMILIES: dict[Any, tuple[str, str]] = {
    ModelParams: ("a CLIP", "clip_tiny"),
    VitParams: ("a plain vision transformer", "vit_tiny"),
}
"""Settings of a kind of model -> what it is, and one to name as an example."""

TASKS: dict[str, tuple[type[Any], Callable[[Any, Path], None]]] = {"supervise": (SuperviseConfig, _supervise)}
"""Name of a task other than running a method -> its settings and what runs it."""

METHODS: dict[str, tuple[type[Any], Callable[[Any, Path], None]]] = {
    "transfer": (TransferConfig, _transfer),
    "classifier": (ClassifierConfig, _classifier),
    "surrogate": (SurrogateConfig, _surrogate),
    "salvage": (StudyConfig, _study),
    "vit_shapley": (StudyConfig, _study),
    "apply_vector": (ApplyConfig, _apply_vector),
    "explain": (ExplainConfig, _explain),
}
"""Name of a method -> its settings and what runs it."""
