"""Artifacts that several jobs make together, take from one another, or race for."""

import json
import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.core.artifacts import (
    SPEC,
    WEIGHTS,
    flip_a_byte,
    forget_checks,
    make_files,
    names_below,
    refuse,
    share,
    start,
    wait_for,
)
from tests.toolbox import refusal, there
from xai.core import entries
from xai.core import store as artifacts
from xai.core.errors import Busy, UserError
from xai.core.store import Store

# Work that is shared


def test_scratch_is_where_the_maker_will_find_it_and_goes_with_the_artifact(store: Store) -> None:
    scratch = share(store)
    assert scratch.is_dir()
    (scratch / "shard0").write_text("mine")

    def make(workdir: Path) -> None:
        assert scratch == workdir / "scratch"
        assert (scratch / "shard0").read_text() == "mine"
        make_files(workdir)

    artifact = store.get("classifier", SPEC, make)
    assert names_below(artifact.path) == {"weights.bin", "extra/log.txt", "artifact.json"}
    assert not list(store.root.rglob("scratch"))
    assert store.scratch("classifier", SPEC) is None
    assert not list(store.root.rglob("*.partial"))


def test_whoever_asks_for_scratch_leaves_the_work_of_others_alone(store: Store) -> None:
    scratch = share(store)
    for name in ("shard0", ".tmp-1-ab-shard1"):
        (scratch / name).write_text("theirs")
    started = (scratch.parent / "spec.json").read_bytes()
    assert share(Store(store.root)) == scratch
    assert names_below(scratch) == {"shard0", ".tmp-1-ab-shard1"}
    assert (scratch.parent / "spec.json").read_bytes() == started


def test_no_scratch_where_the_artifact_lacks_only_its_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = share(store)
    (scratch / "shard0").write_text("mine")
    moved = []

    def killed(source: Path, target: Path) -> None:
        moved.append(target)
        if len(moved) == 2:
            raise KeyboardInterrupt
        shutil.move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            store.get("classifier", SPEC, make_files)
    forget_checks()
    assert store.find("classifier", SPEC) is None
    assert store.scratch("classifier", SPEC) is None
    assert store.get("classifier", SPEC, refuse).file("weights.bin").read_bytes() == WEIGHTS


def test_scratch_never_holds_half_of_what_was_there(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch, seen, remove = share(store), [], artifacts.remove
    (scratch / "shard0").write_text("mine")

    def watched(path: Path) -> None:
        seen.append(scratch.exists())
        remove(path)

    def make(workdir: Path) -> None:
        make_files(workdir)
        monkeypatch.setattr(artifacts, "remove", watched)

    store.get("classifier", SPEC, make)
    assert seen
    assert not any(seen)


def test_damage_to_a_whole_artifact_opens_the_work_again(store: Store) -> None:
    path = store.get("classifier", SPEC, make_files).path
    flip_a_byte(path)
    forget_checks()
    assert share(store) == path.with_name(f"{path.name}.partial") / "scratch"
    assert store.get("classifier", SPEC, make_files).file("weights.bin").read_bytes() == WEIGHTS


def test_a_maker_that_put_shared_work_together_tells_its_seconds(store: Store) -> None:
    def make(workdir: Path) -> float:
        make_files(workdir)
        return 1234.5

    assert store.get("classifier", SPEC, make).seconds == 1234.5
    forget_checks()
    assert Store(store.root).get("classifier", SPEC, refuse).seconds == 1234.5


# What somebody else does meanwhile


@pytest.mark.parametrize("what", ["store", "kind", "entry", "entry, by another job"])
def test_what_is_removed_while_it_is_made_is_made_anew(
    store: Store, what: str, caplog: pytest.LogCaptureFixture
) -> None:
    tries: list[Path] = []

    def make(workdir: Path) -> None:
        tries.append(workdir)
        (workdir / "early.bin").write_text("early")
        if len(tries) == 1:
            shutil.rmtree({"store": store.root, "kind": workdir.parent}.get(what, workdir))
            if "another" in what:
                workdir.mkdir()
                (workdir / "spec.json").write_text("{}")
        make_files(workdir)

    if what == "entry, by another job":
        artifact = store.get("classifier", SPEC, make)
    else:
        artifact = Store(store.root).get("classifier", SPEC, make)
    assert len(tries) == 2
    assert names_below(artifact.path) == {"weights.bin", "extra/log.txt", "early.bin", "artifact.json"}
    assert ["it is made anew" in record.getMessage() for record in caplog.records].count(True) == 1


def test_a_job_whose_artifact_is_removed_while_in_use_begins_again(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[bytes] = []

    def work() -> None:
        artifact = store.get("classifier", SPEC, make_files)
        if not seen:
            seen.append(b"")
            shutil.rmtree(store.root)
        seen.append(artifact.file("weights.bin").read_bytes())

    entries.over_removals(work)
    assert seen == [b"", WEIGHTS]
    assert "was removed or changed while it was in use: it is made anew" in caplog.text

    def fail() -> None:
        raise UserError("wrong")

    assert "wrong" in refusal(entries.over_removals, fail)


def test_what_is_changed_after_it_was_checked_is_not_handed_out(store: Store, caplog: Any) -> None:
    seen = []

    def work() -> None:
        artifact = store.get("classifier", SPEC, make_files)
        if not seen:
            seen.append(b"")
            weights = artifact.path / "weights.bin"
            weights.write_bytes(bytes(len(WEIGHTS)))
        seen.append(artifact.file("weights.bin").read_bytes())

    entries.over_removals(work)
    assert seen == [b"", WEIGHTS]
    assert "damaged (weights.bin: checksum differs)" in caplog.text
    artifact = store.get("classifier", SPEC, refuse)
    os.utime(artifact.path / "weights.bin")  # its bytes are the same
    assert artifact.file("weights.bin").read_bytes() == WEIGHTS


def numbers_without_end(workdir: Path) -> None:
    left = json.loads((workdir / "spec.json").read_text())
    (workdir / "spec.json").write_text(json.dumps(left | {"seconds": 10**400}))


ODD: dict[str, Callable[[Path], object]] = {
    "a file for a folder": lambda path: (path / "extra").write_text("odd"),
    "a folder for a file": lambda path: (path / "weights.bin").mkdir(),
    "a pipe for the spec": lambda path: ((path / "spec.json").unlink(), os.mkfifo(path / "spec.json")),
    "numbers without end": numbers_without_end,
    "a link for it all": lambda path: (path.rename(path.parent / "elsewhere"), path.symlink_to("elsewhere")),
    "no folder for shared work": lambda path: (path / "scratch").write_text("odd"),
}


@pytest.mark.parametrize("harm", ODD.values(), ids=ODD)
def test_what_is_odd_in_a_half_made_entry_stops_nobody(store: Store, harm: Callable[[Path], None]) -> None:
    workdir = share(store).parent
    shutil.rmtree(workdir / "scratch")
    harm(workdir)
    shared = there(store.scratch("classifier", SPEC))
    assert shared.is_dir()
    artifact = store.get("classifier", SPEC, make_files)
    assert names_below(artifact.path) == {"weights.bin", "extra/log.txt", "artifact.json"}
    assert not artifact.path.is_symlink()


# Several at once


WORKER = """
import json, logging, os, sys, time
from pathlib import Path
from xai.core import store as artifacts
root, journal, hang_after = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
logging.basicConfig(level=logging.INFO, format="%(message)s")
artifacts.PATIENCE_SECONDS = 0.1

def note(text):
    with open(journal, "a") as file:
        file.write(text + "\\n")

def make(workdir):
    note("start")
    (workdir / "scratch").mkdir(exist_ok=True)
    for shard in range(6):
        path = workdir / "scratch" / f"{shard}.bin"
        if not path.exists():
            artifacts.write_atomically(path, bytes([shard]) * 5000)
            note(f"shard {shard}")
        if shard == hang_after:
            pid = os.fork()  # like a data loader's worker: it outlives us, and must not keep the lock
            if pid == 0:
                time.sleep(30)
                os._exit(0)
            note(f"hang {pid}")
            time.sleep(30)
        time.sleep(0.03)
    artifacts.write_atomically(workdir / "all.bin", b"".join(
        (workdir / "scratch" / f"{shard}.bin").read_bytes() for shard in range(6)))

store = artifacts.Store(root)
artifact = store.get("supervision", {"seed": 1}, make, title="the supervision of digits")
print(json.dumps({"path": str(artifact.path), "made": len(store.made), "found": len(store.found)}))
"""


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    return json.loads(out), err


def test_of_racing_processes_one_makes_and_the_others_wait(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    workers = [start(WORKER, str(tmp_path / "store"), str(journal), "-1") for _ in range(3)]
    reports = [finish(worker)[0] for worker in workers]
    assert journal.read_text().split("\n").count("start") == 1
    assert sorted((report["made"], report["found"]) for report in reports) == [(0, 1), (0, 1), (1, 0)]
    assert len({report["path"] for report in reports}) == 1


def test_after_kill_9_a_waiting_process_goes_on_and_ends_with_the_same_bytes(tmp_path: Path) -> None:
    journal, root = tmp_path / "journal", tmp_path / "store"
    first = start(WORKER, str(root), str(journal), "2")
    wait_for(lambda: journal.exists() and "hang" in journal.read_text())
    orphan = int(journal.read_text().split("hang ")[1])
    try:
        second = start(WORKER, str(root), str(journal), "-1")
        assert second.stderr is not None
        told = second.stderr.readline()
        assert told.startswith("waiting for another job that is making the supervision of digits (process ")
        assert f"process {first.pid} on " in told
        first.kill()
        report, _ = finish(second)
    finally:
        os.kill(orphan, signal.SIGKILL)
        first.communicate()
    assert first.returncode == -signal.SIGKILL
    lines = journal.read_text().split("\n")
    assert lines.count("start") == 2
    assert [line for line in lines if line.startswith("shard")] == [f"shard {shard}" for shard in range(6)]
    assert (report["made"], report["found"]) == (1, 0)

    undisturbed, _ = finish(start(WORKER, str(tmp_path / "other"), str(tmp_path / "other-journal"), "-1"))
    ours, theirs = Path(report["path"]), Path(undisturbed["path"])
    assert names_below(ours) == names_below(theirs) == {"artifact.json", "all.bin"}
    assert (ours / "all.bin").read_bytes() == (theirs / "all.bin").read_bytes()
    manifests = [json.loads((path / "artifact.json").read_text()) for path in (ours, theirs)]
    assert manifests[0]["files"] == manifests[1]["files"]


def test_who_is_impatient_is_told_that_another_is_at_it(store: Store) -> None:
    other = Store(store.root)

    def make(workdir: Path) -> None:
        with other.impatient(), pytest.raises(Busy, match="the thing"):
            other.get("kind", {"a": 1}, lambda _: None, title="the thing")
        assert other.is_patient
        (workdir / "file").write_text("x")

    made = store.get("kind", {"a": 1}, make)
    with other.impatient():
        assert other.get("kind", {"a": 1}, lambda _: None) == made


def test_of_racing_threads_one_makes(store: Store) -> None:
    made: list[Path] = []
    barrier = threading.Barrier(4)

    def make(workdir: Path) -> None:
        made.append(workdir)
        time.sleep(0.05)
        make_files(workdir)

    def ask() -> None:
        barrier.wait()
        Store(store.root).get("classifier", SPEC, make)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert store.find("classifier", SPEC) is not None


def test_the_store_needs_no_torch() -> None:
    out, err = start("import sys, xai.core.store; print('torch' in sys.modules)").communicate(timeout=20)
    assert out == "False\n", err
