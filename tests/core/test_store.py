"""The artifact store: keys, damage, interruption, races between real processes, and disks that do not play along."""

import errno
import hashlib
import json
import logging
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xai.core import entries
from xai.core import store as artifacts
from xai.core.canonical import canonical
from xai.core.errors import Busy, UserError
from xai.core.files import fingerprint_file
from xai.core.store import Store

REPOSITORY = Path(__file__).resolve().parents[2]
SPEC = {"data": "digits", "seed": 3, "alpha": 0.5, "upstream": ["abc", "def"]}
WEIGHTS = bytes(range(256)) * 40


def make_files(workdir: Path) -> None:
    (workdir / "weights.bin").write_bytes(WEIGHTS)
    (workdir / "extra").mkdir(exist_ok=True)
    (workdir / "extra" / "log.txt").write_text("done")


def refuse(workdir: Path) -> None:
    raise AssertionError(f"{workdir} must not be made again")


def forget_checks() -> None:
    """What a new process knows about the store: nothing."""
    entries.verified.clear()


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


# Keys


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({"a": (1, 2)}, {"a": [1, 2]}),
        ({"a": 1.0}, {"a": 1}),
        ({"a": -0.0}, {"a": 0}),
        ({"a": Path("x/y")}, {"a": "x/y"}),
        ({"a": {"c": (1.0, {"e": 2, "d": 1e3})}}, {"a": {"c": [1, {"d": 1000, "e": 2.0}]}}),
    ],
)
def test_canonical_is_the_same_for_the_same_meaning(left: Any, right: Any) -> None:
    assert canonical(left) == canonical(right)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ({"a": True}, {"a": 1}),
        ({"a": "1"}, {"a": 1}),
        ({"a": None}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": 0.1}, {"a": math.nextafter(0.1, 1)}),
        ({"a": 10**400}, {"a": 10**400 + 1}),
    ],
)
def test_canonical_differs_for_different_meanings(left: Any, right: Any) -> None:
    assert canonical(left) != canonical(right)


def test_canonical_round_trips_random_specs_in_any_key_order() -> None:
    rng = random.Random(0)

    def grow(depth: int) -> Any:
        leaves: list[Any] = [None, True, False, rng.randint(-9, 9), rng.gauss(0, 1e5), "é\n" * rng.randint(0, 2)]
        kind = rng.choice("ldv" if depth else "v")
        if kind == "l":
            return [grow(depth - 1) for _ in range(rng.randint(0, 3))]
        return {f"k{i}": grow(depth - 1) for i in range(rng.randint(0, 4))} if kind == "d" else rng.choice(leaves)

    def shuffled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shuffled(value[key]) for key in rng.sample(list(value), len(value))}
        return [shuffled(item) for item in value] if isinstance(value, list) else value

    for _ in range(200):
        value = grow(4)
        assert json.loads(canonical(value)) == value
        assert canonical(shuffled(value)) == canonical(value)


@pytest.mark.parametrize(
    ("spec", "place"),
    [
        ({"lr": float("nan")}, "lr: nan"),
        ({"a": {"b": [0, float("inf")]}}, r"a\.b\[1\]: inf"),
        ({"a": {1, 2}}, "a: set"),
        ({"a": [{"b": b"x"}]}, r"a\[0\]\.b: bytes"),
        ({"a": object()}, "a: object"),
        ({"a": {1: "x"}}, "a: key 1 "),
        ({2: "x"}, "spec: key 2 "),
    ],
)
def test_what_is_not_json_is_refused_with_its_place(store: Store, spec: Any, place: str) -> None:
    with pytest.raises(TypeError, match=place):
        canonical(spec)
    with pytest.raises(TypeError, match=place):
        store.get("vector", spec, refuse)


def test_key_is_the_hash_of_kind_and_spec(store: Store) -> None:
    text = '{"kind":"vector","spec":{"alpha":0.5,"seed":1}}'
    assert store.key("vector", {"seed": 1.0, "alpha": 0.5}) == hashlib.sha256(text.encode()).hexdigest()[:20]
    assert store.key("explainer", {"seed": 1, "alpha": 0.5}) != store.key("vector", {"seed": 1, "alpha": 0.5})


@pytest.mark.parametrize("kind", ["", "../up", "a/b", ".locks", "Vector"])
def test_a_kind_that_is_no_folder_name_is_refused(store: Store, kind: str) -> None:
    with pytest.raises(ValueError, match="kind"):
        store.get(kind, SPEC, refuse)


# Making and finding


def test_get_makes_once_and_then_finds(store: Store) -> None:
    assert store.find("classifier", SPEC) is None
    made = store.get("classifier", SPEC, make_files)
    assert made.path == store.root / "classifier" / store.key("classifier", SPEC)
    assert made.file("weights.bin").read_bytes() == WEIGHTS
    assert made.file("extra/log.txt").read_text() == "done"
    assert (store.made, store.found) == ([made], [])

    assert store.get("classifier", dict(reversed(SPEC.items())), refuse) == made
    assert (store.made, store.found) == ([made], [])

    other = Store(store.root)
    forget_checks()
    assert other.find("classifier", SPEC) == made
    assert other.get("classifier", SPEC, refuse) == made == other.get("classifier", SPEC, refuse)
    other.get("classifier", SPEC | {"seed": 4}, make_files)
    assert other.found == [made]
    assert other.summary() == "1 re-used, 1 made"


def test_the_manifest_lists_everything(store: Store) -> None:
    start = time.time()
    artifact = store.get("classifier", SPEC | {"folder": Path("a"), "pair": (1.0, 2)}, make_files)
    manifest = json.loads((artifact.path / "artifact.json").read_text())
    assert manifest["kind"] == "classifier"
    assert manifest["key"] == artifact.key == artifact.path.name
    assert manifest["spec"] == SPEC | {"folder": "a", "pair": [1, 2]} == artifact.spec
    assert 0 <= manifest["seconds"] == artifact.seconds <= time.time() - start + 0.001
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    assert manifest["files"]["weights.bin"] == {"bytes": len(WEIGHTS), "sha256": digest}
    assert set(manifest["files"]) == {"weights.bin", "extra/log.txt"}
    assert names_below(artifact.path) == {"weights.bin", "extra/log.txt", "artifact.json"}


def test_checkpoints_scratch_and_unfinished_files_are_dropped(store: Store) -> None:
    def make(workdir: Path) -> None:
        make_files(workdir)
        for name in ("checkpoint.ckpt", "checkpoints/a", "scratch/deep/b", "extra/.tmp-1-x", "extra/checkpoint.bin"):
            (workdir / name).parent.mkdir(parents=True, exist_ok=True)
            (workdir / name).write_bytes(b"x")
        (workdir / "checkpoints" / "last").symlink_to("nowhere")

    artifact = store.get("classifier", SPEC, make)
    kept = {"weights.bin", "extra/log.txt", "extra/checkpoint.bin", "artifact.json"}
    assert names_below(artifact.path) == kept
    assert {path.name for path in artifact.path.iterdir()} == {"weights.bin", "extra", "artifact.json"}


def test_a_file_that_is_not_there_is_a_user_error(store: Store) -> None:
    artifact = store.get("classifier", SPEC, make_files)
    with pytest.raises(UserError, match=r"no file vector\.safetensors; it has .*weights\.bin"):
        artifact.file("vector.safetensors")


def test_a_maker_may_ask_for_other_artifacts_but_not_for_its_own(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "PATIENCE_SECONDS", 0.01)

    def outer(workdir: Path) -> None:
        shutil.copy(store.get("base", SPEC, make_files).file("weights.bin"), workdir)

    assert store.get("classifier", SPEC, outer).file("weights.bin").read_bytes() == WEIGHTS
    assert store.summary() == "0 re-used, 2 made"

    def endless(workdir: Path) -> None:
        store.get("vector", SPEC, endless)

    with pytest.raises(RuntimeError, match=r"[Dd]eadlock"):
        store.get("vector", SPEC, endless)


def leave_nothing(workdir: Path) -> None:
    (workdir / "checkpoint").write_text("x")


def leave_a_link(workdir: Path) -> None:
    (workdir / "link").symlink_to(__file__)


def leave_a_manifest(workdir: Path) -> None:
    make_files(workdir)
    (workdir / "artifact.json").write_text("{}")


@pytest.mark.parametrize(
    ("make", "message"),
    [(leave_nothing, "no file"), (leave_a_link, "link is neither"), (leave_a_manifest, "belongs to the store")],
)
def test_makers_that_break_the_rules(store: Store, make: Callable[[Path], None], message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        store.get("classifier", SPEC, make)
    assert store.find("classifier", SPEC) is None
    assert store.made == []


# Interruption


def test_an_exception_passes_and_the_next_call_goes_on(store: Store) -> None:
    trouble = ValueError("loss is NaN")

    def first(workdir: Path) -> None:
        (workdir / "scratch").mkdir()
        (workdir / "scratch" / "shard0").write_text("half")
        (workdir / "scratch" / ".tmp-1-ab-shard1").write_text("killed while writing")
        raise trouble

    with pytest.raises(ValueError, match="loss is NaN") as caught:
        store.get("classifier", SPEC, first)
    assert caught.value is trouble
    assert not (store.root / "classifier" / store.key("classifier", SPEC)).exists()

    def second(workdir: Path) -> None:
        assert names_below(workdir) == {"scratch/shard0", "spec.json"}
        assert (workdir / "scratch" / "shard0").read_text() == "half"
        make_files(workdir)

    assert store.get("classifier", SPEC, second).file("weights.bin").read_bytes() == WEIGHTS
    assert not list(store.root.rglob("*.partial"))


def test_seconds_count_interrupted_tries_up_to_their_last_write(store: Store) -> None:
    def interrupted(workdir: Path) -> None:
        (workdir / "shard").write_text("x")
        os.utime(workdir / "shard", (time.time() + 50, time.time() + 50))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("classifier", SPEC, interrupted)
    assert store.get("classifier", SPEC, make_files).seconds == pytest.approx(50, abs=2)


FOREIGN = {"identity": {"kind": "classifier", "spec": {"seed": 9}}, "seconds": 1, "started": 1}


OURS = {"identity": {"kind": "classifier", "spec": SPEC}, "seconds": math.nan, "started": 1}


@pytest.mark.parametrize("left", [None, "not json", "[]", json.dumps(FOREIGN), json.dumps(OURS)])
def test_a_partial_of_unknown_origin_is_started_over(store: Store, left: str | None) -> None:
    workdir = store.root / "classifier" / f"{store.key('classifier', SPEC)}.partial"
    workdir.mkdir(parents=True)
    (workdir / "weights.bin").write_text("who knows")
    if left is not None:
        (workdir / "spec.json").write_text(left)

    def make(workdir: Path) -> None:
        assert names_below(workdir) == {"spec.json"}
        make_files(workdir)

    assert "weights.bin" in names_below(store.get("classifier", SPEC, make).path)


@pytest.mark.parametrize("spoil", [lambda path: path.symlink_to("/dev/zero"), os.mkfifo], ids=["link", "pipe"])
def test_what_is_no_file_beside_the_products_is_removed_and_the_work_goes_on(
    store: Store, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted(workdir: Path) -> None:
        (workdir / "shard0").write_text("half")
        spoil(workdir / "odd")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("classifier", SPEC, interrupted)
    artifact = store.get("classifier", SPEC, make_files)
    assert names_below(artifact.path) == {"weights.bin", "extra/log.txt", "artifact.json", "shard0"}
    assert "neither a file nor a folder" in caplog.text


def test_killed_between_manifest_and_rename_nothing_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            store.get("classifier", SPEC, make_files)
    assert store.find("classifier", SPEC) is None
    forget_checks()
    assert store.get("classifier", SPEC, refuse).file("weights.bin").read_bytes() == WEIGHTS


@pytest.mark.parametrize("step", ["rename", "_remove"])
def test_a_sealed_partial_that_does_not_hold_is_made_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def power_cut(*_: Path) -> None:
        for path in store.root.rglob("weights.bin"):
            path.write_bytes(b"")
        raise KeyboardInterrupt

    def make(workdir: Path) -> None:
        make_files(workdir)
        monkeypatch.setattr(os if step == "rename" else artifacts, step, power_cut)

    with pytest.raises(KeyboardInterrupt):
        store.get("classifier", SPEC, make)
    monkeypatch.undo()
    [manifest] = store.root.rglob("artifact.json")
    assert manifest.parent.name.endswith(".partial")
    forget_checks()
    assert store.get("classifier", SPEC, make_files).file("weights.bin").read_bytes() == WEIGHTS


# Work that is shared


def share(store: Store) -> Path:
    """The scratch folder of the artifact that `SPEC` asks for."""
    scratch = store.scratch("classifier", SPEC)
    assert scratch is not None
    return scratch


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


@pytest.mark.parametrize("left", [None, "not json", "[]", json.dumps({"identity": {}, "seconds": 1, "started": 1})])
def test_scratch_of_unknown_origin_is_emptied(store: Store, left: str | None) -> None:
    scratch = share(store)
    (scratch / "shard0").write_text("who knows")
    (scratch.parent / "spec.json").unlink() if left is None else (scratch.parent / "spec.json").write_text(left)
    assert share(store) == scratch
    assert names_below(scratch.parent) == {"spec.json"}
    assert store.get("classifier", SPEC, make_files).file("weights.bin")


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
    scratch, seen, remove = share(store), [], artifacts._remove
    (scratch / "shard0").write_text("mine")

    def watched(path: Path) -> None:
        seen.append(scratch.exists())
        remove(path)

    def make(workdir: Path) -> None:
        make_files(workdir)
        monkeypatch.setattr(artifacts, "_remove", watched)

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


# Damage


def flip_a_byte(path: Path) -> None:
    content = bytearray((path / "weights.bin").read_bytes())
    content[1234] ^= 1
    (path / "weights.bin").write_bytes(content)


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


def fail_with(number: int, filename: str | None = None) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(number, os.strerror(number), filename)

    return fail


def test_a_full_disk_in_the_maker_is_a_user_error_and_resumes(store: Store) -> None:
    def make(workdir: Path) -> None:
        (workdir / "shard0").write_text("half")
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(UserError) as caught:
        store.get("classifier", SPEC, make)
    message = str(caught.value)
    assert str(store.root) in message
    assert "disk is full" in message
    assert "nothing half-made" in message
    assert "same command resumes" in message
    assert "\n" not in message
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

    with pytest.raises(UserError, match="disk is full"):
        store.get("classifier", SPEC, make)
    monkeypatch.undo()
    assert not (store.root / "classifier" / store.key("classifier", SPEC)).exists()
    assert store.get("classifier", SPEC, make_files).file("weights.bin").read_bytes() == WEIGHTS


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
    with pytest.raises(UserError, match="NFS needs a lock manager"):
        store.get("classifier", SPEC, refuse)
    with pytest.raises(UserError, match="NFS needs a lock manager"):
        store.scratch("classifier", SPEC)
    assert not list(store.root.glob("classifier/*"))


@pytest.mark.parametrize("below", [".", "deeper/still"])
def test_a_root_that_is_a_file(tmp_path: Path, below: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match=r"file.*a file stands where a folder is needed; choose a folder"):
        Store(tmp_path / "file" / below)
    assert (tmp_path / "file").read_text() == "x"


def test_a_root_that_is_a_dangling_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match="link"):
        Store(tmp_path / "link")


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


def test_a_relative_root_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store(Path("here"))
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert store.get("base", SPEC, make_files).path.is_relative_to(tmp_path / "here")


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

    with pytest.raises(UserError, match="wrong"):
        entries.over_removals(fail)


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


def a_file_for_a_folder(workdir: Path) -> None:
    (workdir / "extra").write_text("odd")


def a_folder_for_a_file(workdir: Path) -> None:
    (workdir / "weights.bin").mkdir()


def a_pipe_for_the_spec(workdir: Path) -> None:
    (workdir / "spec.json").unlink()
    os.mkfifo(workdir / "spec.json")


def numbers_without_end(workdir: Path) -> None:
    left = json.loads((workdir / "spec.json").read_text())
    (workdir / "spec.json").write_text(json.dumps(left | {"seconds": 10**400}))


def a_link_for_it_all(workdir: Path) -> None:
    workdir.rename(workdir.parent / "elsewhere")
    workdir.symlink_to("elsewhere")


def no_folder_for_shared_work(workdir: Path) -> None:
    (workdir / "scratch").write_text("odd")


@pytest.mark.parametrize(
    "harm",
    [
        a_file_for_a_folder,
        a_folder_for_a_file,
        a_pipe_for_the_spec,
        numbers_without_end,
        a_link_for_it_all,
        no_folder_for_shared_work,
    ],
)
def test_what_is_odd_in_a_half_made_entry_stops_nobody(store: Store, harm: Callable[[Path], None]) -> None:
    workdir = share(store).parent
    shutil.rmtree(workdir / "scratch")
    harm(workdir)
    shared = store.scratch("classifier", SPEC)
    assert shared is not None
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


def start(script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", script, *arguments]
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    )


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    return json.loads(out), err


def wait_for(condition: Callable[[], bool]) -> None:
    limit = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)


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
