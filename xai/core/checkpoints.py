"""What a training that was stopped goes on from: one file, written beside its target and read only where it is whole.

The file is torch's own, a ZIP archive that holds a CRC-32 of each tensor; torch does not look at them, so we do.
"""

import io
import logging
import os
import shutil
import zipfile
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from torch import Tensor, nn

from xai.core.files import write_atomically
from xai.core.kept import KEPT

_MAKERS = ("torch", "pytorch-lightning")
_PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "loops", "callbacks", "global_step", "made_by")


class CheckpointFiles(CheckpointIO):
    """How Lightning writes and reads: in the folder of the target, and not by way of the temporary folder."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write the whole of it or nothing."""
        # By way of memory, because torch makes a RuntimeError of a disk that is full.
        whole = io.BytesIO()
        torch.save({**checkpoint, "made_by": _made_by()}, whole)
        write_atomically(Path(path), lambda place: place.write_bytes(whole.getbuffer()))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = True) -> dict[str, Any]:
        """Everything in the file, on the CPU."""
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251 - weights only
        return found

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
        if aside.is_dir():
            shutil.rmtree(aside)
        os.replace(path, aside)
        why = str(fault) if isinstance(fault, _UnfitError) else "cannot be read"
        logging.getLogger("xai").warning("%s %s: this stage starts anew; the file is put aside", path, why)
        return 0


def weights_of(path: Path) -> dict[str, Tensor]:
    """The weights of the module that a checkpoint is of."""
    found: dict[str, Tensor] = CheckpointFiles().load_checkpoint(path)["state_dict"]
    return found


def _checked(path: Path, module: nn.Module) -> int:
    _check_bytes(path)
    found = torch.load(path, weights_only=True, mmap=True)  # noqa: TID251 - weights only
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
        fits = _shapes(torch.load(path, weights_only=True, mmap=True)) == _shapes(module.state_dict())  # noqa: TID251
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


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Any, Any]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _made_by() -> dict[str, str]:
    from xai import __version__

    return {"xai": __version__, **{name: version(name) for name in _MAKERS}}
