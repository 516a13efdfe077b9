"""Files that are written whole or not at all, and disk trouble told in one line."""

import errno
import os
from pathlib import Path

import pytest

from tests.core.artifacts import fail_with, names_below
from xai.core.errors import UserError
from xai.core.files import explain_disk_errors, fingerprint_file, read_text, write_atomically


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
