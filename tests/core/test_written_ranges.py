"""What settings may be, as the user's cache has it: believed where it is as it was written, and never waited for."""

import os
from pathlib import Path

import pytest

from tests.toolbox import refusal
from xai.core.files import cache_folder
from xai.core.records import path_of, read_record
from xai.sweeps.report import _recorded
from xai.tasks import early

TREES = {"task": {"task=train": {"seed": {"type": "int", "ge": 0}}}}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    early.keep(TREES)
    assert early.kept() == TREES
    (found,) = (tmp_path / "xai").iterdir()
    return found


@pytest.mark.parametrize(
    "harm",
    [
        lambda file: file.write_bytes(file.read_bytes().replace(b'"ge": 0', b'"ge": 9')),
        lambda file: file.write_bytes(file.read_bytes().replace(b"int", b"call")),
        lambda file: file.write_bytes(b"\xff" + file.read_bytes()),
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(b"5"),
        lambda file: file.write_text(f"{early._seal('5')}\n5"),
        lambda file: os.truncate(file, 1 << 40),
        lambda file: file.chmod(0o666),
        lambda file: (file.unlink(), os.mkfifo(file)),
        lambda file: (file.unlink(), file.symlink_to("/dev/zero")),
        lambda file: (file.unlink(), file.symlink_to(file)),
        lambda file: (file.unlink(), file.mkdir()),
    ],
)
def test_what_is_not_as_it_was_written_is_not_read_and_written_anew(file: Path, harm: object) -> None:
    harm(file)  # type: ignore[operator]
    assert early.kept() == {}
    early.keep(TREES)
    assert early.kept() == ({} if file.is_dir() else TREES)


def test_other_sources_have_said_other_things(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(early, "sources", lambda: "of another version")
    assert early.kept() == {}


def test_sources_are_those_of_before_the_classes_are_imported(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(early, "sources", lambda: asked.append("") or "")
    file.unlink()
    early.kept()
    assert asked


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given, home in (("here", "there"), ("", "there"), ("/dev/null", "/"), ("/proc/x", "/")):
        monkeypatch.setenv("XDG_CACHE_HOME", given)
        monkeypatch.setenv("HOME", home)
        early.keep(TREES)
        assert early.kept() == {}
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "xai"


def test_the_record_of_a_run_that_is_none_is_not_waited_for(tmp_path: Path) -> None:
    path = path_of(tmp_path / "run", ".json")
    path.parent.mkdir(parents=True, exist_ok=True)
    os.mkfifo(path)
    assert read_record(tmp_path / "run") is None
    path.unlink()
    path.write_text("[" * 100_000)
    assert read_record(tmp_path / "run") is None


@pytest.mark.parametrize("content", [b"\xff", b"[1", b"- a", b"5", b"{a: b: c}"])
def test_a_damaged_record_of_what_was_asked_for_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "made.yaml"
    assert _recorded(path, dict) == {}
    path.write_bytes(content)
    assert "made.yaml is damaged: start that run again" in refusal(_recorded, path, dict)
