"""Files that are written whole or not at all, and disk trouble told in one line."""

import errno
import os
import resource
from collections.abc import Callable
from pathlib import Path
from unittest.mock import Mock

import pandas as pd
import pytest
import torch
from torch import nn

from tests.core.artifacts import fail_with, names_below
from xai.core.checkpoints import CheckpointFiles, Keep
from xai.core.errors import UserError
from xai.core.files import explain_disk_errors, fingerprint_file, read_text, write_atomically
from xai.core.folders import run_folder
from xai.core.store import Store
from xai.models.weights import write_weights
from xai.study.frame import Frames, write_frames
from xai.tasks.explain import Writer
from xai.tasks.picture import Explained


def test_fingerprint_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    assert fingerprint_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_write_atomically_takes_bytes_or_a_writer(tmp_path: Path) -> None:
    write_atomically(tmp_path / "f", b"one")
    assert (tmp_path / "f").read_bytes() == b"one"
    write_atomically(tmp_path / "f", lambda path: path.write_text("two"))
    assert (tmp_path / "f").read_bytes() == b"two"
    assert names_below(tmp_path) == {"f"}


def test_write_atomically_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_atomically(tmp_path / "f", b"old")

    def half(path: Path) -> None:
        path.write_bytes(b"ne")
        assert (tmp_path / "f").read_bytes() == b"old"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "f", half)
    monkeypatch.setattr(os, "fsync", fail_with(errno.ENOSPC))
    with pytest.raises(OSError, match="No space"):
        write_atomically(tmp_path / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert names_below(tmp_path) == {"f"}


def test_explain_disk_errors_knows_a_folder_by_its_links(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with (
        pytest.raises(UserError, match=r"link.*permission denied; go away"),
        explain_disk_errors(tmp_path / "link", "go away"),
    ):
        fail_with(errno.EACCES, str(tmp_path / "real" / "f"))()


@pytest.mark.parametrize(
    ("name", "wanted"), [("pipe", "a pipe or a device"), (".", "a folder"), ("nothing", "No such")]
)
def test_text_is_read_of_files_alone(tmp_path: Path, name: str, wanted: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=wanted):
        read_text(tmp_path / name)


def test_text_has_an_end_and_is_unicode(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"\xef\xbb\xbfname\n")
    assert read_text(tmp_path / "text") == "name\n"
    with pytest.raises(ValueError, match="8 bytes, of at most 7"):
        read_text(tmp_path / "text", most=7)
    (tmp_path / "text").write_bytes(b"\xe9")
    with pytest.raises(ValueError, match="utf-8"):
        read_text(tmp_path / "text")


def test_a_name_may_be_as_long_as_names_are(tmp_path: Path) -> None:
    write_atomically(tmp_path / ("n" * 255), b"one")
    assert names_below(tmp_path) == {"n" * 255}


PICTURE = Explained(torch.rand(3, 8, 8), torch.rand(64, 64), "cat", "cat", 0.5, (("cat", 0.5),))
WRITES: dict[str, Callable[[Path], object]] = {
    "bytes": lambda folder: write_atomically(folder / "a", bytes(50_000)),
    "a writer": lambda folder: write_atomically(folder / "a", lambda path: path.write_text("a" * 50_000)),
    "weights": lambda folder: write_weights(folder / "a.safetensors", {"a": torch.rand(10_000)}, {}),
    "checkpoint": lambda folder: CheckpointFiles().save_checkpoint({"a": torch.rand(10_000)}, folder / "a.ckpt"),
    "kept": lambda folder: Keep(folder, False, [], 1)._write(Mock(is_global_zero=True), nn.Linear(100, 100), "a.ckpt"),
    "heat map": lambda folder: Writer(folder, "rise", {}, [], [folder / "a.png"]).add(folder / "a.png", PICTURE),
    "numbers": lambda folder: write_frames(folder, Frames(*[pd.DataFrame({"a": range(20_000)})] * 4)),
}


@pytest.mark.parametrize("kind", WRITES)
@pytest.mark.parametrize("where", ["store", "outputs"])
def test_a_file_that_may_not_grow_is_one_line_and_leaves_nothing(kind: str, where: str, tmp_path: Path) -> None:
    """By `ulimit -f`, which fails in the middle of a write, as a full disk does."""

    def write(folder: Path) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, hard))
        try:
            WRITES[kind](folder)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    def ask() -> None:
        if where == "store":
            Store(tmp_path).get("kind", {}, write)
        else:
            with run_folder(tmp_path / "outputs" / "name") as folder:
                write(folder)

    with pytest.raises(UserError, match=r"ulimit -f|File too large"):
        ask()
    left = {name for name in names_below(tmp_path) if not name.startswith(".locks/")}
    assert {Path(name).name for name in left} <= {"spec.json"}
