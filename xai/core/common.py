"""The settings of every job, and of a sweep of jobs, checked before torch is imported wherever that can be."""

import os
from contextlib import AbstractContextManager
from dataclasses import field, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from xai.core.launching import cores
from xai.core.settings import Count, FieldError, NonNegative, build, settings

if TYPE_CHECKING:
    import torch


@settings
class TrainerParams:
    """Where and how to compute.

    Args:
        accelerator: `auto` (a GPU where there is one), `cpu` or `gpu`.
        precision: `32-true`, `bf16-mixed` or `16-mixed`.
        devices: How many GPUs train together, or processes on the CPU. Each takes `batch_size` images a step, so a step
            sees `batch_size * devices`. What is not training uses one.
        workers: Processes that read images from disk in training, for each device, and threads that do when a split is
            explained.
        threads: Threads of one tensor operation on the CPU; null gives small models one and others all cores.
        checkpoint_minutes: The most work that is lost when a training is killed; 0 writes a checkpoint after each step.
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    devices: Count = 1
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    threads: Count | None = None
    checkpoint_minutes: NonNegative = 5.0

    def __post_init__(self) -> None:
        """Refuse what this machine or Lightning does not have."""
        if self.accelerator in ("auto", "cpu") and self.precision != "16-mixed" and self.devices == 1:
            return  # without torch
        import torch

        if self.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
            raise FieldError("accelerator", "needs a GPU, and none is visible: use trainer=cpu")
        if self.precision == "16-mixed" and self.device.type == "cpu":
            raise FieldError("precision", "needs a GPU: use bf16-mixed or 32-true on a CPU")
        if self.devices == 1:
            return
        if self.device.type == "cuda" and self.devices > (visible := torch.cuda.device_count()):
            raise FieldError("devices", f"is more than the {visible} GPU(s) that are visible: use that many at most")
        if self.device.type == "cpu" and self.devices > (most := max(2, cores())):
            raise FieldError("devices", f"is more processes than this machine has cores: use {most} at most")
        if "LOCAL_RANK" in os.environ:
            raise FieldError("devices", "starts the processes itself: start the job once, without torchrun")

    @property
    def device(self) -> "torch.device":
        """Where to compute: of several GPUs the one that torchrun or SLURM give this process, where they do."""
        import torch

        if self.accelerator == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", ""))
        # SLURM may show each process one GPU only, which then is number 0 for all of them.
        if local.isdecimal() and int(local) < torch.cuda.device_count():
            return torch.device("cuda", int(local))
        return torch.device("cuda")

    def autocast(self) -> AbstractContextManager[None]:
        """The trainer's precision for what is not training."""
        import torch

        dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None)


@settings
class LoggerParams:
    """A logger.

    Args:
        kind: `wandb`, `tensorboard`, `mlflow`, `csv` or `none`.
        project: Name of the W&B project, or of the MLflow experiment.
        entity: Whose project it is: a W&B user or team; null is who is logged in.
        group: What the runs of one comparison have in common; null is `name`, which all jobs of a sweep share.
        tags: Beside those that a run has in any case: task, study, method, data, model, seed.
        mode: `auto` goes online where W&B has a key; or `online`, `offline`.
        uri: MLflow's tracking server; null keeps its files beside the results.
    """

    kind: Literal["wandb", "tensorboard", "mlflow", "csv", "none"] = "wandb"
    project: str = "xai"
    entity: str | None = None
    group: str | None = None
    tags: tuple[str, ...] = ()
    mode: Literal["auto", "online", "offline"] = "auto"
    uri: str | None = None


@settings
class Common:
    """Settings of every job.

    Args:
        task: What is done.
        name: The folder below outputs/.
        seed: Of everything that is drawn.
        store: Where everything that is made is kept and found again.
        trainer: Devices, precision, workers.
        logger: Of training curves.
        plugins: Modules that register explainers, metrics, data sets or models.
    """

    task: str
    name: str
    seed: Annotated[int, Field(ge=0, lt=2**31)]
    store: str
    trainer: TrainerParams
    logger: LoggerParams
    plugins: tuple[str, ...]


@settings
class Sweep:
    """A file of sweeps/ (Hydra finds it as conf/sweep): which runs, and what is shown of all of them together.

    Args:
        title: Name of the table or figure.
        about: A sentence on what to look at.
        axes: By key, the values that Hydra is to combine, as after -m: `seed: 0,1,2`; one value is of every run.
        tables: Files of conf/table.
        claims: Files of conf/claim.
        figures: Registered figures, by name or with settings.
        documented: Further files of conf/table, which are not shown but left for the documentation.
    """

    title: str | None = None
    about: str | None = None
    axes: dict[str, Any] = field(default_factory=dict)
    tables: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    figures: tuple[str | dict[str, Any], ...] = ()
    documented: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse values that are no text, of which nobody knows whether they are one or several."""
        for key, values in self.axes.items():
            if isinstance(values, list | tuple):
                several = ",".join(map(str, values))
                raise FieldError(
                    f"axes.{key}", f'is a list: "{several}" is a run for each of them, "[{several}]" one with all'
                )


def for_elsewhere(config: DictConfig) -> None:
    """Let a configuration be checked that runs on another machine: the devices it wants need not be here."""
    config.trainer.accelerator, config.trainer.devices = "cpu", 1
    if config.trainer.precision == "16-mixed":
        config.trainer.precision = "32-true"


def check_common(config: DictConfig) -> None:
    """Refuse a wrong value of what every job has, in a whole configuration."""
    known = [each.name for each in fields(Common)]
    if not all(name in config for name in known):
        return  # told when everything is
    found: Any = {name: config.get(name) for name in known}
    for name, value in found.items():
        if OmegaConf.is_config(value):
            found[name] = OmegaConf.to_container(value, resolve=True)
    build(Common, found)
