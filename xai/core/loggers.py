"""Where training curves go: Weights & Biases (offline unless there is a key), CSV files, TensorBoard, or nowhere."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from xai.core.errors import UserError
from xai.core.folders import final_folder
from xai.core.settings import settings


@settings
class LoggerParams:
    """A logger.

    Args:
        kind: `wandb`, `csv`, `tensorboard` or `none`.
        project: Name of the W&B project.
    """

    kind: Literal["wandb", "csv", "tensorboard", "none"] = "wandb"
    project: str = "xai"


def build_logger(params: LoggerParams, folder: Path, name: str) -> Logger | Literal[False]:
    """Make a logger that writes below `folder`; it opens its files at the first number, not before.

    W&B runs offline when no key is at hand: nothing is asked and nothing leaves the machine. WANDB_MODE=disabled makes
    no logger at all.
    """
    if params.kind == "none" or (params.kind == "wandb" and os.environ.get("WANDB_MODE") == "disabled"):
        return False
    if params.kind == "csv":
        return CSVLogger(folder, name="csv", version="")
    # Their files have a name of their own in each run, so they are where people watch them, and stay.
    folder = final_folder(folder)
    if params.kind == "tensorboard":
        try:
            return TensorBoardLogger(folder, name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=tensorboard needs the package tensorboard: pip install -e '.[tensorboard]'"
            ) from error
    os.environ.setdefault("WANDB_SILENT", "true")
    logging.getLogger("wandb").setLevel(logging.ERROR)
    logger = WandbLogger(name=name, project=params.project, save_dir=folder, offline=not _has_key())
    # Lightning passes on an argument that W&B has given up, and W&B warns of it in every run.
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)
    return logger


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
