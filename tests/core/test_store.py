"""The artifact store: keys, what is made once and found again, and what an interruption leaves."""

import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.core.artifacts import SPEC, WEIGHTS, forget_checks, make_files, names_below, refuse
from xai.core import store as artifacts
from xai.core.entries import canonical
from xai.core.errors import UserError
from xai.core.store import Store
from xai.models.weights import write_weights

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


def test_an_exception_passes_and_the_next_call_goes_on(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    trouble = ValueError("loss is NaN")

    def first(workdir: Path) -> None:
        (workdir / "scratch").mkdir()
        (workdir / "scratch" / "shard0").write_text("half")
        (workdir / "scratch" / ".tmp-1-ab-shard1").write_text("killed while writing")
        (workdir / ".tmp-networks").mkdir()
        (workdir / ".tmp-networks" / "module.safetensors").write_text("on its way to other processes")
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
    assert "neither a file nor a folder" not in caplog.text


@pytest.mark.parametrize(("ago", "ahead", "seconds"), [(50, 0, 50), (0, 1e9, 0), (-1e6, 0, 0)])
def test_seconds_count_interrupted_tries_up_to_their_last_write(
    store: Store, ago: float, ahead: float, seconds: float
) -> None:
    """Files from the future, and a clock that was set back, count for nothing."""

    def interrupted(workdir: Path) -> None:
        left = json.loads((workdir / "spec.json").read_text())
        (workdir / "spec.json").write_text(json.dumps(left | {"started": time.time() - ago}))
        (workdir / "shard").write_text("x")
        os.utime(workdir / "shard", (time.time() + ahead, time.time() + ahead))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.get("classifier", SPEC, interrupted)
    assert store.get("classifier", SPEC, make_files).seconds == pytest.approx(seconds, abs=2)


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


@pytest.mark.parametrize("step", ["rename", "remove"])
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


def test_weights_that_a_killed_process_left_half_written_are_no_part_of_an_artifact(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        os.link(path, path.with_name(f"{path.name}-kept"))  # what is left where nobody tidies up
        raise KeyboardInterrupt

    def make(workdir: Path) -> None:
        write_weights(workdir / "weights.safetensors", {"a": torch.ones(2)}, {})

    with monkeypatch.context() as patch:
        patch.setattr("xai.models.weights.save_file", killed)
        with pytest.raises(KeyboardInterrupt):
            store.get("test", {}, make)
    assert any(store.root.rglob("*-kept"))
    artifact = store.get("test", {}, make)
    assert {path.name for path in artifact.path.iterdir()} == {"weights.safetensors", "artifact.json"}
