"""Batches addressed by epoch and process: a resumed run, and one shared by several processes, sees the same ones."""

from collections.abc import Iterator

import torch
from pytorch_lightning import LightningDataModule
from torch.utils.data import Sampler

from xai.core.errors import UserError


class _FromTheMiddle:
    """What a sampler leaves out of the epoch that a resumed run begins with: the steps that are done."""

    _epoch = 0
    _start = (0, 0)

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self._epoch = epoch

    def start_at(self, epoch: int, batch: int) -> None:
        """Begin with this epoch, and in it with this batch."""
        self._epoch, self._start = epoch, (epoch, batch)

    @property
    def _done(self) -> int:
        epoch, batch = self._start
        return batch if self._epoch == epoch else 0


class EpochSampler(_FromTheMiddle, Sampler[tuple[int, list[int]]]):
    """Addresses (epoch, rows) of the batches of an epoch; the order depends on seed and epoch alone.

    Several processes share each batch: together their parts are the batch of one process with `batch_size * ranks`.

    Args:
        length: Number of images.
        batch_size: Images a batch, of each process; an incomplete last batch is left out, unless it is the only one.
        seed: Of the order, or None for the order of the data set with every image (evaluation).
        rank: Which of the processes this is, from 0.
        ranks: How many processes share a batch.

    Raises:
        UserError: Where there are fewer images than processes.
    """

    def __init__(self, length: int, batch_size: int, seed: int | None, rank: int = 0, ranks: int = 1) -> None:
        if length < ranks:
            raise UserError(f"{length} images cannot be shared by {ranks} devices: lower trainer.devices")
        self._length, self._seed = length, seed
        self._rank, self._part = rank, min(batch_size, length // ranks)
        self._batch_size = self._part * ranks

    def __len__(self) -> int:
        whole, rest = divmod(self._length, self._batch_size)
        return whole + (self._seed is None and rest > 0)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        if self._seed is None:
            order = torch.arange(self._length)
        else:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
            order = torch.randperm(self._length, generator=generator)
        for batch in range(self._done, len(self)):
            first = batch * self._batch_size + self._rank * self._part
            yield self._epoch, order[first : first + self._part].tolist()


class EpochDataModule(LightningDataModule):
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


class StepSampler(_FromTheMiddle, Sampler[int]):
    """The numbers of the steps of an epoch, counted over all epochs: for streams that are addressed by step.

    Where several processes share a step, each counts for itself: rank r of R takes the numbers r, R + r, 2R + r ...
    """

    def __init__(self, steps_per_epoch: int, rank: int = 0, ranks: int = 1) -> None:
        self._steps, self._rank, self._ranks = steps_per_epoch, rank, ranks

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[int]:
        steps = range(self._epoch * self._steps + self._done, (self._epoch + 1) * self._steps)
        return (step * self._ranks + self._rank for step in steps)
