"""Maps of a case: made once, shared by processes, killed and resumed with the same bytes."""

import gc
import itertools
import logging
import multiprocessing
import random
import signal
import time
import weakref
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.classifiers.bench import DATA
from tests.study.explaining import Drawn, Silent, case, drawn, register, row
from xai.core.errors import UserError
from xai.core.store import Artifact, Store
from xai.data.catalogue import OpenData
from xai.data.registry import load_images, subset
from xai.models.maskable import Removal
from xai.study.blocks import read_blocks
from xai.study.case import Case
from xai.study.maps import explain, key

FORK = multiprocessing.get_context("fork")
BLOCKS = [DATA.source.labels("test")[rows].tolist() for rows in torch.arange(9).split(2)]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register(monkeypatch, tmp_path / "journal")
    return tmp_path / "journal"


def fill(folder: Path, split: str = "test", pause: float = 0.0, gain: float = 1.0, **asked: Any) -> Artifact:
    return explain(case(folder, split, **asked), row(gain, pause)).artifact


def bytes_of(artifact: Artifact) -> bytes:
    return artifact.file("maps.safetensors").read_bytes()


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def begun(journal: Path) -> list[list[int]]:
    """The labels of each block that any process has begun to explain."""
    return [[int(label) for label in line[1:-1].split(",")] for line in journal.read_text().splitlines()]


# What is made.


@pytest.mark.parametrize(("split", "gain"), [("train", 1.5), ("test", 3.0)])
def test_every_image_is_explained_for_its_label_with_the_draws_of_its_block(
    tmp_path: Path, journal: Path, split: str, gain: float
) -> None:
    found = read_blocks(fill(tmp_path, split, gain=1.5))
    labels = DATA.source.labels(split)
    assert torch.equal(found["rows"], torch.arange(len(labels)))
    assert torch.equal(found["targets"], labels)
    pixels = DATA.source.images(split, found["rows"], 0).pixels
    for number, rows in enumerate(found["rows"].split(2)):
        expected = drawn(gain, pixels[rows], labels[rows], 3 * 1_000_003 + number)
        torch.testing.assert_close(found["attributions"][rows], expected, rtol=0, atol=0)


def test_maps_do_not_keep_the_networks_that_made_them(tmp_path: Path, journal: Path) -> None:
    of = case(tmp_path, "test")
    found, network = explain(of, row(1.0, 0.0)), weakref.ref(of.network())
    del of
    gc.collect()
    assert found.attributions is not None
    assert network() is None


def test_a_subset_is_explained_in_the_order_of_its_rows(tmp_path: Path, journal: Path) -> None:
    found = read_blocks(fill(tmp_path, "train", images=5))
    rows = subset(DATA.source, "train", 5, 3)
    assert torch.equal(found["rows"], rows)
    assert torch.equal(found["targets"], DATA.source.labels("train")[rows])
    assert begun(journal) == [block.tolist() for block in found["targets"].split(2)]
    pixels = DATA.source.images("train", rows[2:4], 0).pixels
    expected = drawn(1.0, pixels, found["targets"][2:4], 3 * 1_000_003 + 1)
    torch.testing.assert_close(found["attributions"][2:4], expected, rtol=0, atol=0)


def test_the_classifier_is_made_once_with_the_removal_of_the_explainer(tmp_path: Path, journal: Path) -> None:
    asked = []

    def make(removal: Removal | None) -> Silent:
        asked.append(removal)
        return Silent()

    fill(tmp_path, make=make)
    assert asked == [Removal("tokens")]


def test_the_time_that_maps_take_is_neither_building_nor_reading(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*given: Any) -> Any:
        time.sleep(0.1)
        return load_images(*given)

    def make(removal: Removal | None) -> Silent:
        time.sleep(0.5)
        return Silent()

    monkeypatch.setattr("xai.study.case.load_images", slow)
    assert fill(tmp_path, make=make).seconds < 0.4


def test_threads_that_read_images_change_nothing(tmp_path: Path, journal: Path) -> None:
    several = case(tmp_path / "several")
    several.runtime.trainer = replace(several.runtime.trainer, workers=3)
    assert bytes_of(explain(several, row()).artifact) == bytes_of(fill(tmp_path / "one"))


def test_attributions_that_are_not_finite_are_refused_by_row(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(gain: float, pixels: torch.Tensor, labels: torch.Tensor, seed: int) -> torch.Tensor:
        maps = drawn(gain, pixels, labels, seed)
        maps[labels == 2, 1, 3] = torch.inf
        return maps

    monkeypatch.setattr("tests.study.explaining.drawn", spoilt)
    rows = subset(DATA.source, "train", 7, 3)
    bad = rows[DATA.source.labels("train")[rows] == 2].tolist()
    with pytest.raises(UserError) as caught:
        fill(tmp_path, "train", images=7, block=7)
    message = str(caught.value)
    assert f"for shades train of rows {', '.join(map(str, bad))} hold NaN or infinity:" in message
    assert "\n" not in message


# What changed is never mixed.


def test_whatever_changes_is_explained_anew(tmp_path: Path, journal: Path) -> None:
    other = OpenData("shades", {"name": "shades", "fingerprint": "other"}, DATA.source)
    asked = [
        (case(tmp_path), row()),
        (case(tmp_path, "validation"), row()),
        (case(tmp_path), row(gain=2.0)),
        (case(tmp_path, classifier="other"), row()),
        (case(tmp_path, data=other), row()),
        (case(tmp_path, images=9), row()),
        (replace(case(tmp_path), seed=4), row()),
    ]
    assert len({key(*each) for each in asked}) == len(asked)
    for each in (*asked, *asked):
        assert explain(*each).artifact.key == key(*each)
    assert len(begun(journal)) == sum([5, 4, 5, 5, 5, 5, 5])


def test_shards_of_another_classifier_are_noticed_and_not_used(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bytes_of(fill(tmp_path / "whole", classifier="b"))
    journal.write_text("")
    before, wanted = case(tmp_path, classifier="a"), case(tmp_path, classifier="b")
    # Killed when every block was there and nothing was put together.
    with monkeypatch.context() as patch:
        patch.setattr(Store, "get", interrupted)
        for each in (before, wanted):
            with pytest.raises(KeyboardInterrupt):
                explain(each, row())
    there, here = (tmp_path / "store" / "maps" / f"{key(each, row())}.partial/scratch" for each in (before, wanted))
    for shard in there.glob("*.safetensors"):
        shard.rename(here / shard.name)
    journal.write_text("")
    assert bytes_of(explain(wanted, row()).artifact) == expected
    assert begun(journal) == BLOCKS
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(said) == len(BLOCKS)
    assert all("belongs to other work; it is computed anew" in line for line in said)


# Kills and company.


def test_a_block_cut_short_by_a_kill_is_computed_anew_and_the_others_are_kept(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bytes_of(fill(tmp_path / "whole"))
    journal.write_text("")
    with monkeypatch.context() as patch:
        patch.setattr("xai.study.maps.check_finite", lambda *_: begun(journal)[2:] and interrupted())
        with pytest.raises(KeyboardInterrupt):
            fill(tmp_path)
    first, _ = sorted((tmp_path / "store").rglob("scratch/00000*.safetensors"))
    first.write_bytes(first.read_bytes()[:-20])
    assert bytes_of(fill(tmp_path)) == expected
    assert begun(journal) == [*BLOCKS[:3], BLOCKS[0], *BLOCKS[2:]]
    (warning,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert warning == f"{first} is torn; it is computed anew"
    assert not list((tmp_path / "store").rglob("*.partial"))


def explain_then_hang(folder: Path, blocks: int) -> None:
    """Be a process that explains so many blocks and is then at the next for ever."""
    calls, plain = itertools.count(), Drawn.attribute

    def attribute(self: Drawn, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        maps = plain(self, images, targets, generator)
        if next(calls) == blocks:
            time.sleep(30)
        return maps

    Drawn.attribute = attribute  # type: ignore[method-assign]
    fill(folder, "train", block=1)


def test_killed_ten_times_it_ends_with_the_same_bytes(tmp_path: Path, journal: Path) -> None:
    expected = bytes_of(fill(tmp_path / "whole", "train", block=1))
    journal.write_text("")
    final, generator = tmp_path / "store" / "maps" / key(case(tmp_path, "train", block=1), row()), random.Random(0)
    for kept in [0, 1, 2, 0, 1, 0, 3, 1, 0, 2]:
        process, so_far, limit = FORK.Process(target=explain_then_hang, args=(tmp_path, kept)), len(begun(journal)), 20
        process.start()
        limit += time.monotonic()
        while len(begun(journal)) <= so_far + kept:
            assert time.monotonic() < limit, "waited in vain"
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.01))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not final.exists()
    assert bytes_of(fill(tmp_path, "train", block=1)) == expected
    assert len(begun(journal)) == 12 + 10  # each kill has cost the block it fell in and no other


def test_processes_share_a_split_and_make_each_block_once(tmp_path: Path, journal: Path) -> None:
    expected = bytes_of(fill(tmp_path / "whole", pause=0.05))
    journal.write_text("")

    def contribute() -> None:
        wanted: Case = case(tmp_path)
        assert bytes_of(explain(wanted, row(pause=0.05)).artifact) == expected
        (tmp_path / f"made-{len(wanted.runtime.store.made)}-{time.monotonic_ns()}").touch()

    processes = [FORK.Process(target=contribute) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert Counter(map(tuple, begun(journal))) == Counter(map(tuple, BLOCKS))
    assert len(list(tmp_path.glob("made-1-*"))) == 1
    assert len(list(tmp_path.glob("made-0-*"))) == 2
    found = fill(tmp_path, pause=0.05)
    assert found.seconds >= len(BLOCKS) * 0.05
    assert len(begun(journal)) == len(BLOCKS)
