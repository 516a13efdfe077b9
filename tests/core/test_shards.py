"""Blocks that processes share: each computed once, whoever is killed, and nothing foreign mixed in."""

import logging
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from tests.core.artifacts import wait_for
from xai.core import locks, shards
from xai.core.errors import Busy
from xai.core.shards import Shards, place

ROWS = list((torch.arange(23) * 3).split(4))
FORK = multiprocessing.get_context("fork")


def numbers(block: int) -> dict[str, Tensor]:
    """What a block should hold, each block as long as its rows."""
    generator = torch.Generator().manual_seed(block)
    return {"attributions": torch.randn(len(ROWS[block]), 2, 3, generator=generator)}


EXPECTED = torch.cat([numbers(block)["attributions"] for block in range(len(ROWS))])


class Journal:
    """Which blocks were computed, by whomever, in a file that all processes add lines to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.touch()

    def note(self, line: object) -> None:
        with open(self._path, "a") as file:
            file.write(f"{line}\n")

    def lines(self) -> list[str]:
        return self._path.read_text().split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scratch").mkdir()
    return tmp_path / "scratch"


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "journal")


def work(folder: Path, journal: Journal, pause: float = 0.0) -> Shards:
    """Fill a folder, one line in the journal for each block computed here."""

    def compute(block: int) -> dict[str, Tensor]:
        journal.note(block)
        time.sleep(pause)
        return numbers(block)

    found = Shards(folder, "origin", ROWS)
    found.fill(compute, lambda done: None)
    return found


def fork(target: Callable[..., object], *arguments: object) -> multiprocessing.process.BaseProcess:
    process = FORK.Process(target=target, args=arguments)
    process.start()
    return process


def test_blocks_come_back_in_their_order_with_the_seconds_they_took(folder: Path, journal: Journal) -> None:
    tensors, seconds = work(folder, journal, pause=0.01).collect()
    assert tensors.keys() == {"attributions"}
    assert torch.equal(tensors["attributions"], EXPECTED)
    assert len(ROWS) * 0.01 <= seconds < len(ROWS) * 0.01 + 1
    assert journal.lines() == [str(block) for block in range(len(ROWS))]


def test_what_is_there_is_not_computed_again_and_its_seconds_count(folder: Path, journal: Journal) -> None:
    _, seconds = work(folder, journal, pause=0.01).collect()
    again = work(folder, journal)
    assert len(journal.lines()) == len(ROWS)
    assert again.collect()[1] == pytest.approx(seconds)


def test_threads_and_processes_at_once_compute_every_block_once(folder: Path, journal: Journal) -> None:
    processes = [fork(work, folder, journal, 0.02) for _ in range(3)]
    threads = [threading.Thread(target=work, args=(folder, journal, 0.02)) for _ in range(2)]
    for thread in threads:
        thread.start()
    tensors, _ = work(folder, journal, 0.02).collect()
    for other in (*threads, *processes):
        other.join(20)
    assert all(process.exitcode == 0 for process in processes)
    assert Counter(journal.lines()) == Counter({str(block): 1 for block in range(len(ROWS))})
    assert torch.equal(tensors["attributions"], EXPECTED)


def hang_in(block: int, folder: Path, journal: Journal) -> None:
    def compute(number: int) -> dict[str, Tensor]:
        if number == block:
            orphan = os.fork()  # like a worker that reads images: it outlives its parent, and must not keep the claim
            if orphan:
                journal.note(f"hangs:{orphan}")
            time.sleep(30)
            os._exit(0)
        return numbers(number)

    Shards(folder, "origin", ROWS).fill(compute, lambda done: None)


def test_the_block_of_a_killed_process_is_taken_by_one_that_waits(folder: Path, journal: Journal) -> None:
    holder = fork(hang_in, 2, folder, journal)
    wait_for(lambda: len(journal.lines()) == 1)
    orphan = int(journal.lines()[0].split(":")[1])
    try:
        waiting = fork(work, folder, journal)
        wait_for(lambda: len(journal.lines()) == 1 + 3)
        time.sleep(0.1)
        assert waiting.is_alive()
        assert journal.lines()[1:] == ["3", "4", "5"]
        holder.kill()
        waiting.join(20)
    finally:
        holder.kill()
        holder.join()
        os.kill(orphan, signal.SIGKILL)
    assert waiting.exitcode == 0
    assert journal.lines()[4:] == ["2"]
    assert torch.equal(work(folder, journal).collect()[0]["attributions"], EXPECTED)
    assert len(journal.lines()) == 5


def test_waiting_for_others_is_said_once(
    folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(shards, "PATIENCE_SECONDS", 0.05)
    slow = fork(work, folder, journal, 0.3)
    wait_for(lambda: journal.lines() == ["0"])
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    work(folder, journal)
    slow.join(20)
    [told] = [record.getMessage() for record in caplog.records if record.levelname == "note"]
    assert told.startswith(f"waiting for other processes; blocks left: 1 (process {slow.pid} on ")


def test_who_is_impatient_does_what_is_free_and_comes_back_later(folder: Path, journal: Journal) -> None:
    with locks.claimed(folder / "000002.lock") as held:
        assert held
        impatient = Shards(folder, "origin", ROWS, patient=False)
        with pytest.raises(Busy, match="1 blocks"):
            impatient.fill(lambda block: journal.note(block) or numbers(block), lambda done: None)
        assert sorted(journal.lines()) == [str(block) for block in range(len(ROWS)) if block != 2]
    work(folder, journal)
    assert Counter(journal.lines()) == dict.fromkeys(map(str, range(len(ROWS))), 1)


def test_an_error_passes_and_frees_the_claim(folder: Path, journal: Journal) -> None:
    def compute(block: int) -> dict[str, Tensor]:
        if block == 3:
            raise FileNotFoundError("image.png")
        return numbers(block)

    with pytest.raises(FileNotFoundError, match=r"image\.png"):
        Shards(folder, "origin", ROWS).fill(compute, lambda done: None)
    work(folder, journal)
    assert journal.lines() == ["3", "4", "5"]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def of_another_origin(path: Path) -> None:
    folder = path.parent / "other"
    folder.mkdir()
    Shards(folder, "another", ROWS).fill(numbers, lambda done: None)
    path.write_bytes((folder / path.name).read_bytes())
    shutil.rmtree(folder)


def of_another_shape(path: Path) -> None:
    short = {name: value[:-1] for name, value in numbers(int(path.stem)).items()}
    folder = path.parent / "short"
    folder.mkdir()
    made = Shards(folder, "origin", ROWS)
    made._write(int(path.stem), shards._Shard(short, 0.0))
    shutil.move(folder / path.name, path)
    shutil.rmtree(folder)


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-5]), "is torn"),
    "empty": (lambda path: path.write_bytes(b""), "is torn"),
    "unsigned": (lambda path: path.write_bytes(safetensors.torch.save(numbers(2))), "is torn"),
    "flipped": (flip, "has changed since it was written"),
    "another origin": (of_another_origin, "belongs to other work"),
    "other shape": (of_another_shape, "is of another shape"),
    "other rows": (
        lambda path: path.write_bytes(path.with_name("000003.safetensors").read_bytes()),
        "is of other rows",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_or_foreign_shard_is_computed_anew_with_one_line(
    folder: Path, journal: Journal, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    spoil, reason = SPOILT[name]
    work(folder, journal)
    spoil(folder / "000002.safetensors")
    found = work(folder, journal)
    assert journal.lines()[len(ROWS) :] == ["2"]
    assert torch.equal(found.collect()[0]["attributions"], EXPECTED)
    (line,) = (record.getMessage() for record in caplog.records if record.levelno == logging.WARNING)
    assert line == f"{folder / '000002.safetensors'} {reason}; it is computed anew"


@pytest.mark.parametrize("moment", ["while computing", "between blocks"])
def test_when_the_folder_vanishes_there_is_nothing_left_to_do(folder: Path, journal: Journal, moment: str) -> None:
    told = []

    def compute(block: int) -> dict[str, Tensor]:
        journal.note(block)
        if block == 1 and moment == "while computing":
            folder.rename(folder.with_name("elsewhere"))
        return numbers(block)

    def advance(done: int) -> None:
        told.append(done)

    if moment == "between blocks":
        folder.rmdir()
    Shards(folder, "origin", ROWS).fill(compute, advance)
    assert journal.lines() == (["0", "1"] if moment == "while computing" else [])
    assert told[-1] == 23
    assert not folder.exists()


@pytest.mark.parametrize(("meanwhile", "begun"), [("finished", 6), ("put together", 0)])
def test_what_happens_between_the_look_and_the_claim_is_seen(
    folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch, meanwhile: str, begun: int
) -> None:
    claim = locks.claimed

    @contextmanager
    def late(path: Path) -> Iterator[bool]:
        monkeypatch.setattr(locks, "claimed", claim)
        if meanwhile == "finished":
            work(folder, journal)
        with claim(path) as is_mine:
            if meanwhile == "put together":
                folder.rename(folder.with_name("elsewhere"))
            yield is_mine

    monkeypatch.setattr(locks, "claimed", late)
    work(folder, journal)
    assert len(journal.lines()) == begun


def test_one_value_of_all_rows_together_is_kept(folder: Path) -> None:
    found = Shards(folder, "origin", [torch.arange(5)])
    found.fill(lambda block: {"quality": torch.tensor([0.5])}, lambda done: None)
    assert found.collect()[0]["quality"].tolist() == [0.5]


def test_tensors_of_any_layout_are_kept(folder: Path) -> None:
    found = Shards(folder, "origin", ROWS)
    found.fill(lambda block: {"maps": numbers(block)["attributions"].transpose(1, 2)}, lambda done: None)
    assert torch.equal(found.collect()[0]["maps"], EXPECTED.transpose(1, 2))


def test_progress_counts_what_others_have_done(folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "_SECONDS_BETWEEN_COUNTS", 0.0)
    told: list[int] = []
    work(folder, journal)
    for block in (1, 5):
        (folder / f"{block:06d}.safetensors").unlink()
    Shards(folder, "origin", ROWS).fill(numbers, told.append)
    assert told == [23 - 7, 23 - 7, 23 - 3, 23 - 3, 23 - 3, 23 - 3, 23]


def test_ranks_begin_at_different_blocks_and_go_round(
    folder: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    work(folder, journal)
    assert journal.lines() == ["2", "3", "4", "5", "0", "1"]


ARRAY = {"SLURM_ARRAY_TASK_ID": "12", "SLURM_ARRAY_TASK_MIN": "10", "SLURM_ARRAY_TASK_COUNT": "4"}
STEP = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8"}
TORCHRUN = {"RANK": "5", "WORLD_SIZE": "16"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, (0, 1)),
        (TORCHRUN, (5, 16)),
        (STEP, (3, 8)),
        (ARRAY, (2, 4)),
        (STEP | TORCHRUN, (5, 16)),
        (STEP | ARRAY, (2 * 8 + 3, 4 * 8)),
        ({"RANK": "x", "WORLD_SIZE": "2"}, (0, 1)),
        ({"RANK": "3"}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "2"}, (0, 1)),
        (ARRAY | {"SLURM_ARRAY_TASK_ID": "30"}, (0, 1)),
    ],
)
def test_the_place_among_processes(environment: Mapping[str, str], expected: tuple[int, int]) -> None:
    assert place(environment) == expected
