import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.data.disk_forms import picture
from tests.toolbox import refusal, seeded, there
from xai.data.module import Batch, EpochSampler, ImageDataModule, OtherColumn, StepSampler, in_order
from xai.data.registry import Images, load_images

SIZES = {"train": 10, "validation": 7, "test": 5}


class Numbered:
    """Images that tell their split, row and epoch; row r is of class r % 3."""

    classes = ("a", "b", "c")
    templates = ("{}",)
    varies = True

    def labels(self, split: str) -> Tensor:
        return torch.arange(SIZES[split]) % 3

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        content = torch.stack([indices / 100, indices * 0 + epoch / 100, indices * 0 + len(split) / 100], dim=1)
        regions = torch.zeros(len(indices), 6, 6, dtype=torch.bool)
        regions[torch.arange(len(indices)), indices % 6] = True
        return Images(content[:, :, None, None].expand(-1, -1, 6, 6), regions)


def rows_of(batch: Batch) -> list[int]:
    return [round(level) for level in (batch.pixels[:, 0, 0, 0] * 100).tolist()]


def epochs_of(batch: Batch) -> set[int]:
    return {round(level) for level in (batch.pixels[:, 1, 0, 0] * 100).tolist()}


def test_threads_read_what_one_reads() -> None:
    rows = torch.tensor([4, 1, 9, 0, 7])
    one = load_images(Numbered(), "train", rows, 3, 12)
    for threads in (2, 3, 8):
        several = load_images(Numbered(), "train", rows, 3, 12, threads)
        assert torch.equal(several.pixels, one.pixels)
        assert torch.equal(there(several.regions), there(one.regions))


def order(sampler: EpochSampler, epoch: int) -> list[int]:
    sampler.set_epoch(epoch)
    addresses = list(sampler)
    assert [address[0] for address in addresses] == [epoch] * len(sampler)
    return [row for _, rows in addresses for row in rows]


def test_each_epoch_is_a_permutation_of_its_own_that_only_seed_and_epoch_determine() -> None:
    sampler, again, other = EpochSampler(12, 4, 7), EpochSampler(12, 4, 7), EpochSampler(12, 4, 8)
    epochs = [order(sampler, epoch) for epoch in range(5)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert [order(again, epoch) for epoch in reversed(range(5))] == epochs[::-1]
    assert order(other, 0) != epochs[0]


@pytest.mark.parametrize("watched", [1, 3, 4, 100])
def test_the_images_that_are_watched_are_spread_over_a_split_that_may_be_sorted(watched: int) -> None:
    data = ImageDataModule(Numbered(), 6, 3, seed=0)
    data.watched = watched
    rows = [row for batch in data.val_dataloader() for row in rows_of(batch)]
    size = SIZES["validation"]
    assert rows == [step * size // min(watched, size) for step in range(min(watched, size))]


@pytest.mark.parametrize(("length", "batch", "sizes"), [(10, 4, [4, 4]), (3, 8, [3]), (1, 1, [1]), (8, 4, [4, 4])])
def test_training_leaves_an_incomplete_batch_out_unless_it_is_the_only_one(
    length: int, batch: int, sizes: list[int]
) -> None:
    sampler = EpochSampler(length, batch, 0)
    assert [len(rows) for _, rows in sampler] == sizes
    assert len(sampler) == len(sizes)


@pytest.mark.parametrize(("length", "batch", "ranks"), [(26, 4, 2), (26, 2, 4), (24, 4, 3), (11, 4, 3)])
def test_processes_share_the_batches_that_one_alone_would_take(length: int, batch: int, ranks: int) -> None:
    samplers = [EpochSampler(length, batch, 7, rank, ranks) for rank in range(ranks)]
    alone = EpochSampler(length, sum(len(next(iter(sampler))[1]) for sampler in samplers), 7)
    for epoch in (0, 3):
        for sampler in (alone, *samplers):
            sampler.set_epoch(epoch)
        parts = zip(*samplers, strict=True)
        together = [[row for at, rows in step for row in rows if at == epoch] for step in parts]
        assert together == [rows for _, rows in alone]
    assert {len(rows) for sampler in samplers for _, rows in sampler} == {min(batch, length // ranks)}
    assert [len(sampler) for sampler in samplers] == [len(alone)] * ranks


def test_fewer_images_than_processes_are_refused() -> None:
    assert "2 images cannot be shared by 3 devices: lower trainer.devices" in refusal(EpochSampler, 2, 1, 0, 0, 3)
    assert "0 images cannot be shared by 1 devices" in refusal(EpochSampler, 0, 4, 0)


def test_a_split_without_images_has_no_batch_to_look_at() -> None:
    assert list(EpochSampler(0, 4, None)) == []
    assert len(EpochSampler(0, 4, None)) == 0


def test_a_loader_gives_the_part_of_its_rank() -> None:
    data = [ImageDataModule(Numbered(), 6, 2, seed=0) for _ in range(3)]
    data[0].ranks = data[1].ranks = 2
    data[1].rank = 1
    first, second, alone = ([rows_of(batch) for batch in each.train_dataloader()] for each in data)
    assert [len(alone), len(first), len(second)] == [5, 2, 2]
    assert [one + other for one, other in zip(first, second, strict=True)] == [
        one + other for one, other in zip(alone[0:4:2], alone[1:4:2], strict=True)
    ]


def test_evaluation_loaders_give_every_image_of_their_split_once_as_in_epoch_0() -> None:
    validation = ImageDataModule(Numbered(), 6, 3, seed=0).val_dataloader()
    for split, loader in (("validation", validation), ("test", in_order(Numbered(), "test", 6, 3))):
        batches = list(loader)
        assert len(loader) == len(batches)
        assert [row for batch in batches for row in rows_of(batch)] == list(range(SIZES[split]))
        assert [label for batch in batches for label in batch.labels.tolist()] == [r % 3 for r in range(SIZES[split])]
        assert {epoch for batch in batches for epoch in epochs_of(batch)} == {0}
        assert all(torch.all(batch.pixels[:, 2] == len(split) / 100) for batch in batches)
        assert all(batch.attributions is None for batch in batches)


def test_supervised_batches_carry_the_attribution_of_that_very_image() -> None:
    chosen = torch.tensor([1, 4, 5, 8, 9])
    attributions = torch.arange(10.0)[chosen, None, None] * 10 + torch.arange(4.0).reshape(2, 2)
    other = OtherColumn(chosen + 1, -attributions.flatten(1))
    data = ImageDataModule(Numbered(), 6, 2, seed=3, rows=chosen, attributions=attributions, other=other)
    loader = data.train_dataloader()
    seen = []
    for epoch in range(4):
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for batch in loader:
            rows = rows_of(batch)
            assert there(batch.attributions).tolist() == [[10 * row + m for m in range(4)] for row in rows]
            assert there(batch.other).classes.tolist() == [row + 1 for row in rows]
            assert torch.equal(there(batch.other).maps, -batch.attributions)
            assert batch.labels.tolist() == [row % 3 for row in rows]
            assert epochs_of(batch) == {0}  # supervision belongs to the image as it looked then
            seen += rows
    assert set(seen) == set(chosen.tolist())


def test_unsupervised_images_change_with_the_epoch_unless_they_are_fixed() -> None:
    for fixed, expected in ((False, {4}), (True, {0})):
        loader = ImageDataModule(Numbered(), 6, 5, seed=0, fixed=fixed).train_dataloader()
        loader.sampler.set_epoch(4)  # type: ignore[attr-defined]
        batches = list(loader)
        assert set.union(*(epochs_of(batch) for batch in batches)) == expected
        assert sorted(row for batch in batches for row in rows_of(batch)) == list(range(10))


def test_workers_read_what_one_process_reads_and_stay() -> None:
    data = ImageDataModule(Numbered(), 6, 4, seed=0, workers=2)
    loader, alone = data.train_dataloader(), ImageDataModule(Numbered(), 6, 4, seed=0).train_dataloader()
    assert loader.persistent_workers
    for epoch in (0, 1):
        for each in (loader, alone):
            each.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        for one, other in zip(loader, alone, strict=True):
            assert torch.equal(one.pixels, other.pixels)


def test_images_are_resized_with_their_regions() -> None:
    class Fixed(Numbered):
        def images(self, split: str, indices: Tensor, epoch: int) -> Images:
            pixels = torch.rand(len(indices), 3, 6, 6, generator=seeded()).round()
            regions = torch.zeros(len(indices), 6, 6, dtype=torch.bool)
            regions[:, 2:4, 1:3] = True
            return Images(pixels, regions)

    source, rows = Fixed(), torch.arange(4)
    same = load_images(source, "train", rows, 0, 6)
    assert torch.equal(same.pixels, source.images("train", rows, 0).pixels)
    large = load_images(source, "train", rows, 0, 18)
    assert large.pixels.shape == (4, 3, 18, 18)
    assert large.pixels.min() == 0
    assert large.pixels.max() == 1
    shrunk = F.avg_pool2d(large.pixels, 3)
    assert torch.corrcoef(torch.stack([shrunk.flatten(), same.pixels.flatten()]))[0, 1] > 0.97
    expected = torch.zeros(4, 18, 18, dtype=torch.bool)
    expected[:, 6:12, 3:9] = True
    assert torch.equal(there(large.regions), expected)


def test_a_source_without_regions_stays_without() -> None:
    class Plain(Numbered):
        def images(self, split: str, indices: Tensor, epoch: int) -> Images:
            return Images(torch.zeros(len(indices), 3, 6, 6), None)

    assert load_images(Plain(), "train", torch.arange(2), 0, 12).regions is None
    assert next(iter(ImageDataModule(Plain(), 12, 2, 0).train_dataloader())).pixels.shape == (2, 3, 12, 12)


def test_steps_are_numbered_over_all_epochs() -> None:
    sampler = StepSampler(5)
    sampler.set_epoch(3)
    assert list(sampler) == [15, 16, 17, 18, 19]
    assert len(sampler) == 5


def test_processes_number_their_steps_apart() -> None:
    samplers = [StepSampler(3, rank, 2) for rank in range(2)]
    for sampler in samplers:
        sampler.set_epoch(2)
    assert [list(sampler) for sampler in samplers] == [[12, 14, 16], [13, 15, 17]]
    assert [len(sampler) for sampler in samplers] == [3, 3]


def test_a_resumed_run_begins_with_the_epoch_it_stopped_at() -> None:
    data = ImageDataModule(Numbered(), 6, 5, seed=0)
    data.first_epoch = 6
    assert set.union(*(epochs_of(batch) for batch in data.train_dataloader())) == {6}
    assert [len(batch.labels) for batch in data.val_dataloader()] == [5, 2]


_PEAKS = """
import resource, sys
from xai.data import disk
from xai.data.disk import DiskParams, DiskSource
from xai.data.module import in_order

disk._KEPT_BYTES = 0  # as if the set were larger than what is kept
for count in (100, 1300):
    source = DiskSource("folder", DiskParams(f"{sys.argv[1]}/{count}", 112))
    seen = sum(len(batch.labels) for batch in in_order(source, "test", 112, 20))
    print(seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_peak_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    picture(tmp_path / "one.png")
    for count in (100, 1300):
        for name in [*(f"test/{number % 2}/{number}.png" for number in range(count)), "train/0/a.png", "train/1/a.png"]:
            for split in ("train", "val") if name.startswith("train") else ("test",):
                link = tmp_path / str(count) / name.replace("train", split)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.hardlink_to(tmp_path / "one.png")
    run = subprocess.run([sys.executable, "-c", _PEAKS, str(tmp_path)], capture_output=True, text=True, check=True)
    (few, before), (many, after) = (map(int, line.split()) for line in run.stdout.splitlines())
    assert (few, many) == (100, 1300)
    # In MiB; as float32 the 1,200 further images take 172.
    assert after - before < 40
