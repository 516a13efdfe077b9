"""Weights that are kept beside those of the last step: of the best epoch, and of the network on its way."""

import io
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from xai.core.files import write_atomically

BEST = "checkpoint-best.ckpt"
KEPT = "kept"
"""Under which name a checkpoint lists the files that belong to it."""


def on_the_way(share: float) -> str:
    """The file of the weights after a share of the steps."""
    return f"checkpoint-{share:g}.ckpt"


class Keep(Callback):
    """Writes weights into the folder of a training. A resumed run writes what the killed one would have written.

    Args:
        folder: Where to.
        best: Whether those of the epoch with the smallest validation loss are kept.
        shares: After which shares of the steps those of that moment are kept.
        total: Steps in all.
    """

    def __init__(self, folder: Path, best: bool, shares: Sequence[float], total: int) -> None:
        self._folder, self._best = folder, best
        self._moments = {share: max(1, round(share * total)) for share in shares}
        self._least = math.inf
        self._kept: set[str] = set()

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *_: Any) -> None:
        """Keep what has come to one of the moments."""
        for share, moment in self._moments.items():
            if trainer.global_step == moment:
                self._write(trainer, module, on_the_way(share))

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Keep the best; the validation of this epoch is over."""
        found = {name: value for name, value in trainer.callback_metrics.items() if name.endswith("/validation_loss")}
        if not self._best or not found:
            return
        (name, value), *_ = found.items()
        if float(value) < self._least:
            self._least = float(value)
            self._write(trainer, module, BEST)
        module.log(name.replace("/validation_loss", "/best_validation_loss"), self._least)

    def state_dict(self) -> dict[str, Any]:
        """What the next checkpoint remembers: a file that is newer than it is written again, and the same."""
        return {"least": self._least, KEPT: sorted(self._kept)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self._least, self._kept = state_dict["least"], set(state_dict[KEPT])

    def _write(self, trainer: pl.Trainer, module: pl.LightningModule, name: str) -> None:
        self._kept.add(name)
        if trainer.is_global_zero:
            # By way of memory, because torch makes a RuntimeError of a disk that is full.
            whole = io.BytesIO()
            torch.save(module.state_dict(), whole)
            write_atomically(self._folder / name, whole.getvalue())


def kept_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Weights of the module that `Keep` has written."""
    found: dict[str, Tensor] = torch.load(folder / name, weights_only=True)  # noqa: TID251 - weights only
    return found


def forget_kept(folder: Path) -> None:
    """Remove what an earlier training has kept, where this one starts anew."""
    for path in folder.glob("checkpoint-*.ckpt"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
