"""The main job end to end, at a size at which it takes seconds: what is there, what is re-used, what is right."""

import contextlib
import io
import json
import re
import runpy
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from tests.end_to_end.jobs import ROOT, run, start
from tests.end_to_end.runs import UNDRAWN, Run, artifacts, check_undrawn, link_store, times

MODELS = ("zero_shot", "ft_source", "ft_source_x", "ft_target", "proposed", "ft_target_x")
CONTROLS = ("random_vector", "other_class", "class_mean", "source_prior", "brightness", "constant")
MAPS_ONLY = ("source_prior", "brightness", "constant")
VECTOR = "explainability_vector.safetensors"


def frame(output: Path) -> pd.DataFrame:
    return pd.read_csv(output / "scores.csv")


def mean(lines: pd.DataFrame, metric: str) -> float:
    """Over images; of an RMSE as the paper has it."""
    values = lines.loc[lines["metric"] == metric, "value"]
    return float((values**2).mean() ** 0.5 if metric == "e_rmse" else values.mean())


def maps_of(smoke: Run) -> dict[str, Path]:
    """Folders of the maps of each row on the test images, and of the reference."""
    costs = pd.read_csv(smoke.output / "costs.csv").query("split == 'test'")
    found = {row: smoke.store / "maps" / key for row, key in zip(costs["explainer"], costs["maps"], strict=True)}
    specs = {path: json.loads((path / "artifact.json").read_text())["spec"] for path in artifacts(smoke.store, "maps")}
    case = specs[found["constant"]]["case"]
    (reference,) = (path for path in specs if specs[path]["case"] == case and path not in found.values())
    return found | {"reference": reference}


def recomputed(maps: Path, reference: Path) -> dict[str, float]:
    """What docs/recompute.py prints, which nothing of the framework has a part in."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(), contextlib.redirect_stdout(said):
        warnings.simplefilter("error")
        patch.setattr(sys, "argv", ["recompute.py", str(maps), str(reference)])
        runpy.run_path(str(ROOT / "docs" / "recompute.py"))
    return {name: float(value) for name, value in (line.split() for line in said.getvalue().splitlines())}


def chosen(smoke: Run) -> float:
    return float(frame(smoke.output).query("explainer == 'proposed'")["lambda2"].iloc[0])


def classifier_of(store: Path, kind: str, data: str) -> Path:
    specs = {path: json.loads((path / "artifact.json").read_text())["spec"] for path in artifacts(store, kind)}
    (folder,) = (path for path, spec in specs.items() if spec["data"]["name"] == data)
    return folder / "classifier.safetensors"


def test_every_row_is_there(smoke: Run) -> None:
    lines = frame(smoke.output).query("split == 'test'")
    sweep = {"proposed@lambda2=0.4", "proposed@lambda2=0.8"}
    assert set(lines["explainer"]) == {*MODELS, *CONTROLS, *sweep}
    for name, value in {"source": "digits_scattered", "data": "mnist_scattered", "model": "clip_tiny"}.items():
        assert (lines[name] == value).all()
    with_accuracy = set(lines.loc[lines["metric"] == "accuracy", "explainer"])
    assert with_accuracy == {*MODELS, *CONTROLS, *sweep} - set(MAPS_ONLY)
    rows = {name: part for name, part in lines.groupby("explainer")}
    assert mean(rows["constant"], "e_rmse") == pytest.approx(1)
    assert mean(rows["other_class"], "accuracy") == mean(rows["proposed"], "accuracy")
    maps = {folder: load_file(folder / "maps.safetensors")["attributions"] for folder in maps_of(smoke).values()}
    assert len({tensor.tobytes() for tensor in maps.values()}) == len(maps), "two rows have the same maps"


@pytest.mark.parametrize("row", [*MODELS, *CONTROLS])
def test_metrics_follow_from_the_maps(smoke: Run, row: str) -> None:
    maps = maps_of(smoke)
    lines = frame(smoke.output).query("split == 'test' and explainer == @row")
    found = recomputed(maps[row], maps["reference"])
    said = {name: mean(lines, name) for name in found}
    assert found == pytest.approx(said, rel=1e-9, abs=1e-12, nan_ok=True)


def test_files_to_hold_are_those_of_the_store(smoke: Run) -> None:
    (vector,) = artifacts(smoke.store, "vector")
    assert (smoke.output / VECTOR).read_bytes() == (vector / VECTOR).read_bytes()
    target = classifier_of(smoke.store, "classifier", "mnist_scattered")
    assert (smoke.output / "classifier.safetensors").read_bytes() == target.read_bytes()
    made = {path.name for path in smoke.output.iterdir()}
    assert made >= {"report.html", "scores.csv", "vectors_table1.md", "vectors_table1.csv", "sweep.md", "claims.csv"}


def test_the_folder_shows_what_the_terminal_does(smoke: Run) -> None:
    page = (smoke.output / "report.html").read_text()
    for text in ("Proposed (transferred)", "risk R of equation 12", "chosen on the validation split", "(reference)"):
        assert text in page
    said = re.sub(r"\s+", " ", smoke.ended.out)
    assert "the explanation error (E-RMSE)" in said
    assert f"λ2 = {chosen(smoke):g} (chosen)" in (smoke.output / "sweep.md").read_text()


def test_a_second_start_only_reads(smoke: Run, tmp_path: Path) -> None:
    store = link_store(smoke.store, tmp_path)
    before = times(store)
    # Tables, claims and figures are drawn of frames; only pictures read the store.
    again = run(tmp_path, "experiment=smoke", "tables=[]", "claims=[]", "figures=[]")
    assert again.made == 0
    assert times(store) == before
    for name in (VECTOR, "model.safetensors", "classifier.safetensors"):
        assert (tmp_path / "outputs" / "smoke" / name).read_bytes() == (smoke.output / name).read_bytes()


def test_two_jobs_at_once_make_everything_once(smoke: Run, tmp_path: Path) -> None:
    jobs = [start(tmp_path, "experiment=smoke", *UNDRAWN, f"name={name}") for name in ("one", "two")]
    ended = [job.wait() for job in jobs]
    assert [job.status for job in ended] == [0, 0], ended
    store = tmp_path / "outputs" / "store"
    assert sum(job.made for job in ended) == len(artifacts(store))
    check_undrawn(store, smoke.store)
    assert not list(store.glob("*/*.partial"))


def test_apply_vector_gives_the_transferred_model_bit_for_bit(smoke: Run, tmp_path: Path) -> None:
    files = (f"vector={smoke.output / VECTOR}", f"checkpoint={smoke.output / 'classifier.safetensors'}")
    run(
        tmp_path,
        "experiment=smoke",
        "task=apply_vector",
        *files,
        f"apply_vector.lambda2={chosen(smoke)}",
    )
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


def test_tuning_lambda_trains_nothing(smoke: Run, tmp_path: Path) -> None:
    pytest.importorskip("optuna", reason="task=tune: pip install -e '.[optuna]'")
    store = link_store(smoke.store, tmp_path)
    before = set(artifacts(store))
    over = "over={transfer.lambda1:[0.9,1.1],transfer.lambda2:[0.2,0.5]}"
    run(
        tmp_path,
        "experiment=smoke",
        "task=tune",
        "name=tuned",
        over,
        "trials=3",
        "transfer.lambda2_grid=[${transfer.lambda2}]",
    )
    made = {path.parent.name for path in set(artifacts(store)) - before}
    assert {"maps", "scores"} <= made
    assert not made & {"base", "head", "classifier", "explainer", "vector"}
    tried = pd.read_csv(tmp_path / "outputs" / "tuned" / "trials.csv")
    assert tried.groupby(["transfer.lambda1", "transfer.lambda2"])["e_rmse"].nunique().eq(1).all()
    assert tried["e_rmse"].nunique() > 1
