"""One way to train: Lightning, checkpoints on the way, and a resumed run that ends with the same numbers.

On several devices a job stays one process, which holds the store's lock and shows the progress; each device has a
process of its own for as long as a stage trains, and the weights come back by the last checkpoint.
"""

import gc
import logging
import math
import tempfile
import time
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
from xai.core.checkpoints import BEST, CheckpointFiles, Keep, forget_kept, kept_weights, read, steps_done
from xai.core.common import TrainerParams as TrainerParams
from xai.core.errors import UserError
from xai.core.files import TEMPORARY
from xai.core.optimisation import FitParams
from xai.core.processes import Parcel, Tell, run_group
from xai.core.progress import bar

CHECKPOINT = "checkpoint.ckpt"
_STEPS_BETWEEN_LOOKS, _STEPS_BETWEEN_QUESTIONS, _STEPS_BETWEEN_NUMBERS = 50, 10, 10
_WATCHED = 256
"""Validation images whose loss is logged after each epoch, for curves; where the best epoch is kept, all are asked."""
_LARGE = 1 << 26
"""Bytes of weights that are worth the half second of looking for what nobody holds."""


class _Watch(Callback):
    """Shows progress, stops where the loss is no number, and writes checkpoints of what is in order.

    Args:
        checkpoint: Where the last one lies.
        minutes: The most work that a kill costs; the end of an epoch is written in any case.
        advance: Is told how many steps are done.
    """

    def __init__(self, checkpoint: Path, minutes: float, advance: Callable[[int], None]) -> None:
        self._path, self._seconds, self._advance = checkpoint, 60 * minutes, advance
        self._written = time.monotonic()
        self._sum: Tensor | float = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self._advance(trainer.global_step)
        # Summed on the device and looked at now and then, because looking makes the GPU wait.
        self._sum = self._sum + outputs["loss"].detach()
        if trainer.global_step % _STEPS_BETWEEN_LOOKS == 0:
            self._check(trainer)
        if not trainer.fit_loop.epoch_loop.batch_progress.is_last_batch and self._is_time(trainer):
            self._write(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._write(trainer)

    def _is_time(self, trainer: pl.Trainer) -> bool:
        late = time.monotonic() - self._written >= self._seconds
        if trainer.world_size == 1 or not self._seconds:
            return late
        # All of them write, or none; clocks differ, and to ask costs time.
        asked = trainer.global_step % _STEPS_BETWEEN_QUESTIONS == 0
        return asked and trainer.strategy.reduce_boolean_decision(late, all=False)

    def _write(self, trainer: pl.Trainer) -> None:
        self._check(trainer, together=True)
        trainer.save_checkpoint(self._path, weights_only=False)
        self._written = time.monotonic()

    def _check(self, trainer: pl.Trainer, together: bool = False) -> None:
        total, self._sum = float(self._sum), 0.0
        fine = math.isfinite(total)
        if together:
            # Only the first process writes, and the loss of another may be what is no number.
            fine = trainer.strategy.reduce_boolean_decision(fine)
        if not fine:
            raise UserError(
                f"the loss is no longer a finite number at step {trainer.global_step}: "
                "lower learning_rate, or train in precision 32-true"
            )


class _Curves(Callback):
    """Logs the learning rate and the norm of the gradient, before it is clipped, beside the loss."""

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: Any) -> None:
        if trainer.logger is None or (trainer.global_step + 1) % _STEPS_BETWEEN_NUMBERS:
            return
        gradients = [value.grad for value in module.parameters() if value.grad is not None]
        stage = getattr(module, "_stage", "training")
        module.log(f"{stage}/learning_rate", optimizer.param_groups[0]["lr"])
        module.log(f"{stage}/gradient_norm", torch.nn.utils.get_total_norm(gradients))


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


class EpochDataModule(pl.LightningDataModule):
    """A data module whose batches depend on the epoch, and on which of the processes that share them asks.

    Lightning draws from the first loader before it tells the sampler which epoch a resumed run is in; whoever resumes
    says so here, and `train_dataloader` passes it on.

    Attributes:
        first_epoch: The epoch to begin with.
        first_batch: The batch of that epoch to begin with.
        rank: Which of the processes this is, from 0.
        ranks: How many processes share each batch.
        watched: How many validation images are looked at after an epoch; None is all of them.
    """

    watched: int | None = None
    first_epoch: int = 0
    first_batch: int = 0
    rank: int = 0
    ranks: int = 1


@dataclass(frozen=True)
class _Plan:
    """All that decides how a module is trained."""

    params: FitParams
    trainer: TrainerParams
    workdir: Path
    resume: bool
    shares: Sequence[float] = ()
    validate: bool = False

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
        shares: After which shares of the steps the weights of that moment are kept in `workdir` (`on_the_way`).

    Raises:
        UserError: Where the loss becomes NaN or infinite; no checkpoint of that epoch is written. Where the best epoch
            is to be kept, and the module has no validation loss, no image to take it of, none that is finite, or steps
            that end within an epoch.
    """
    if params.keep == "best" and not is_overridden("validation_step", module):
        raise UserError(f"{title}: keep=best needs a loss on the validation split, which this has not: use keep=last")
    data.ranks = trainer.devices
    data.setup("fit")
    batches = len(data.train_dataloader())
    if params.keep == "best" and params.total(batches) % batches:
        # The last steps, at the lowest rate, would be seen by no validation.
        what = f"keep=best looks at the ends of epochs of {batches} steps, and steps={params.steps} ends within one"
        raise UserError(f"{title}: {what}: use a multiple, or keep=last")
    data.watched = None if params.keep == "best" else _WATCHED
    asked = params.keep == "best" or (bool(logger) and is_overridden("validation_step", module))
    validate = asked and len(data.val_dataloader()) > 0
    if params.keep == "best" and not validate:
        raise UserError(f"{title}: keep=best needs images of the validation split, which has none: use keep=last")
    workdir.mkdir(parents=True, exist_ok=True)
    done = steps_done(workdir / CHECKPOINT, module)
    if not done:
        forget_kept(workdir)
    data.first_epoch, data.first_batch = divmod(done, batches)
    plan = _Plan(params, trainer, workdir, done > 0, shares, validate)
    with bar(title, params.total(batches), "steps") as advance:
        train = _train if trainer.devices == 1 else _train_in_processes
        train(plan, module, data, advance, logger)
    if params.keep == "best":
        if not (workdir / BEST).exists():
            what = "keep=best finds no epoch whose loss on the validation split is a finite number"
            raise UserError(f"{title}: {what}: lower learning_rate, train in precision 32-true, or use keep=last")
        module.load_state_dict(kept_weights(workdir, BEST))
    module.cpu().eval().zero_grad()
    if sum(value.nbytes for value in module.parameters()) > _LARGE:
        # The trainer holds itself, and the module, until Python looks for what nobody else holds.
        module.trainer = data.trainer = None
        gc.collect()


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
            accelerator={"cuda": "gpu"}.get(plan.trainer.device.type, plan.trainer.device.type),
            max_epochs=plan.params.epochs or -1,
            max_steps=plan.params.steps or -1,
            precision=plan.trainer.precision,
            gradient_clip_val=plan.params.clip or None,
            logger=logger,
            callbacks=[keep, _Curves(), _Watch(plan.checkpoint, plan.trainer.checkpoint_minutes, advance)],
            # Never SLURM's environment, which would look for tasks of its own.
            plugins=[CheckpointFiles(), LightningEnvironment()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            limit_val_batches=1.0 if plan.validate else 0,
            log_every_n_steps=_STEPS_BETWEEN_NUMBERS,
            default_root_dir=plan.workdir,
        )
        # Where steps are counted, Lightning would take a first step after a resume between two epochs for an epoch.
        engine.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]
        resume = str(plan.checkpoint) if plan.resume else None
        try:
            engine.fit(module.train(), datamodule=data, ckpt_path=resume, weights_only=True)
        except SystemExit as end:
            # Lightning makes an exit with status 1 of it, and says nothing.
            if isinstance(end.__context__, KeyboardInterrupt):
                raise end.__context__ from None
            raise
        for optimiser in engine.optimizers:
            optimiser.state.clear()


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

    # Beside the checkpoint, where there is room for networks.
    with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=plan.workdir) as folder:
        parcel = Parcel(module, Path(folder) / "module.safetensors")
        backend = "nccl" if plan.trainer.device.type == "cuda" else "gloo"
        run_group(_train_part, (plan, parcel, data, bool(logger)), plan.trainer.devices, backend, hear)
    if logger:
        logger.finalize("success")
    module.load_state_dict(read(plan.checkpoint)["state_dict"])


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
    )


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
            warnings.filterwarnings("ignore", module="lightning_fabric")
            warnings.filterwarnings("ignore", message=".*find_unused_parameters")
            warnings.filterwarnings("ignore", message=".*num_workers.*")
            warnings.filterwarnings("ignore", message=".*isinstance.treespec.*")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
