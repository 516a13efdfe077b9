"""The tasks and methods a user can name: each takes its settings, runs its stages, and shows what came of them."""

import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape

from xai.artifacts import Store
from xai.config import build, unknown
from xai.errors import UserError
from xai.files import explain_disk_errors, write_atomically
from xai.loggers import LoggerParams, build_logger, closing_logger
from xai.progress import console
from xai.stages.apply_vector import ApplyParams
from xai.stages.base import ModelParams
from xai.stages.context import Lab, open_data
from xai.stages.supervision import open_supervision
from xai.stages.transfer_params import TransferParams
from xai.training import TrainerParams


@dataclass(frozen=True)
class Common:
    """Settings of every task and method."""

    task: str
    method: str
    name: str
    seed: int
    store: str
    model: ModelParams
    trainer: TrainerParams
    logger: LoggerParams

    def __post_init__(self) -> None:
        """Refuse seeds that generators do not take."""
        if not 0 <= self.seed < 2**31:
            raise UserError(f"seed={self.seed} must lie between 0 and 2147483647")


@dataclass(frozen=True)
class TransferConfig(Common):
    """Settings of method=transfer."""

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

    data: Any
    supervision: Any
    transfer: TransferParams
    checkpoint: str | None
    split: str
    images: int | None


@dataclass(frozen=True)
class ApplyConfig(Common):
    """Settings of method=apply_vector."""

    data: Any
    vector: str
    checkpoint: str
    apply_vector: ApplyParams


@dataclass(frozen=True)
class ExplainConfig(Common):
    """Settings of method=explain."""

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


def _plain(config: DictConfig) -> dict[str, Any]:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} is not set: give it as {missing[0]}=...")
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def _lab(settings: Common, output: Path) -> Lab:
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
    found = explain_image(settings.model, Path(settings.checkpoint), image, target, settings.trainer)
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


TASKS: dict[str, tuple[type[Any], Callable[[Any, Path], None]]] = {"supervise": (SuperviseConfig, _supervise)}
"""Name of a task other than running a method -> its settings and what runs it."""

METHODS: dict[str, tuple[type[Any], Callable[[Any, Path], None]]] = {
    "transfer": (TransferConfig, _transfer),
    "apply_vector": (ApplyConfig, _apply_vector),
    "explain": (ExplainConfig, _explain),
}
"""Name of a method -> its settings and what runs it."""
