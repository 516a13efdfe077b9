"""The settings that every job has, checked before anything is imported that takes its time."""

import dataclasses
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


def check_common(config: DictConfig) -> None:
    """Refuse a wrong value of what every job has, in a whole configuration."""
    known = [field.name for field in dataclasses.fields(Common)]
    if not all(name in config for name in known):
        return  # told when everything is
    found: Any = {name: config.get(name) for name in known}
    for name, value in found.items():
        if OmegaConf.is_config(value):
            found[name] = OmegaConf.to_container(value, resolve=True)
    build(Common, found)
