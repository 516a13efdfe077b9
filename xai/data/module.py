"""The one LightningDataModule of images: any registered data set, any size, with or without explanation supervision.

Batches are addressed by epoch and process: a resumed run, and one shared by several processes, sees the same ones.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from xai.core.errors import UserError
from xai.core.training import EpochDataModule
from xai.data.registry import ImageSource, load_images


class OtherColumn(NamedTuple):
    """Supervision of one more class an image, for N images: `classes` [N] and their `maps` [N, M]."""

    classes: Tensor
    maps: Tensor


class Batch(NamedTuple):
    """B images: pixels [B, 3, H, W] in [0, 1], labels [B]; regions bool [B, H, W] and attributions [B, M], or None.

    Attributions are those of the labels; `other` has those of one more class of each image.
    """

    pixels: Tensor
    labels: Tensor
    regions: Tensor | None
    attributions: Tensor | None
    other: OtherColumn | None = None


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
        UserError: Where there are fewer images to train on than processes.
    """

    def __init__(self, length: int, batch_size: int, seed: int | None, rank: int = 0, ranks: int = 1) -> None:
        if length < ranks and seed is not None:
            raise UserError(f"{length} images cannot be shared by {ranks} devices: lower trainer.devices")
        self._length, self._seed = length, seed
        # One, where there is none to look at: an epoch of no batch.
        self._rank, self._part = rank, max(1, min(batch_size, length // ranks))
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


class _Batches(Dataset[Batch]):
    """Maps (epoch, rows) to a batch: nothing depends on what was drawn before, so a resumed run sees the same."""

    def __init__(
        self,
        source: ImageSource,
        split: str,
        rows: Tensor,
        size: int,
        fixed: bool,
        attributions: Tensor | None,
        other: OtherColumn | None = None,
    ) -> None:
        self._source, self._split, self._rows, self._size, self._fixed = source, split, rows, size, fixed
        self._labels, self._attributions, self._other = source.labels(split)[rows], attributions, other

    def __getitem__(self, address: tuple[int, list[int]]) -> Batch:
        epoch, chosen = address
        rows = self._rows[chosen]
        pixels, regions = load_images(self._source, self._split, rows, 0 if self._fixed else epoch, self._size)
        reference = None if self._attributions is None else self._attributions[chosen].flatten(1)
        other = None if self._other is None else OtherColumn(*(part[chosen] for part in self._other))
        return Batch(pixels, self._labels[chosen], regions, reference, other)


def in_order(
    source: ImageSource, split: str, size: int, batch_size: int, workers: int = 0, images: int | None = None
) -> DataLoader[Batch]:
    """Every image of a split once, in order, as in epoch 0; no more than a few batches are in memory.

    Args:
        source: The data set.
        split: Of it.
        size: Side of the images in pixels.
        batch_size: Images a batch.
        workers: Processes that read images.
        images: So many of them, evenly spaced, for a split may be sorted by class; None is all.
    """
    rows = torch.arange(len(source.labels(split)))
    if images is not None and images < len(rows):
        rows = rows[torch.arange(images) * len(rows) // images]
    data = _Batches(source, split, rows, size, True, None)
    return _loader(data, EpochSampler(len(rows), batch_size, None), workers)


def _loader(data: Dataset[Batch], sampler: EpochSampler, workers: int) -> DataLoader[Batch]:
    # Workers outlive an epoch: starting them again costs seconds, and what they keep in memory.
    return DataLoader(
        data,
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
    )


class ImageDataModule(EpochDataModule):
    """Batches of a registered data set.

    Args:
        source: The data set.
        size: Side of the images in pixels.
        batch_size: Images a batch; in training each process takes as many.
        seed: Order of the training images.
        rows: Which images of the train split to use, [N]; None uses all.
        fixed: Keep every training image as it looks in epoch 0 (explanation supervision belongs to that very image).
        attributions: Supervision of those images, [N, h, w].
        workers: Processes that read images.
        other: Supervision of one other class of each.
    """

    def __init__(
        self,
        source: ImageSource,
        size: int,
        batch_size: int,
        seed: int,
        rows: Tensor | None = None,
        fixed: bool = False,
        attributions: Tensor | None = None,
        workers: int = 0,
        other: OtherColumn | None = None,
    ) -> None:
        super().__init__()
        self._source, self._size, self._batch_size, self._seed = source, size, batch_size, seed
        self._rows = torch.arange(len(source.labels("train"))) if rows is None else rows
        self._fixed = fixed or attributions is not None
        self._attributions, self._other, self._workers = attributions, other, workers

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the train split."""
        data = _Batches(self._source, "train", self._rows, self._size, self._fixed, self._attributions, self._other)
        sampler = EpochSampler(len(self._rows), self._batch_size, self._seed, self.rank, self.ranks)
        sampler.start_at(self.first_epoch, self.first_batch)
        return _loader(data, sampler, self._workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split, or as many images of it as are watched, in order."""
        return in_order(self._source, "validation", self._size, self._batch_size, self._workers, self.watched)
