"""Where training curves go: Weights & Biases (offline unless there is a key), CSV files, TensorBoard, or nowhere."""

import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from xai.errors import UserError

KINDS = ("wandb", "csv", "tensorboard", "none")


@dataclass(frozen=True)
class LoggerParams:
    """A logger.

    Args:
        kind: `wandb`, `csv`, `tensorboard` or `none`.
        project: Name of the W&B project.
    """

    kind: str = "wandb"
    project: str = "xai"

    def __post_init__(self) -> None:
        """Refuse unknown kinds."""
        if self.kind not in KINDS:
            raise UserError(f"logger.kind={self.kind} is unknown: use {', '.join(KINDS)}")


def build_logger(params: LoggerParams, folder: Path, name: str) -> Logger | Literal[False]:
    """Make a logger that writes below `folder`; it opens its files at the first number, not before.

    W&B runs offline when no key is at hand: nothing is asked and nothing leaves the machine.
    """
    if params.kind == "none":
        return False
    if params.kind == "csv":
        return CSVLogger(folder, name="csv", version="")
    if params.kind == "tensorboard":
        try:
            return TensorBoardLogger(folder, name="tensorboard", version="")
        except ModuleNotFoundError as error:
            raise UserError(
                "logger=tensorboard needs the package tensorboard: pip install 'xai[tensorboard]'"
            ) from error
    os.environ.setdefault("WANDB_SILENT", "true")
    logging.getLogger("wandb").setLevel(logging.ERROR)
    return WandbLogger(name=name, project=params.project, save_dir=folder, offline=not _has_key())


def _has_key() -> bool:
    if os.environ.get("WANDB_MODE") in ("offline", "disabled", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path.home() / ".netrc"
    return netrc.is_file() and "api.wandb.ai" in netrc.read_text(errors="ignore")
