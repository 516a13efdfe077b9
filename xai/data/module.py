"""The one LightningDataModule: any registered data set, at any size, with or without explanation supervision."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from xai.data.registry import Images, ImageSource
from xai.errors import UserError


class Batch(NamedTuple):
    """B images: pixels [B, 3, H, W] in [0, 1], labels [B]; regions bool [B, H, W] and attributions [B, M], or None."""

    pixels: Tensor
    labels: Tensor
    regions: Tensor | None
    attributions: Tensor | None


def load_images(source: ImageSource, split: str, indices: Tensor, epoch: int, size: int, threads: int = 0) -> Images:
    """Read images of a split at the size a model wants: pixels [B, 3, size, size], regions [B, size, size] or None.

    Threads decode side by side; what they read does not depend on how many they are.
    """
    if threads > 1 and len(indices) > 1:
        with ThreadPoolExecutor(threads) as pool:
            parts = list(pool.map(partial(load_images, source, split, epoch=epoch, size=size), indices.chunk(threads)))
        found = [part.regions for part in parts if part.regions is not None]
        return Images(torch.cat([part.pixels for part in parts]), torch.cat(found) if found else None)
    pixels, regions = source.images(split, indices, epoch)
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True, align_corners=False).clamp(
            0, 1
        )
        if regions is not None:
            regions = F.interpolate(regions[:, None].float(), size=(size, size), mode="nearest")[:, 0] > 0.5
    return Images(pixels, regions)


class _Batches(Dataset[Batch]):
    """Maps (epoch, rows) to a batch: nothing depends on what was drawn before, so a resumed run sees the same."""

    def __init__(
        self, source: ImageSource, split: str, rows: Tensor, size: int, fixed: bool, attributions: Tensor | None
    ) -> None:
        self._source, self._split, self._rows, self._size, self._fixed = source, split, rows, size, fixed
        self._labels, self._attributions = source.labels(split)[rows], attributions

    def __getitem__(self, address: tuple[int, list[int]]) -> Batch:
        epoch, chosen = address
        rows = self._rows[chosen]
        pixels, regions = load_images(self._source, self._split, rows, 0 if self._fixed else epoch, self._size)
        reference = None if self._attributions is None else self._attributions[chosen].flatten(1)
        return Batch(pixels, self._labels[chosen], regions, reference)


class EpochSampler(Sampler[tuple[int, list[int]]]):
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
        self._length, self._seed, self._epoch = length, seed, 0
        self._rank, self._part = rank, min(batch_size, length // ranks)
        self._batch_size = self._part * ranks

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(self._length, self._batch_size)
        return whole + (self._seed is None and rest > 0)

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        if self._seed is None:
            order = torch.arange(self._length)
        else:
            generator = torch.Generator().manual_seed(self._seed * 1_000_003 + self._epoch)
            order = torch.randperm(self._length, generator=generator)
        for batch in range(len(self)):
            first = batch * self._batch_size + self._rank * self._part
            yield self._epoch, order[first : first + self._part].tolist()


class EpochDataModule(LightningDataModule):
    """A data module whose batches depend on the epoch, and on which of the processes that share them asks.

    Lightning draws from the first loader before it tells the sampler which epoch a resumed run is in; whoever resumes
    says so here, and `train_dataloader` passes it on.

    Attributes:
        first_epoch: The epoch to begin with.
        rank: Which of the processes this is, from 0.
        ranks: How many processes share each batch.
    """

    first_epoch: int = 0
    rank: int = 0
    ranks: int = 1


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
    ) -> None:
        super().__init__()
        self._source, self._size, self._batch_size, self._seed = source, size, batch_size, seed
        self._rows = torch.arange(len(source.labels("train"))) if rows is None else rows
        self._fixed = fixed or attributions is not None
        self._attributions, self._workers = attributions, workers

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled batches of the train split."""
        data = _Batches(self._source, "train", self._rows, self._size, self._fixed, self._attributions)
        sampler = EpochSampler(len(self._rows), self._batch_size, self._seed, self.rank, self.ranks)
        sampler.set_epoch(self.first_epoch)
        return self._loader(data, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation split, in order."""
        return self._in_order("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test split, in order."""
        return self._in_order("test")

    def _in_order(self, split: str) -> DataLoader[Batch]:
        rows = torch.arange(len(self._source.labels(split)))
        data = _Batches(self._source, split, rows, self._size, True, None)
        return self._loader(data, EpochSampler(len(rows), self._batch_size, None))

    def _loader(self, data: Dataset[Batch], sampler: EpochSampler) -> DataLoader[Batch]:
        return DataLoader(data, batch_size=None, sampler=sampler, num_workers=self._workers)


class StepSampler(Sampler[int]):
    """The numbers of the steps of an epoch, counted over all epochs: for streams that are addressed by step.

    Where several processes share a step, each counts for itself: rank r of R takes the numbers r, R + r, 2R + r ...
    """

    def __init__(self, steps_per_epoch: int, rank: int = 0, ranks: int = 1) -> None:
        self._steps, self._epoch, self._rank, self._ranks = steps_per_epoch, 0, rank, ranks

    def set_epoch(self, epoch: int) -> None:
        """Called by Lightning at the start of every epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return self._steps

    def __iter__(self) -> Iterator[int]:
        steps = range(self._epoch * self._steps, (self._epoch + 1) * self._steps)
        return (step * self._ranks + self._rank for step in steps)
