"""The main job end to end, at a size at which it takes seconds: what is there, what is re-used, what is right."""

import contextlib
import io
import json
import math
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.end_to_end.jobs import ROOT, run, start
from tests.end_to_end.runs import Run, artifacts, evaluations, link_store, times

MODELS = ("zero_shot", "ft_source", "ft_source_x", "ft_target", "proposed", "ft_target_x")
CONTROLS = ("random_vector", "other_class", "position_prior", "ink", "constant")
MAPS_ONLY = ("position_prior", "ink", "constant")
VECTOR = "explainability_vector.safetensors"


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def recomputed(folder: Path) -> dict[str, float]:
    """What docs/recompute.py prints, which nothing of the framework has a part in."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), contextlib.redirect_stdout(said):
        warnings.simplefilter("error")
        patch.setattr(sys, "argv", ["recompute.py", str(folder)])
        runpy.run_path(str(ROOT / "docs" / "recompute.py"))
    return {name: float(value) for name, value in (line.split() for line in said.getvalue().splitlines())}


def chosen(smoke: Run) -> float:
    return result(smoke.output / "results" / "proposed")["params"]["lambda2"]


def classifier_of(store: Path, kind: str, data: str) -> Path:
    specs = {path: json.loads((path / "artifact.json").read_text())["spec"] for path in artifacts(store, kind)}
    (folder,) = (path for path, spec in specs.items() if spec["data"]["name"] == data)
    return folder / "classifier.safetensors"


def test_every_row_is_there(smoke: Run) -> None:
    rows = {path.name: result(path) for path in (smoke.output / "results").iterdir()}
    assert sorted(rows) == sorted([*MODELS, *CONTROLS])
    for role, row in rows.items():
        assert (row["role"], row["split"], row["n_images"], row["seed"]) == (role, "test", 30, 0)
        assert (row["source"], row["data"], row["model"]) == ("digits_scattered", "mnist_scattered", "clip_tiny")
        assert ("accuracy" in row["metrics"]) == (role not in MAPS_ONLY)
        assert ("lambda2" in row["params"]) == (role in ("proposed", "random_vector"))
        assert row["metrics"].keys() - {"accuracy"} == rows["ink"]["metrics"].keys()
    assert rows["constant"]["metrics"]["e_rmse"] == 1.0
    assert rows["other_class"]["metrics"]["accuracy"] == rows["proposed"]["metrics"]["accuracy"]
    maps = [load_file(smoke.output / "results" / role / "attributions.safetensors")["attributions"] for role in rows]
    assert len({tensor.tobytes() for tensor in maps}) == len(rows), "two rows have the same maps"


@pytest.mark.parametrize("role", [*MODELS, *CONTROLS])
def test_metrics_follow_from_the_tensors(smoke: Run, role: str) -> None:
    folder = smoke.output / "results" / role
    said = {name: math.nan if value is None else value for name, value in result(folder)["metrics"].items()}
    assert recomputed(folder) == pytest.approx(said, rel=1e-9, abs=1e-12, nan_ok=True)


def test_recomputing_notices_another_tensor(smoke: Run, tmp_path: Path) -> None:
    for name in ("result.json", "attributions.safetensors"):
        (tmp_path / name).write_bytes((smoke.output / "results" / "proposed" / name).read_bytes())
    content = bytearray((tmp_path / "attributions.safetensors").read_bytes())
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    first, last = header["attributions"]["data_offsets"]
    maps = np.frombuffer(bytes(content[start + first : start + last]), np.float32)
    content[start + first : start + last] = (-maps).tobytes()
    (tmp_path / "attributions.safetensors").write_bytes(content)
    said, now = result(tmp_path)["metrics"], recomputed(tmp_path)
    assert now["accuracy"] == said["accuracy"]
    for name in ("e_rmse", "iou@5", "centred_correlation", "rma"):
        assert now[name] != pytest.approx(said[name], abs=1e-6)
    assert now["kendall"] == pytest.approx(-said["kendall"])


def test_equation_8_by_hand(smoke: Run) -> None:
    (base_folder,) = artifacts(smoke.store, "base")
    both_towers = load_file(base_folder / "base.safetensors")
    base = {name: value for name, value in both_towers.items() if name.startswith("visual.")}
    target = load_file(classifier_of(smoke.store, "classifier", "mnist_scattered"))
    plain = load_file(classifier_of(smoke.store, "classifier", "digits_scattered"))
    explained = load_file(classifier_of(smoke.store, "explainer", "digits_scattered"))
    vector, model = load_file(smoke.output / VECTOR), load_file(smoke.output / "model.safetensors")
    assert vector.keys() == base.keys() == model.keys() - {"head", "logit_scale"}
    moved = 0
    for name, start_value in base.items():
        wide = [part[name].astype(np.float64) for part in (target, plain, explained)]
        np.testing.assert_array_equal(vector[name], (wide[2] - wide[1]).astype(np.float32))
        tau = vector[name].astype(np.float64)
        by_hand = start_value + 1.0 * (wide[0] - start_value.astype(np.float64)) + chosen(smoke) * tau
        np.testing.assert_array_equal(model[name], by_hand.astype(np.float32))
        moved += int((model[name] != target[name]).sum())
    assert moved > 1000
    np.testing.assert_array_equal(model["head"], target["head"])


def test_files_to_hold_are_those_of_the_store(smoke: Run) -> None:
    (vector,) = artifacts(smoke.store, "vector")
    assert (smoke.output / VECTOR).read_bytes() == (vector / VECTOR).read_bytes()
    target = classifier_of(smoke.store, "classifier", "mnist_scattered")
    assert (smoke.output / "classifier.safetensors").read_bytes() == target.read_bytes()
    kept = {tensors for _, tensors in evaluations(smoke.store).values()}
    assert all((row / "attributions.safetensors").read_bytes() in kept for row in (smoke.output / "results").iterdir())


def test_lambda2_is_the_best_that_keeps_the_accuracy(smoke: Run) -> None:
    sweep = {path.name: result(path)["metrics"] for path in (smoke.output / "sweep" / "validation").iterdir()}
    assert sorted(sweep) == ["lambda2=0.4", "lambda2=0.8"]
    rows = (row for row, _ in evaluations(smoke.store).values() if row["split"] == "validation")
    (target,) = (row for row in rows if row["role"] == "ft_target")
    floor = (1 - 0.015) * target["metrics"]["accuracy"]
    kept = {name: row["e_rmse"] for name, row in sweep.items() if row["accuracy"] >= floor}
    best = min(kept, key=kept.get) if kept else max(sweep, key=lambda name: (sweep[name]["accuracy"], -float(name[8:])))
    assert best == f"lambda2={chosen(smoke):g}"


def test_a_second_start_only_reads(smoke: Run, tmp_path: Path) -> None:
    store = link_store(smoke.store, tmp_path)
    before = times(store)
    again = run(tmp_path, "experiment=smoke")
    assert again.made == 0
    assert f"{len(artifacts(store))} re-used" in again.out
    assert times(store) == before
    for name in (VECTOR, "model.safetensors", "classifier.safetensors"):
        assert (tmp_path / "outputs" / "smoke" / name).read_bytes() == (smoke.output / name).read_bytes()


def test_another_lambda2_makes_evaluations_only(smoke: Run, tmp_path: Path) -> None:
    store = link_store(smoke.store, tmp_path)
    before = set(artifacts(store))
    ended = run(tmp_path, "experiment=smoke", "transfer.lambda2=0.6")
    new = sorted(set(artifacts(store)) - before)
    assert ended.made == len(new) == 3
    assert {path.parent.name for path in new} == {"evaluation"}
    assert sorted(result(path)["role"] for path in new) == ["other_class", "proposed", "random_vector"]
    assert result(tmp_path / "outputs" / "smoke" / "results" / "proposed")["params"]["lambda2"] == 0.6


def test_a_sweep_that_is_started_twice_reads_the_second_time(smoke: Run, tmp_path: Path) -> None:
    store = link_store(smoke.store, tmp_path)
    sweep = ("-m", "experiment=smoke", "seed=0", "transfer.lambda2=0.4,0.8")
    first = run(tmp_path, *sweep)
    # The smoke run has made all that belongs to the lambda2 it chose; of the other one two controls are missing.
    assert len(artifacts(store)) - len(artifacts(smoke.store)) == 2
    before = times(store)
    second = run(tmp_path, *sweep)
    assert times(store) == before
    assert first.out.count(", 0 made") == 1
    assert second.out.count(", 0 made") == 2
    folders = tmp_path / "outputs" / "smoke"
    told = {result(path.parent)["params"]["lambda2"] for path in folders.glob("*/results/proposed/result.json")}
    assert told == {0.4, 0.8}


def test_two_jobs_at_once_make_everything_once(smoke: Run, tmp_path: Path) -> None:
    jobs = [start(tmp_path, "experiment=smoke", f"name={name}") for name in ("one", "two")]
    ended = [job.wait() for job in jobs]
    assert [job.status for job in ended] == [0, 0], ended
    store = tmp_path / "outputs" / "store"
    assert sum(job.made for job in ended) == len(artifacts(store)) == len(artifacts(smoke.store))
    assert evaluations(store) == evaluations(smoke.store)
    assert not list(store.glob("*/*.partial"))


def test_damaged_entries_are_found_out_and_made_anew(smoke: Run, tmp_path: Path) -> None:
    store = link_store(smoke.store, tmp_path)
    weights = classifier_of(store, "classifier", "mnist_scattered")
    header = classifier_of(store, "classifier", "digits_scattered")
    cut = classifier_of(store, "explainer", "digits_scattered")
    whole = {file: file.read_bytes() for file in (weights, header, cut)}
    damaged = {file: bytearray(content) for file, content in whole.items()}
    damaged[weights][-1000] ^= 1
    damaged[header][20] ^= 1
    del damaged[cut][-100:]
    for file, content in damaged.items():
        file.unlink()  # the smoke run's file is the same one
        file.write_bytes(content)
    ended = run(tmp_path, "experiment=smoke")
    assert ended.made == 3
    for file in whole:
        assert f"store entry {file.parent} is damaged" in ended.err
        assert file.read_bytes() == whole[file]
        assert (file.parent.with_name(f"{file.parent.name}.damaged-1") / file.name).read_bytes() == damaged[file]
    assert evaluations(store) == evaluations(smoke.store)


def test_apply_vector_gives_the_transferred_model_bit_for_bit(smoke: Run, tmp_path: Path) -> None:
    files = (f"vector={smoke.output / VECTOR}", f"checkpoint={smoke.output / 'classifier.safetensors'}")
    run(tmp_path, "experiment=smoke", "task=apply_vector", *files, f"apply_vector.lambda2={chosen(smoke)}")
    made = tmp_path / "outputs" / "smoke" / "model.safetensors"
    assert made.read_bytes() == (smoke.output / "model.safetensors").read_bytes()
    assert artifacts(tmp_path / "outputs" / "store") == []


def test_apply_vector_with_less_of_the_task_vector(smoke: Run, tmp_path: Path) -> None:
    link_store(smoke.store, tmp_path)
    files = (f"vector={smoke.output / VECTOR}", f"checkpoint={smoke.output / 'classifier.safetensors'}")
    lambdas = ("apply_vector.lambda1=0.75", "apply_vector.lambda2=0.5")
    run(tmp_path, "experiment=smoke", "task=apply_vector", *files, *lambdas)
    (base_folder,) = artifacts(smoke.store, "base")
    base, target = load_file(base_folder / "base.safetensors"), load_file(smoke.output / "classifier.safetensors")
    model = load_file(tmp_path / "outputs" / "smoke" / "model.safetensors")
    for name, tau in load_file(smoke.output / VECTOR).items():
        by_hand = 0.25 * base[name].astype(np.float64) + 0.75 * target[name] + 0.5 * tau.astype(np.float64)
        np.testing.assert_allclose(model[name], by_hand, rtol=1e-6, atol=1e-9)


def test_the_transferred_model_explains_a_picture(smoke: Run, tmp_path: Path) -> None:
    picture = tmp_path / "seven.photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)).save(picture)
    arguments = ("experiment=smoke", "task=explain", f"checkpoint={smoke.output / 'model.safetensors'}")
    ended = run(tmp_path, *arguments, f"image={picture}", "target=7")
    assert "explained: 7" in ended.out
    with Image.open(tmp_path / "seven.photo.explained.png") as map_:
        map_.load()
        assert map_.format == "PNG"
        assert min(map_.size) >= 42
