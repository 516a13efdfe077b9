"""One way to train: Lightning, a checkpoint after every epoch, and a resumed run that ends with the same numbers.

On several devices a job stays one process, which holds the store's lock and shows the progress; each device has a
process of its own for as long as a stage trains, and the weights come back by the last checkpoint.
"""

import logging
import math
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import Logger
from pytorch_lightning.plugins.environments import LightningEnvironment
from pytorch_lightning.strategies import DDPStrategy
from pytorch_lightning.utilities.model_helpers import is_overridden
from torch import Tensor

from xai.core.batch_norm import share_batch_norms
from xai.core.epochs import EpochDataModule
from xai.core.errors import UserError
from xai.core.kept import BEST, Keep, kept_weights
from xai.core.optimisation import FitParams
from xai.core.processes import Parcel, Tell, run_group
from xai.core.progress import bar
from xai.core.settings import Count, FieldError, Whole, settings

CHECKPOINT = "checkpoint.ckpt"


@settings
class TrainerParams:
    """Where and how to compute.

    Args:
        accelerator: `auto` (a GPU where there is one), `cpu` or `gpu`.
        precision: `32-true`, `bf16-mixed` or `16-mixed`.
        devices: How many GPUs train together, or processes on the CPU. Each takes `batch_size` images a step, so a step
            sees `batch_size * devices`. What is not training uses one.
        workers: Processes that read images from disk in training, for each device, and threads that do when a split is
            explained.
        threads: Threads of one tensor operation on the CPU; null gives small models one and others all cores.
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    devices: Count = 1
    workers: Whole = 0
    threads: Count | None = None

    def __post_init__(self) -> None:
        """Refuse what this machine or Lightning does not have."""
        if self.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
            raise FieldError("accelerator", "needs a GPU, and none is visible: use trainer=cpu")
        if self.precision == "16-mixed" and self.device.type == "cpu":
            raise FieldError("precision", "needs a GPU: use bf16-mixed or 32-true on a CPU")
        if self.devices == 1:
            return
        if self.device.type == "cuda" and self.devices > (visible := torch.cuda.device_count()):
            raise FieldError("devices", f"is more than the {visible} GPU(s) that are visible: use that many at most")
        if "LOCAL_RANK" in os.environ:
            raise FieldError("devices", "starts the processes itself: start the job once, without torchrun")

    @property
    def device(self) -> torch.device:
        """Where to compute: of several GPUs the one that torchrun or SLURM give this process, where they do."""
        if self.accelerator == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", ""))
        # SLURM may show each process one GPU only, which then is number 0 for all of them.
        if local.isdecimal() and int(local) < torch.cuda.device_count():
            return torch.device("cuda", int(local))
        return torch.device("cuda")

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The trainer's precision for what is not training."""
        dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            yield


class _Checkpoint(Callback):
    """Writes the state after each epoch, so that a kill costs at most one."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        temporary = self._path.with_suffix(".tmp")
        # Only the first process writes; it waits here for the others, in vain where one of them stops on a NaN.
        trainer.save_checkpoint(temporary)
        if not trainer.is_global_zero:
            return
        with temporary.open("rb+") as file:
            # After a power cut the new name must not stand for bytes that never reached the disk.
            os.fsync(file.fileno())
        os.replace(temporary, self._path)


class _Bar(Callback):
    def __init__(self, advance: Any) -> None:
        self._advance = advance

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._advance(trainer.global_step)


class _StopOnNaN(Callback):
    """A loss that is no number trains nothing more: say so before it reaches a checkpoint."""

    def __init__(self) -> None:
        self._sum: Tensor | float = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        # Summed on the device and looked at now and then, because looking makes the GPU wait.
        self._sum = self._sum + outputs["loss"].detach()
        if trainer.global_step % 50 == 0:
            self._check(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._check(trainer)

    def _check(self, trainer: pl.Trainer) -> None:
        total, self._sum = float(self._sum), 0.0
        if not math.isfinite(total):
            raise UserError(
                f"the loss is no longer a finite number at step {trainer.global_step}: "
                "lower learning_rate, or train in precision 32-true"
            )


class _RelayedLogger(Logger):
    """The logger of a process that has none: the parent's hears of the numbers."""

    name, version = None, None

    def __init__(self, tell: Tell) -> None:
        super().__init__()
        self._tell = tell

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._tell((metrics, step))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


@dataclass(frozen=True)
class _Plan:
    """All that decides how a module is trained."""

    params: FitParams
    trainer: TrainerParams
    workdir: Path
    resume: bool
    shares: Sequence[float] = ()

    @property
    def checkpoint(self) -> Path:
        return self.workdir / CHECKPOINT


def fit(
    module: pl.LightningModule,
    data: EpochDataModule,
    params: FitParams,
    trainer: TrainerParams,
    workdir: Path,
    title: str,
    logger: Logger | Literal[False],
    shares: Sequence[float] = (),
) -> None:
    """Train a module in `workdir`, from its last checkpoint there if a killed run has left one.

    On several devices BatchNorm takes its statistics over all of them, and the curves are those of the first.

    Args:
        module: Trained in place; on the CPU and in evaluation mode afterwards.
        data: Its training batches.
        params: How long, and gradient clipping.
        trainer: Devices and precision.
        workdir: Where checkpoints go; the store removes them when the stage is whole.
        title: What the progress bar says.
        logger: Where curves go.
        shares: After which shares of the steps the weights of that moment are kept in `workdir`, as `xai.core.kept`
            calls them.

    Raises:
        UserError: Where the loss becomes NaN or infinite; no checkpoint of that epoch is written. Where the best epoch
            is to be kept, and the module has no validation loss.
    """
    if params.keep == "best" and not is_overridden("validation_step", module):
        raise UserError(f"{title}: keep=best needs a loss on the validation split, which this has not: use keep=last")
    finished = _last_epoch(workdir / CHECKPOINT)
    plan = _Plan(params, trainer, workdir, finished is not None, shares)
    data.first_epoch, data.ranks = 0 if finished is None else finished + 1, trainer.devices
    data.setup("fit")
    with bar(title, params.total(len(data.train_dataloader())), "steps") as advance:
        if trainer.devices == 1:
            _train(plan, module, data, advance, logger)
        else:
            _train_in_processes(plan, module, data, advance, logger)
    if (workdir / BEST).exists():
        module.load_state_dict(kept_weights(workdir, BEST))
    module.cpu().eval()


def _train(
    plan: _Plan,
    module: pl.LightningModule,
    data: EpochDataModule,
    advance: Callable[[int], None],
    logger: Logger | Literal[False],
    **distribution: Any,
) -> None:
    index = plan.trainer.device.index
    where: dict[str, Any] = {"devices": 1 if index is None else [index], **distribution}
    best, total = plan.params.keep == "best", plan.params.total(len(data.train_dataloader()))
    keep = Keep(plan.workdir, best, plan.shares, total)
    with _quiet_lightning():
        engine = pl.Trainer(
            **where,
            accelerator="gpu" if plan.trainer.device.type == "cuda" else "cpu",
            max_epochs=plan.params.epochs or -1,
            max_steps=plan.params.steps or -1,
            precision=plan.trainer.precision,
            gradient_clip_val=plan.params.clip or None,
            logger=logger,
            callbacks=[_StopOnNaN(), _Bar(advance), keep, _Checkpoint(plan.checkpoint)],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if best else 0,
            log_every_n_steps=10,
            default_root_dir=plan.workdir,
        )
        resume = str(plan.checkpoint) if plan.resume else None
        engine.fit(module.train(), datamodule=data, ckpt_path=resume, weights_only=True)


def _train_in_processes(
    plan: _Plan,
    module: pl.LightningModule,
    data: EpochDataModule,
    advance: Callable[[int], None],
    logger: Logger | Literal[False],
) -> None:
    def hear(message: int | tuple[dict[str, float], int | None]) -> None:
        if isinstance(message, int):
            advance(message)
        elif logger:
            logger.log_metrics(*message)

    with tempfile.TemporaryDirectory(prefix="xai-") as folder:
        parcel = Parcel(module, Path(folder) / "module.safetensors")
        backend = "nccl" if plan.trainer.device.type == "cuda" else "gloo"
        run_group(_train_part, (plan, parcel, data, bool(logger)), plan.trainer.devices, backend, hear)
    if logger:
        logger.finalize("success")
    module.load_state_dict(torch.load(plan.checkpoint, weights_only=True, mmap=True)["state_dict"])  # noqa: TID251 - weights only


def _train_part(rank: int, tell: Tell, plan: _Plan, parcel: Parcel, data: EpochDataModule, logged: bool) -> None:
    """What each process does for `_train_in_processes`."""
    data.rank = rank
    first = rank == 0
    module = parcel.open()
    share_batch_norms(module, plan.trainer.device)
    _train(
        plan,
        module,
        data,
        advance=tell if first else lambda step: None,
        logger=_RelayedLogger(tell) if first and logged else False,
        devices=plan.trainer.devices,
        # Some modules leave parameters of theirs alone, in some steps.
        strategy=DDPStrategy(find_unused_parameters=True),
        # Not SLURM's, which would look for tasks of its own.
        plugins=[LightningEnvironment()],
    )


def _last_epoch(checkpoint: Path) -> int | None:
    """The epoch a checkpoint was written after, or None; a file that cannot be read is removed."""
    if not checkpoint.exists():
        return None
    try:
        return int(torch.load(checkpoint, weights_only=True, mmap=True)["epoch"])  # noqa: TID251 - weights only
    except Exception:  # torch has a different one for each way a file can be torn
        logging.getLogger("xai").warning("%s cannot be read: this stage starts anew", checkpoint)
        checkpoint.unlink()
        return None


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning's greetings and advice say nothing that a user of this framework can act on."""
    names = ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning.pytorch")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="pytorch_lightning")
            warnings.filterwarnings("ignore", message=".*num_workers.*")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
