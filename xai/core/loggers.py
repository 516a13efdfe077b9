"""Where curves and results go: W&B (offline unless there is a key), TensorBoard, MLflow, CSV files, or nowhere."""

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from xai.core.common import LoggerParams as LoggerParams
from xai.core.errors import UserError
from xai.core.folders import final_folder


def build_logger(
    params: LoggerParams, folder: Path, name: str, config: Mapping[str, Any] | None = None
) -> Logger | Literal[False]:
    """Make a logger that writes below `folder`; it opens its files at the first number, not before.

    W&B runs offline when no key is at hand: nothing is asked and nothing leaves the machine. WANDB_MODE=disabled makes
    no logger at all.

    Args:
        params: Which.
        folder: Of the run.
        name: Of the run, and of the sweep it is part of; a job of a sweep is called after its folder as well.
        config: All that the run was asked for, and what made it; `task` is the type of the job.
    """
    if params.kind == "none" or (params.kind == "wandb" and os.environ.get("WANDB_MODE") == "disabled"):
        return False
    if params.kind == "csv":
        return CSVLogger(folder, name="csv", version="")
    # Their files have a name of their own in each run, so they are where people watch them, and stay.
    folder, config = final_folder(folder), config or {}
    tags, group = [*_tags(config), *params.tags], params.group or name
    name = name if folder.name == name else f"{name}/{folder.name}"
    if params.kind == "tensorboard":
        with _needs("tensorboard"):
            return TensorBoardLogger(folder, name="tensorboard", version="")
    if params.kind == "mlflow":
        where = params.uri or f"file:{folder.absolute() / 'mlflow'}"
        # Files, not the database that it would rather have: a run is a folder here, and can be moved.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        about = {"group": group, "tags": ", ".join(tags), "commit": str(config.get("commit"))}
        logging.getLogger("lightning.pytorch.loggers.mlflow").setLevel(logging.ERROR)
        logging.getLogger("pytorch_lightning.loggers.mlflow").setLevel(logging.ERROR)
        with _needs("mlflow"):
            return _with_config(MLFlowLogger(params.project, name, where, tags=about), config)
    os.environ.setdefault("WANDB_SILENT", "true")
    logging.getLogger("wandb").setLevel(logging.ERROR)
    offline = params.mode == "offline" or (params.mode == "auto" and not _has_key())
    logger = WandbLogger(
        name=name,
        project=params.project,
        entity=params.entity,
        group=group,
        job_type=str(config.get("task", "")) or None,
        tags=tags,
        config=dict(config),
        save_dir=folder,
        offline=offline,
    )
    # Lightning passes on an argument that W&B has given up, and W&B warns of it in every run.
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)
    return logger


def publish(logger: Logger | Literal[False], folder: Path) -> None:
    """Give a logger what a run has written: tables, pictures and networks, each in the form in which it is shown.

    Args:
        logger: Of the run. CSV files lie beside the results already, and get nothing.
        folder: Of the results: `*.csv` are tables, `*.png` pictures, `*.safetensors` networks and vectors.
    """
    tables, pictures, networks = (sorted(folder.rglob(f"*.{kind}")) for kind in ("csv", "png", "safetensors"))
    # Every number of every image belongs to the files, and what is empty to nobody.
    tables = [path for path in tables if 1 < path.stat().st_size <= _LARGEST_TABLE]
    if isinstance(logger, WandbLogger):
        _publish_to_wandb(logger, folder, tables, pictures, networks)
    elif isinstance(logger, MLFlowLogger):
        for path in (*tables, *pictures, *networks):
            inside = path.parent.relative_to(folder).as_posix()
            logger.experiment.log_artifact(logger.run_id, str(path), None if inside == "." else inside)
    elif isinstance(logger, TensorBoardLogger):
        for path in tables:
            logger.experiment.add_text(path.stem, pd.read_csv(path).to_html(index=False, border=0))
        for path in pictures:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(_named(path, folder), pixels, dataformats="HWC")


def _publish_to_wandb(
    logger: WandbLogger, folder: Path, tables: list[Path], pictures: list[Path], networks: list[Path]
) -> None:
    import wandb

    run = logger.experiment
    found: dict[str, Any] = {}
    for path in tables:
        found[f"tables/{path.stem}"] = wandb.Table(dataframe=pd.read_csv(path))
    found |= {_named(path, folder): wandb.Image(str(path)) for path in pictures}
    if found:
        run.log(found)
    for path in networks:
        kind = "vector" if "vector" in path.stem else "network"
        name = re.sub(r"[^a-zA-Z0-9_.-]+", "-", f"{run.name}-{path.stem}")
        artifact = wandb.Artifact(name, type=kind, metadata={"commit": run.config.get("commit")})
        artifact.add_file(str(path))
        run.log_artifact(artifact)


_LARGEST_TABLE = 1 << 19
"""Bytes of a CSV file that is shown as a table."""


def _named(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()


def _tags(config: Mapping[str, Any]) -> list[str]:
    """What a run is found by."""
    found = [str(config[key]) for key in ("task", "study", "method") if config.get(key)]
    for key in ("data", "model"):
        named = config.get(key)
        if isinstance(named, Mapping) and named.get("name"):
            found.append(str(named["name"]))
    return list(dict.fromkeys([*found, *([f"seed={config['seed']}"] if "seed" in config else [])]))


def _with_config(logger: MLFlowLogger, config: Mapping[str, Any]) -> MLFlowLogger:
    logger.log_hyperparams(dict(config))
    return logger


@contextmanager
def _needs(package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"logger={package} needs the package {package}: pip install -e '.[{package}]'") from error


@contextmanager
def closing_logger() -> Iterator[None]:
    """Finish the W&B run of a job when the job ends, however it ends.

    Raises:
        UserError: In place of W&B's own errors (no network, a key that is refused).
    """
    done = False
    try:
        try:
            yield
            done = True
        finally:
            close_logger(done)
    except Exception as error:
        wandb = sys.modules.get("wandb")
        if wandb is None or not isinstance(error, wandb.errors.Error):
            raise
        raise UserError(f"W&B refuses ({error}): use WANDB_MODE=offline or logger=csv") from error


def close_logger(succeeded: bool) -> None:
    """Finish W&B's run, if there is one: a process has one at a time, and the next job of a sweep would share it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=0 if succeeded else 1)


def _has_key() -> bool:
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path.home() / ".netrc"
    return netrc.is_file() and "api.wandb.ai" in netrc.read_text(errors="ignore")
