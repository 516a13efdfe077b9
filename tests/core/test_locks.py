"""Locks: who holds them, and what may stand where one should be."""

import multiprocessing
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.toolbox import there
from xai.core import locks

FORK = multiprocessing.get_context("fork")


def a_link(path: Path) -> None:
    path.with_name("precious").write_text("mine")
    path.symlink_to("precious")


def a_dangling_link(path: Path) -> None:
    path.symlink_to("made-elsewhere")


ODD: dict[str, Callable[[Path], object]] = {
    "link": a_link,
    "dangling": a_dangling_link,
    "pipe": os.mkfifo,
    "folder": Path.mkdir,
}


@pytest.mark.parametrize("odd", ODD)
def test_what_is_no_file_is_put_aside_and_never_written_to(tmp_path: Path, odd: str) -> None:
    path = tmp_path / "a.lock"
    ODD[odd](path)
    held = there(locks.acquire(path))
    assert path.is_file()
    assert not path.is_symlink()
    locks.release(held)
    if odd == "link":
        assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "made-elsewhere").exists()
    assert len(list(tmp_path.glob("a.lock.odd-*"))) == 1


def test_a_held_lock_says_who_holds_it_and_one_that_is_free_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    held = there(locks.acquire(path))
    said = locks.holder(path)
    assert f"process {os.getpid()} on " in said
    assert time.strftime("%Y-%m-%d", time.gmtime()) in said
    assert Path(sys.executable).name in said
    with pytest.raises(RuntimeError, match="deadlock"):
        locks.acquire(path, waiting=lambda who: None)
    locks.release(held)
    assert locks.holder(path) == ""
    path.write_text("not json")
    assert locks.holder(path) == ""
    path.write_text('{"pid": 1, "host": "a\\u001b[31m", "since": "b", "command": "c\\nd"}')
    assert locks.holder(path) == r"process 1 on a\x1b[31m, since b: c d"


def test_a_look_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.lock"
    assert not locks.is_held(path)
    assert not path.exists()
    held = there(locks.acquire(path))
    said = path.read_text()
    assert locks.is_held(path)
    assert path.read_text() == said
    locks.release(held)
    path.write_text("of one that was killed")
    assert not locks.is_held(path)
    assert not locks.is_held(path / "below a file")
    assert path.read_text() == "of one that was killed"


@pytest.mark.parametrize("odd", ODD)
def test_nobody_holds_what_is_no_file_and_a_look_leaves_it_there(tmp_path: Path, odd: str) -> None:
    path = tmp_path / "a.lock"
    ODD[odd](path)
    assert not locks.is_held(path)
    assert os.path.lexists(path)
    assert not list(tmp_path.glob("a.lock.odd-*"))


def test_who_waits_is_told_once_and_takes_what_a_killed_process_held(tmp_path: Path) -> None:
    path, told = tmp_path / "a.lock", []  # type: ignore[var-annotated]

    def hold() -> None:
        assert locks.acquire(path) is not None
        time.sleep(60)

    other = FORK.Process(target=hold)
    other.start()
    while not locks.holder(path):
        time.sleep(0.01)
    assert locks.acquire(path) is None
    threading.Timer(0.3, other.kill).start()
    held = there(locks.acquire(path, 0.0, told.append))
    locks.release(held)
    other.join()
    assert len(told) == 1
    assert f"process {other.pid} on" in told[0]


def test_a_lock_that_was_removed_is_nobodys(tmp_path: Path) -> None:
    folder = tmp_path / "locks"
    folder.mkdir()
    first = locks.acquire(folder / "a.lock")
    shutil.rmtree(folder)
    assert locks.acquire(folder / "a.lock") is None
    folder.mkdir()
    second = there(locks.acquire(folder / "a.lock"))
    assert first is not None
    locks.release(first)
    assert locks.acquire(folder / "a.lock") is None
    locks.release(second)
