"""`method=salvage` end to end, at a size at which it takes seconds: what is there, what is re-used, what is right."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.end_to_end.jobs import run, start
from tests.end_to_end.runs import Run, artifacts, link_store, times

LEARNED = ("salvage", "vit_shapley")
CLASSIFIERS = ("classifier", "surrogate")
MAPS_ONLY = ("rise", "attention_rollout", "saliency", "random", "position_prior", "object_mask")
ROWS = (*CLASSIFIERS, *LEARNED, *MAPS_ONLY)
NETWORKS = (*CLASSIFIERS, *LEARNED)
STUDY = ("experiment=salvage_smoke", "data=digits_cluttered", f"rows=[{','.join(ROWS)}]", "name=smoke")
KINDS = (*NETWORKS, "removal", "likelihood")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The undisturbed run that others are compared with; nobody writes into its folder."""
    folder = tmp_path_factory.mktemp("study")
    return Run(folder, run(folder, *STUDY))


def result(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def measured(store: Path) -> dict[str, tuple[dict, bytes]]:
    """Of each row its result, without what a clock or the memory said, and the bytes of its tensors."""
    found = {}
    for path in artifacts(store, "removal", "likelihood"):
        said = result(path)
        params = {name: value for name, value in said["params"].items() if not name.endswith("_seconds")}
        said |= {"params": params, "seconds": 0, "peak_memory_bytes": 0}
        found[path.name] = (said, (path / "attributions.safetensors").read_bytes())
    return found


def test_every_file_is_there(study: Run) -> None:
    rows = {path.name: result(path) for path in (study.output / "results").iterdir()}
    assert sorted(rows) == sorted([*ROWS, "figure6"])
    for role, row in rows.items():
        assert row["role"] == (role if role != "figure6" else "mask_likelihood")
        assert (row["data"], row["model"], row["split"]) == ("digits_scattered", "vit_tiny", "test")
        assert (row["n_images"], row["seed"]) == (12, 0)
    for role in ROWS:
        assert ("accuracy" in rows[role]["metrics"]) == (role not in MAPS_ONLY)
        assert ({"r_srg", "rma", "grid_pointing"} <= rows[role]["metrics"].keys()) == (role not in CLASSIFIERS)
    assert rows["object_mask"]["metrics"]["grid_pointing"] > rows["random"]["metrics"]["grid_pointing"]
    lengths = {path.name: result(path)["params"]["epochs"] for path in (study.output / "length").iterdir()}
    trained_longer = ("salvage", "salvage_uniform", "vit_shapley")
    assert lengths == {f"{role}-{share}": epochs for role in trained_longer for share, epochs in ((0.5, 1), (1, 2))}
    for name in ("report.html", "table.md", "table.csv", "claims.md"):
        assert (study.output / name).stat().st_size > 100
    for picture in (study.output / "figures").iterdir():
        with Image.open(picture) as image:
            image.verify()
    assert (study.output / "figures" / "pictures.png").is_file()


def test_files_to_hold_are_those_of_the_store(study: Run) -> None:
    for kind in NETWORKS:
        held = (study.output / f"{kind}.safetensors").read_bytes()
        assert held in [(path / f"{kind}.safetensors").read_bytes() for path in artifacts(study.store, kind)]
    assert [len(artifacts(study.store, kind)) for kind in NETWORKS] == [1, 1, 4, 2]


@pytest.mark.parametrize("role", ROWS)
def test_a_row_can_be_recomputed_from_its_tensors(study: Run, role: str) -> None:
    folder = study.output / "results" / role
    said, t = result(folder)["metrics"], load_file(folder / "attributions.safetensors")
    now = {}
    if role not in CLASSIFIERS:
        now = {name: t[name].mean() for name in ("lif", "mif", "r_lif", "r_mif")}
        now |= {"srg": now["lif"] - now["mif"], "r_srg": now["r_lif"] - now["r_mif"]}
        positive = t["attributions"].astype(float).clip(0)
        inside = t["regions"].reshape(12, 6, 7, 6, 7).mean((2, 4))
        total = positive.sum((1, 2))
        now["rma"] = np.nanmean((positive * inside).sum((1, 2)) / np.where(total > 0, total, np.nan))
    if role not in MAPS_ONLY:
        now["accuracy"] = (t["logits"].argmax(1) == t["labels"]).mean()
        now["agreement"] = (t["logits"].argmax(1) == t["classifier_logits"].argmax(1)).mean()
    assert {name: said[name] for name in now} == pytest.approx(now, rel=1e-6, abs=1e-9)


def test_all_rows_are_of_the_same_images(study: Run) -> None:
    rows = {role: load_file(study.output / "results" / role / "attributions.safetensors") for role in ROWS}
    for tensors in rows.values():
        for name in ("labels", "targets", "regions", "classifier_logits"):
            np.testing.assert_array_equal(tensors[name], rows["random"][name])
        if "lif" in tensors:
            # The last entry of every curve is v(N), whatever the map.
            for name in ("lif", "mif", "r_lif", "r_mif"):
                np.testing.assert_allclose(tensors[name][:, -1], rows["random"]["lif"][:, -1], rtol=1e-4)
    prior = rows["position_prior"]["attributions"]
    np.testing.assert_array_equal(prior, np.broadcast_to(prior[:1], prior.shape))


def test_a_second_start_only_reads(study: Run, tmp_path: Path) -> None:
    store = link_store(study.store, tmp_path, KINDS)
    before = times(store)
    again = run(tmp_path, *STUDY)
    assert again.made == 0
    assert times(store) == before
    for kind in NETWORKS:
        held = (tmp_path / "outputs" / "smoke" / f"{kind}.safetensors").read_bytes()
        assert held == (study.output / f"{kind}.safetensors").read_bytes()


def test_a_classifier_that_was_handed_over_is_explained_like_the_one_it_is(study: Run, tmp_path: Path) -> None:
    small = ("rows=[classifier,salvage]", "lengths=[]", "likelihood=false", "probe=null", "salvage.fit.epochs=1")
    file = study.output / "classifier.safetensors"
    ended = run(tmp_path, *STUDY, *small, f"classifier.checkpoint={file}")
    assert ended.made == 5
    store = tmp_path / "outputs" / "store"
    (classifier,), (surrogate,) = artifacts(store, "classifier"), artifacts(store, "surrogate")
    (trained,) = artifacts(study.store, "surrogate")
    for made, expected in ((classifier, file), (surrogate, trained / "surrogate.safetensors")):
        found, wanted = load_file(made / expected.name), load_file(expected)
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(value, wanted[name]) for name, value in found.items())


# What must lie in the unfinished folder at the moment of the kill, and what the store holds before it.
KILLS = {"salvage": ("checkpoint.ckpt", CLASSIFIERS), "removal": ("spec.json", NETWORKS)}


@pytest.mark.parametrize("stage", list(KILLS))
def test_killed_in_a_stage_and_started_again(study: Run, tmp_path: Path, stage: str) -> None:
    progress, before = KILLS[stage]
    store = link_store(study.store, tmp_path, before)

    def reached() -> bool:
        return any((folder / progress).exists() for folder in (store / stage).glob("*.partial"))

    assert start(tmp_path, *STUDY).kill_when(reached), "the job ended before it could be killed"
    assert reached(), "the kill left nothing half made"
    ended = run(tmp_path, *STUDY)
    assert ended.made > 0
    assert not list(store.glob("*/*.partial"))
    assert measured(store) == measured(study.store)
    for kind in NETWORKS:
        held = (tmp_path / "outputs" / "smoke" / f"{kind}.safetensors").read_bytes()
        assert held == (study.output / f"{kind}.safetensors").read_bytes()
