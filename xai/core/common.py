"""The settings of every job, and of a sweep of jobs, checked before anything is imported that takes its time."""

from dataclasses import field, fields
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from xai.core.settings import build, settings
from xai.core.trainer import TrainerParams


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
