"""Damage to artifacts, and disks that do not play along."""

import errno
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.artifacts import (
    SPEC,
    WEIGHTS,
    fail_with,
    flip_a_byte,
    forget_checks,
    make_files,
    names_below,
    refuse,
    start,
)
from tests.toolbox import refusal
from xai.core import entries
from xai.core import store as artifacts
from xai.core.errors import UserError
from xai.core.files import fingerprint_file
from xai.core.store import Store

# Damage


def edit_manifest(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    manifest = json.loads((path / "artifact.json").read_text())
    change(manifest)
    (path / "artifact.json").write_text(json.dumps(manifest))


def replace_by_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("x")


def replace_by_folder(path: Path) -> None:
    (path / "weights.bin").unlink()
    (path / "weights.bin").mkdir()


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (lambda p: os.truncate(p / "weights.bin", 99), f"weights.bin: 99 bytes instead of {len(WEIGHTS)}"),
    "flipped": (flip_a_byte, "weights.bin: checksum differs"),
    "deleted": (lambda p: (p / "extra" / "log.txt").unlink(), "extra/log.txt: missing"),
    "folder": (replace_by_folder, "weights.bin: not a file"),
    "no manifest": (lambda p: (p / "artifact.json").unlink(), "artifact.json: missing"),
    "garbage": (lambda p: (p / "artifact.json").write_bytes(b"\xff{"), "artifact.json: cannot be read"),
    "empty": (lambda p: (p / "artifact.json").write_bytes(b""), "artifact.json: cannot be read"),
    "huge": (lambda p: os.truncate(p / "artifact.json", 1 << 40), "artifact.json: cannot be read"),
    "list": (lambda p: (p / "artifact.json").write_text("[1]"), "artifact.json: cannot be read"),
    "no files": (lambda p: edit_manifest(p, lambda m: m.pop("files")), "artifact.json: cannot be read"),
    "spec": (lambda p: edit_manifest(p, lambda m: m["spec"].update(seed=4)), "artifact.json: spec differs"),
    "bool": (lambda p: edit_manifest(p, lambda m: m["spec"].update(one=True)), "artifact.json: spec differs"),
    "kind": (lambda p: edit_manifest(p, lambda m: m.update(kind="base")), "artifact.json: kind is 'base'"),
    "key": (lambda p: edit_manifest(p, lambda m: m.update(key="0")), "artifact.json: key is '0'"),
    "format": (lambda p: edit_manifest(p, lambda m: m.update(format=2)), "artifact.json: format is 2"),
    "a file": (replace_by_file, "artifact.json: missing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_noticed_and_made_anew(store: Store, name: str, caplog: pytest.LogCaptureFixture) -> None:
    harm, reason = DAMAGE[name]
    spec = SPEC | {"one": 1}
    path = store.get("classifier", spec, make_files).path
    for number in (1, 2):
        caplog.clear()
        harm(path)
        forget_checks()
        hurt = names_below(path)
        assert store.find("classifier", spec) is None
        assert not caplog.records
        assert names_below(path) == hurt

        again = Store(store.root)
        artifact = again.get("classifier", spec, make_files)
        assert artifact.path == path
        assert again.made == [artifact]
        assert artifact.file("weights.bin").read_bytes() == WEIGHTS
        aside = path.with_name(f"{path.name}.damaged-{number}")
        assert names_below(aside) == hurt
        [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert f"{path} is damaged ({reason}" in warning
        assert f"kept at {aside}" in warning
        assert "\n" not in warning


def test_hashes_are_checked_once_per_process(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def counting(path: Path) -> str:
        checked.append(path.name)
        return fingerprint_file(path)

    monkeypatch.setattr(artifacts, "fingerprint_file", counting)
    monkeypatch.setattr(entries, "fingerprint_file", counting)
    store.get("classifier", SPEC, make_files)
    store.get("classifier", SPEC, refuse)
    assert sorted(checked) == ["log.txt", "weights.bin"]
    forget_checks()
    store.get("classifier", SPEC, refuse)
    store.get("classifier", SPEC, refuse)
    assert sorted(checked) == ["log.txt", "log.txt", "weights.bin", "weights.bin"]


def test_damage_during_the_process_is_noticed_even_when_the_time_stamp_is_restored(store: Store) -> None:
    path = store.get("classifier", SPEC, make_files).path / "weights.bin"
    before = path.stat()
    time.sleep(0.03)  # more than a tick of the file system's clock
    flip_a_byte(path.parent)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert store.find("classifier", SPEC) is None


def test_files_added_later_are_ignored(store: Store) -> None:
    artifact = store.get("classifier", SPEC, make_files)
    (artifact.path / "notes.txt").write_text("mine")
    forget_checks()
    assert store.get("classifier", SPEC, refuse) == artifact
    assert (artifact.path / "notes.txt").read_text() == "mine"


# Disks that do not play along


def test_a_full_disk_in_the_maker_is_a_user_error_and_resumes(store: Store) -> None:
    def make(workdir: Path) -> None:
        (workdir / "shard0").write_text("half")
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    message = refusal(store.get, "classifier", SPEC, make)
    for part in (str(store.root), "disk is full", "nothing half-made", "same command resumes"):
        assert part in message
    assert store.find("classifier", SPEC) is None

    def resume(workdir: Path) -> None:
        assert (workdir / "shard0").read_text() == "half"
        make_files(workdir)

    assert store.get("classifier", SPEC, resume).file("shard0")


@pytest.mark.parametrize("broken", ["fsync", "replace", "rename"])
def test_a_full_disk_while_sealing_leaves_no_final_name(
    store: Store, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    def make(workdir: Path) -> None:
        make_files(workdir)
        monkeypatch.setattr(os, broken, fail_with(errno.ENOSPC))

    assert "disk is full" in refusal(store.get, "classifier", SPEC, make)
    monkeypatch.undo()
    assert not (store.root / "classifier" / store.key("classifier", SPEC)).exists()
    assert store.get("classifier", SPEC, make_files).file("weights.bin").read_bytes() == WEIGHTS


def test_what_cannot_be_removed_is_left_and_stops_nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.scratch("classifier", SPEC)

    def make(workdir: Path) -> None:
        make_files(workdir)
        # On NFS: another process is reading in the scratch folder.
        monkeypatch.setattr("xai.core.store.remove", fail_with(errno.ENOTEMPTY))

    assert store.get("classifier", SPEC, make).file("weights.bin").read_bytes() == WEIGHTS


@pytest.mark.parametrize("number", [errno.EDQUOT, errno.EACCES, errno.EROFS, errno.ENOTDIR])
def test_trouble_with_the_store_names_its_folder(store: Store, number: int) -> None:
    with pytest.raises(UserError, match=r"cannot use the folder .*; nothing half-made"):
        store.get("classifier", SPEC, fail_with(number, str(store.root / "classifier")))


@pytest.mark.parametrize(
    ("number", "name"),
    [(errno.EACCES, "/elsewhere/images"), (errno.ENOENT, None), (errno.EACCES, "../store-of-another/x")],
)
def test_trouble_elsewhere_is_not_blamed_on_the_store(store: Store, number: int, name: str | None) -> None:
    filename = None if name is None else os.path.join(store.root, name)
    with pytest.raises(OSError, match=os.strerror(number)) as caught:
        store.get("classifier", SPEC, fail_with(number, filename))
    assert caught.value.errno == number


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK])
def test_without_locks_nothing_is_made(store: Store, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr("fcntl.flock", fail_with(number))
    assert "NFS needs a lock manager" in refusal(store.get, "classifier", SPEC, refuse)
    assert "NFS needs a lock manager" in refusal(store.scratch, "classifier", SPEC)
    assert not list(store.root.glob("classifier/*"))


@pytest.mark.parametrize("below", [".", "deeper/still"])
def test_a_root_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file.*a file stands where a folder is needed; choose a folder"):
        Store(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "x"


def test_a_root_that_is_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert "link" in refusal(Store, tmp_path / "link")


AS_ANOTHER = """
import os, sys
from pathlib import Path
from xai.core.store import Store
from xai.core.errors import UserError
if os.getuid() == 0: os.setuid(65534)
def make(workdir): raise AssertionError("made")
store = Store(Path(sys.argv[1]))
print(store.get("classifier", {"seed": 1}, make).file("weights.bin").read_bytes() == bytes(range(256)) * 40)
print(store.scratch("classifier", {"seed": 1}), store.summary())
for work in (lambda: store.get("maps", {}, make, title="the maps"), lambda: store.scratch("maps", {})):
    try: work()
    except UserError as error: print(error)
"""


def test_a_complete_store_is_read_by_who_cannot_write() -> None:
    # Not tmp_path: an ordinary user, which root becomes here, could not even reach it.
    with tempfile.TemporaryDirectory() as folder:
        before = os.umask(0o022)
        try:
            Store(Path(folder)).get("classifier", {"seed": 1}, make_files)
        finally:
            os.umask(before)
        places = [Path(folder), *(path for path in Path(folder).rglob("*") if path.is_dir())]
        for path in places:
            path.chmod(0o555)
        out, err = start(AS_ANOTHER, folder).communicate(timeout=60)
        for path in places:
            path.chmod(0o755)
    first, second, *refused = out.splitlines()
    assert (first, second) == ("True", "None 1 re-used, 0 made"), err
    assert len(refused) == 2
    for line, what in zip(refused, ["the maps", "maps "], strict=True):
        assert "permission denied" in line
        assert what in line
        assert "is not in it and has to be made" in line
        assert "store=..." in line


IN_A_GROUP = """
import os, sys
from pathlib import Path
from xai.core.store import Store
os.setgroups([]); os.setgid(54321); os.setuid(int(sys.argv[2])); os.umask(int(sys.argv[3], 8))
def make(workdir):
    before = [path.read_text() for path in sorted(workdir.glob("part-*"))]
    (workdir / f"part-{os.getuid()}").write_text(str(os.getuid()))
    if not before: raise SystemExit("stopped")
    (workdir / "scratch").mkdir(exist_ok=True)
made = Store(Path(sys.argv[1])).get("maps", {}, make)
print(sorted(path.name for path in made.path.glob("part-*")), made.path.stat().st_gid)
"""


def in_turn(umask: str, *users: str) -> list[tuple[str, str]]:
    """What users of a group say who ask, one after the other, for the same artifact of their store."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        store = Path(folder, "store")
        store.mkdir()
        os.chown(store, 0, 54321)
        store.chmod(0o2775)  # after chown, which takes the bit away
        return [start(IN_A_GROUP, str(store), user, umask).communicate(timeout=60) for user in users]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_what_one_user_has_begun_alone_another_does_not_go_on_from() -> None:
    ended = in_turn("022", "20001", "20002")
    assert "stopped" in ended[0][1]
    assert ended[1][0] == ""
    assert "permission denied" in ended[1][1]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be two users")
def test_a_group_makes_together_what_one_of_it_has_begun() -> None:
    ended = in_turn("002", "20001", "20002", "20001")
    assert "stopped" in ended[0][1]
    assert ended[1][0] == "['part-20001', 'part-20002'] 54321\n", ended[1][1]
    assert ended[2][0] == ended[1][0], ended[2][1]


def test_a_relative_root_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("here"))
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert store.get("base", SPEC, make_files).path.is_relative_to(tmp_path / "here")
