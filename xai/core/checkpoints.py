"""What a training writes on its way: the file that it goes on from when it was stopped, and weights that are kept.

The first lies beside the target and is read only where it is whole: torch's own, a ZIP archive that holds a CRC-32 of
each tensor; torch does not look at them, so we do. Weights are kept of the best epoch, and of the network on its way.
"""

import io
import logging
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from xai.core.files import remove, write_atomically

BEST = "checkpoint-best.ckpt"
KEPT = "kept"
"""Under which name a checkpoint lists the files that belong to it."""
_MAKERS = ("torch", "pytorch-lightning")
_PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "global_step", "made_by")


class CheckpointFiles(CheckpointIO):
    """How Lightning writes and reads: in the folder of the target, and not by way of the temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the whole of it or nothing."""
        _save({**checkpoint, "made_by": _made_by()}, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Everything in the file, on the CPU."""
        return read(path)

    def remove_checkpoint(self, path: Any) -> None:
        """Forget it."""
        Path(path).unlink(missing_ok=True)


class _UnfitError(Exception):
    """A checkpoint that cannot be gone on from; the message says why."""


def steps_done(path: Path, module: nn.Module) -> int:
    """How many steps a checkpoint has behind it; 0 where there is none to go on from.

    One that is damaged, made by other versions, or of another module is put aside, with one line of warning.
    """
    if not os.path.lexists(path):
        return 0
    try:
        return _checked(path, module)
    except Exception as fault:  # torch has a different one for each way a file can be torn
        aside = path.with_suffix(".damaged")
        remove(aside)
        os.replace(path, aside)
        why = str(fault) if isinstance(fault, _UnfitError) else "cannot be read"
        logging.getLogger("xai").warning("%s %s: this stage starts anew; the file is put aside", path, why)
        return 0


def read(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Everything in a checkpoint, or weights by name, on the CPU."""
    found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)  # noqa: TID251 - weights only
    return found


def _checked(path: Path, module: nn.Module) -> int:
    _check_bytes(path)
    found = read(path, mmap=True)
    if missing := [part for part in _PARTS if part not in found]:
        raise _UnfitError(f"has no {missing[0]}")
    if found["made_by"] != _made_by():
        raise _UnfitError("was written by other versions of torch, Lightning or xai")
    if _shapes(found["state_dict"]) != _shapes(module.state_dict()):
        raise _UnfitError("is of another network")
    if not all(value.isfinite().all() for value in found["state_dict"].values()):
        raise _UnfitError("holds NaN or infinite weights")
    for state in found["callbacks"].values():
        for name in state[KEPT]:
            _check_kept(path.with_name(name), module)
    steps = int(found["global_step"])
    if not _is_whole(found, steps, [parameter for parameter in module.parameters() if parameter.requires_grad]):
        raise _UnfitError("does not hold the state of its optimiser and loops")
    return steps


def _check_bytes(path: Path) -> None:
    if path.is_symlink() or not path.is_file():
        raise _UnfitError("is no file")
    with zipfile.ZipFile(path) as archive:
        if archive.testzip() is not None:
            raise _UnfitError("has changed since it was written (its checksum differs)")


def _check_kept(path: Path, module: nn.Module) -> None:
    """Weights that were kept before the checkpoint have to be what they were."""
    try:
        _check_bytes(path)
        fits = _shapes(read(path, mmap=True)) == _shapes(module.state_dict())
    except Exception:
        fits = False
    if not fits:
        raise _UnfitError(f"needs {path.name}, which is missing or damaged")


def _is_whole(found: Mapping[str, Any], steps: int, trained: list[nn.Parameter]) -> bool:
    """Whether optimiser, schedule and loops are there, belong to these parameters and agree on the step."""
    [optimiser], [schedule] = found["optimizer_states"], found["lr_schedulers"]
    moments = optimiser["state"]
    done = found["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["processed"]
    fitting = all(moment["exp_avg"].shape == trained[number].shape for number, moment in moments.items())
    return bool(moments) and fitting and steps == done == schedule["last_epoch"] > 0


def _save(content: dict[str, Any], path: Path) -> None:
    # By way of memory, because torch makes a RuntimeError of a disk that is full.
    whole = io.BytesIO()
    torch.save(content, whole)
    write_atomically(path, lambda place: place.write_bytes(whole.getbuffer()))


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Any, Any]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _made_by() -> dict[str, str]:
    from xai import __version__

    return {"xai": __version__, **{name: version(name) for name in _MAKERS}}


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
            _save(module.state_dict(), self._folder / name)


def kept_weights(folder: Path, name: str) -> dict[str, Tensor]:
    """Weights of the module that `Keep` has written."""
    return read(folder / name)


def forget_kept(folder: Path) -> None:
    """Remove what an earlier training has kept, where this one starts anew."""
    for path in folder.glob("checkpoint-*.ckpt"):
        remove(path)
