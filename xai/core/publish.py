"""What a run hands to its logger at its end: tables, pictures, networks, and what it was made from."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from PIL import Image
from pytorch_lightning.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger, WandbLogger

from xai.core.csv_files import read_csv
from xai.core.entries import MANIFEST, keys_in
from xai.core.store import Store

_LARGEST_TABLE = 1 << 19
"""Bytes of a CSV file that is shown as a table."""
_NUMBERS = ("scores", "logits")
"""Kinds of artifacts whose numbers stand in the tables; they are named in the lineage and are no artifacts of W&B."""
LINEAGE = "lineage"
_LONGEST_NAME = 128
"""Of an artifact of W&B; names of runs may be longer."""


def publish(logger: Logger | Literal[False], folder: Path, store: Store) -> None:
    """Give a logger what a run has written: tables, pictures and networks, each in the form in which it is shown.

    Args:
        logger: Of the run. CSV files lie beside the results already: it gets the lineage alone.
        folder: Of the results: `*.csv` are tables, `*.png` pictures, `*.safetensors` networks, vectors and supervision.
        store: What it has made and found there is the lineage of the results.
    """
    tables, pictures, networks = (sorted(folder.rglob(f"*.{kind}")) for kind in ("csv", "png", "safetensors"))
    # Every number of every image belongs to the files, and what is empty to nobody.
    tables = [path for path in tables if 1 < path.stat().st_size <= _LARGEST_TABLE]
    frames = {path.stem: read_csv(path) for path in tables} if not isinstance(logger, CSVLogger) else {}
    frames[LINEAGE] = lineage(store)
    if isinstance(logger, WandbLogger):
        _to_wandb(logger, frames, {_named(path, folder): path for path in pictures}, networks)
        _graph_to_wandb(logger, store)
    elif isinstance(logger, MLFlowLogger):
        for path in (*tables, *pictures, *networks):
            inside = path.parent.relative_to(folder).as_posix()
            logger.experiment.log_artifact(logger.run_id, str(path), None if inside == "." else inside)
        logger.experiment.log_text(logger.run_id, frames[LINEAGE].to_csv(index=False), f"{LINEAGE}.csv")
    elif isinstance(logger, TensorBoardLogger):
        config = yaml.safe_dump(dict(logger.hparams), sort_keys=False).splitlines()
        logger.experiment.add_text("config", "\n".join(f"    {line}" for line in config))  # code, in Markdown
        for name, frame in frames.items():
            logger.experiment.add_text(name, frame.to_html(index=False, border=0))
        for path in pictures:
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            logger.experiment.add_image(_named(path, folder), pixels, dataformats="HWC")
    elif isinstance(logger, CSVLogger):
        logger.save()
        frames[LINEAGE].to_csv(Path(logger.log_dir) / f"{LINEAGE}.csv", index=False)


def lineage(store: Store) -> pd.DataFrame:
    """A line for each artifact that a run has used: `kind`, `key`, `made` here or found, `seconds`, `made_from`."""
    lines = [
        (each.kind, each.key, each in store.made, each.seconds, " ".join(keys_in(each.spec)))
        for each in (*store.found, *store.made)
    ]
    return pd.DataFrame(lines, columns=["kind", "key", "made", "seconds", "made_from"])


def _to_wandb(
    logger: WandbLogger, frames: Mapping[str, pd.DataFrame], pictures: Mapping[str, Path], networks: list[Path]
) -> None:
    import wandb

    run = logger.experiment
    found: dict[str, Any] = {f"tables/{name}": wandb.Table(dataframe=frame) for name, frame in frames.items()}
    run.log(found | {name: wandb.Image(str(path)) for name, path in pictures.items()})
    for path in networks:
        kind = next((kind for kind in ("vector", "supervision") if kind in path.stem), "network")
        artifact = wandb.Artifact(
            _of_artifact(f"{run.name}-{path.stem}"), type=kind, metadata={"commit": run.config.get("commit")}
        )
        artifact.add_file(str(path))
        run.log_artifact(artifact)


def _graph_to_wandb(logger: WandbLogger, store: Store) -> None:
    """What a run found in the store is its input, what it made its output: the runs of a sweep hang together by them.

    Such an artifact holds the manifest alone, which lists the files with their hashes: the files stay in the store.
    """
    import wandb

    run = logger.experiment
    for each in (*store.found, *store.made):
        if each.kind in _NUMBERS:
            continue
        about = {"folder": str(each.path), "seconds": each.seconds, "made_from": keys_in(each.spec)}
        artifact = wandb.Artifact(f"{each.kind}-{each.key}", type=each.kind, metadata=about)
        artifact.add_file(str(each.path / MANIFEST))
        if each in store.made:
            run.log_artifact(artifact)
        elif run.offline:
            # `use_artifact` asks the server; this is what it does of that without one, and `wandb sync` hands it on.
            run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        else:
            run.use_artifact(artifact)


def _of_artifact(name: str) -> str:
    """A name as W&B takes it; of one that is too long the end stays, and what tells it from others."""
    plain = re.sub(r"[^a-zA-Z0-9_.-]+", "-", name)
    if len(plain) <= _LONGEST_NAME:
        return plain
    return f"{hashlib.sha256(name.encode()).hexdigest()[:12]}-{plain[-100:]}"


def _named(path: Path, folder: Path) -> str:
    return path.relative_to(folder).with_suffix("").as_posix()
