"""`task=supervise` as people start it: to its end, and killed again and again."""

import json
import random
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from tests.end_to_end.jobs import run, start
from tests.end_to_end.runs import Run, artifacts, link_store, measured

MAPS = "supervision.safetensors"
BLOCKS = 60


@dataclass(frozen=True)
class Whole(Run):
    """An undisturbed run on sixty of a few pictures, one a block, and the command it was."""

    task: tuple[str, ...]

    @property
    def maps(self) -> bytes:
        return (self.output / MAPS).read_bytes()

    def link(self, folder: Path) -> Path:
        """Give a folder the classifier that is explained; returns its store."""
        return link_store(self.store, folder, ("base", "head", "classifier"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder, generator = tmp_path_factory.mktemp("supervised"), np.random.default_rng(0)
    for name in ("cat", "dog", "owl"):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(30):
            noise = generator.integers(0, 256, (42, 42, 3), np.uint8)
            Image.fromarray(noise).save(folder / "pictures" / name / f"{number}.png")
    task = ("experiment=smoke", "task=supervise", "data=folder", f"data.root={folder / 'pictures'}")
    task += (f"images={BLOCKS}", "++explainers.kernel_shap_few.coalitions=64", "block=1")
    return Whole(folder, run(folder, *task), task)


def scratch(store: Path) -> list[Path]:
    """The shards of supervision that is being made."""
    return sorted(store.glob("maps/*.partial/scratch/*.safetensors"))


def test_the_folder_holds_what_the_store_holds(whole: Whole) -> None:
    (made,) = artifacts(whole.store, "maps")
    (classifier,) = artifacts(whole.store, "classifier")
    assert json.loads((whole.output / "supervision.json").read_text())["classifier"] == classifier.name
    maps, kept = load_file(whole.output / MAPS), load_file(made / "maps.safetensors")
    assert all((kept[name] == value).all() for name, value in maps.items())
    shapes = {"rows": (60,), "labels": (60,), "attributions": (60, 6, 6)}
    assert {name: value.shape for name, value in maps.items()} == shapes
    assert np.isfinite(maps["attributions"]).all()
    assert len(np.unique(maps["attributions"], axis=0)) == 60
    assert f"load_file('outputs/smoke/{MAPS}')" in whole.ended.out


def test_the_classifier_and_the_reference_of_a_transfer_are_found_again(smoke: Run, tmp_path: Path) -> None:
    link_store(smoke.store, tmp_path)
    ended = run(tmp_path, "experiment=smoke", "task=supervise", "split=test", "images=30")
    assert ended.made == 0
    assert load_file(tmp_path / "outputs" / "smoke" / MAPS)["attributions"].shape == (30, 6, 6)


def test_killed_five_times_it_ends_with_the_same_bytes(whole: Whole, tmp_path: Path) -> None:
    store, generator = whole.link(tmp_path), random.Random(1)
    for kill in range(5):
        enough = len(scratch(store)) + generator.randint(1, 3)

        def reached(enough: int = enough) -> bool:
            return len(scratch(store)) >= enough and generator.random() < 0.3

        assert start(tmp_path, *whole.task).kill_when(reached), f"it ended before kill {kill + 1}"
    kept = scratch(store)
    assert 5 <= len(kept) < BLOCKS
    assert artifacts(store, "maps") == []
    run(tmp_path, *whole.task)
    assert (tmp_path / "outputs" / "smoke" / MAPS).read_bytes() == whole.maps
    assert not list(store.glob("*/*.partial"))


def test_a_transfer_may_be_supervised_by_grad_cam(smoke: Run, tmp_path: Path) -> None:
    store = link_store(smoke.store, tmp_path, ("base", "head", "classifier"))
    views = ("tables=[]", "claims=[]", "figures=[]", "pictures=1")
    ended = run(tmp_path, "experiment=smoke", "supervision=grad_cam", *views)
    specs = [json.loads((path / "artifact.json").read_text())["spec"] for path in artifacts(store, "maps")]
    named = [spec["explainer"].get("name") for spec in specs]
    assert "kernel_shap" not in named
    # Of source, bound, validation and test; of the second class of the test images, for contrast and for the pictures.
    assert named.count("grad_cam") == 5
    assert "the reference is Grad-CAM of the classifier" in re.sub(r"\s+", " ", ended.out)
    assert "Grad-CAM (reference)" in (tmp_path / "outputs" / "smoke" / "report.html").read_text()
    assert len(measured(store)) < len(measured(smoke.store)) + 10
