"""The one LightningDataModule: any registered data set, at any size, with or without explanation supervision."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from xai.core.epochs import EpochDataModule, EpochSampler
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
