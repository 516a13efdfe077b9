"""Where curves and results go: W&B (offline unless there is a key), TensorBoard, MLflow, CSV files, or nowhere."""

import json
import logging
import netrc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from lightning_fabric.utilities.rank_zero import rank_zero_only
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from xai.core.common import LoggerParams as LoggerParams
from xai.core.errors import UserError
from xai.core.files import short_name
from xai.core.folders import final_folder

_LONGEST_TAG, _LONGEST_NAME = 64, 128
"""That W&B takes, of a tag and of a run or a group."""


def build_logger(
    params: LoggerParams, folder: Path, name: str, about: Mapping[str, Any] | None = None
) -> Logger | Literal[False]:
    """Make a logger that writes below `folder`; it opens its files at the first number, not before.

    W&B runs offline when no key is at hand: nothing is asked and nothing leaves the machine. WANDB_MODE=disabled makes
    no logger at all.

    Args:
        params: Which.
        folder: Of the run.
        name: Of the run, and of the sweep it is part of; a job of a sweep is called after its folder as well.
        about: All that the run was asked for, and what made it; `task` is the type of the job.
    """
    if params.kind == "none" or (params.kind == "wandb" and os.environ.get("WANDB_MODE") == "disabled"):
        return False
    # Each process of torchrun or srun is a run of its own; Lightning would have all but the first write nothing.
    cast(Any, rank_zero_only).rank = 0
    # Lists for tuples, as every logger understands them.
    config: dict[str, Any] = json.loads(json.dumps(about or {}, default=str))
    if params.kind == "csv":
        written = CSVLogger(folder, name="csv", version="")
        written.log_hyperparams(config)
        return written
    # Their files have a name of their own in each run, so they are where people watch them, and stay.
    folder = final_folder(folder)
    tags = [short_name(each, _LONGEST_TAG) for each in (*_tags(config), *params.tags) if each]
    group = short_name(params.group or name, _LONGEST_NAME)
    name = short_name(name if folder.name == name else f"{name}/{folder.name}", _LONGEST_NAME)
    if params.kind == "tensorboard":
        with _needs("tensorboard"):
            board = TensorBoardLogger(folder, name="tensorboard", version="")
        board.hparams.update(config)  # written with the first number
        return board
    if params.kind == "mlflow":
        where = params.uri or f"file:{folder.absolute() / 'mlflow'}"
        # Files, not the database that it would rather have: a run is a folder here, and can be moved.
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        labels = {"group": group, "job_type": str(config.get("task", "")), "tags": ", ".join(tags)}
        labels["commit"] = str(config.get("commit"))
        for package in ("lightning.pytorch", "pytorch_lightning"):
            logging.getLogger(f"{package}.loggers.mlflow").setLevel(logging.ERROR)
        with _needs("mlflow"):
            tracked = MLFlowLogger(params.project, name, where, tags=labels)
            tracked.log_hyperparams(config)
        return tracked
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
        config=config,
        save_dir=folder,
        offline=offline,
        # W&B has read the environment by now, where Lightning would say so.
        mode="offline" if offline else None,
    )
    # Lightning passes on an argument that W&B has given up, and W&B warns of it in every run.
    getattr(logger, "_wandb_init", {}).pop("anonymous", None)
    return logger


def _tags(config: Mapping[str, Any]) -> list[str]:
    """What a run is found by."""
    found = [str(config[key]) for key in ("task", "study", "method") if config.get(key)]
    found += [str(table) for table in config.get("tables") or ()]
    for key in ("source", "data", "model"):
        named = config.get(key)
        if isinstance(named, Mapping) and named.get("name"):
            found.append(str(named["name"]))
    return list(dict.fromkeys([*found, *([f"seed={config['seed']}"] if "seed" in config else [])]))


@contextmanager
def _needs(package: str) -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"logger={package} needs the package {package}: pip install -e '.[{package}]'") from error


def _has_key() -> bool:
    """Whether a key is known for the server that W&B's own settings name, one's own or theirs; nobody is asked."""
    if os.environ.get("WANDB_MODE") in ("offline", "dryrun"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    import wandb

    known = wandb.setup().settings
    server = urlsplit(os.environ.get("WANDB_BASE_URL") or known.base_url).netloc
    # Keys of before W&B's own servers had another name are good there.
    servers = {server, "api.wandb.ai"} if server.endswith(("wandb.ai", "coreweave.com")) else {server}
    try:
        entries = netrc.netrc(Path(os.environ.get("NETRC") or "~/.netrc").expanduser())
    except (OSError, netrc.NetrcParseError):
        return bool(known.api_key)
    return bool(known.api_key) or any(entries.authenticators(each) for each in servers)
