"""CONTRIBUTING.md does what it says: its files in a folder of a user's own, its command, a row and a column of each."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tests.end_to_end.jobs import run
from tests.explainers.settings import small_clip, small_pictures
from xai.core.errors import UserError
from xai.explainers import registry
from xai.games import PatchGame
from xai.models import files
from xai.models.maskable import Removal

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL))
(COMMAND,) = re.findall(r"^python run\.py (--config-dir .*)$", PAGE, flags=re.MULTILINE)
(ENTRY_POINT,) = re.findall(
    r'^\[project\.entry-points\."xai\.plugins"\]\n(\w+) = "([\w.]+)"$', PAGE, flags=re.MULTILINE
)

FAST = (
    *("trainer=cpu", "trainer.threads=1", "pictures=0", "case.images=6", "metric.removal.masks=2"),
    *("model=vit_tiny", "model.tower.width=16", "model.tower.depth=1", "model.tower.heads=2"),
    *("classifier.fit.epochs=1", "surrogate.fit.epochs=1"),
)
"""Beside what the page shows: a small network, trained for a moment."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the page says, as files outside of the project."""
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, encoding="utf-8")
    return tmp_path


def check(folder: Path) -> None:
    """The explainer is a row, the metric is a column, the data set is what they are of, and the table shows them."""
    scores = pd.read_csv(folder / "scores.csv")
    assert set(scores.data) == {"stripes"}
    assert set(scores.explainer) == {"lone_patch", "random"}
    own = scores[scores.metric == "concentration"].dropna(subset="value")
    assert set(own.explainer) == {"lone_patch", "random"}
    assert own.value.between(0, 1, inclusive="right").all()
    steady = scores[scores.metric == "steadiness"].set_index(["explainer", "image"])["value"]
    # What is random is drawn alike for an image and for its noisy twin; what looks at the image is not.
    assert (steady["random"] > 1 - 1e-9).all()
    assert steady["lone_patch"].dropna().between(-1, 1).all()
    assert (steady["lone_patch"] < 1).any()
    shown = "".join(path.read_text(encoding="utf-8") for path in folder.rglob("*.html"))
    assert all(word in shown for word in ("Ideas", "Lone patch", "Concentration"))


def test_the_page_is_about_one_of_each() -> None:
    kinds = sorted(FILES)
    assert kinds == [
        "ideas/concentration.py",
        "ideas/lone_patch.py",
        "ideas/steadiness.py",
        "ideas/stripes.py",
        "ideas/textures.py",
        "my_conf/data/stripes.yaml",
        "my_conf/explainer/lone_patch.yaml",
        "my_conf/model/textures_small.yaml",
        "my_conf/table/ideas.yaml",
    ]
    assert len([line for line in FILES["ideas/lone_patch.py"].splitlines() if line.strip()]) <= 15


@pytest.mark.slow
def test_what_is_added_is_a_row_and_a_column_of_a_study_and_of_a_comparison(folder: Path) -> None:
    shown = shlex.split(COMMAND)
    run(folder, *shown, *FAST, path=folder)
    check(folder / "outputs" / "salvage")
    # The explainer by the entry point of an installed package, the others by their names.
    installed = folder / "ideas-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: ideas\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[xai.plugins]\n{} = {}\n".format(*ENTRY_POINT))
    classifier = sorted(folder.glob("outputs/store/classifier/*/classifier.safetensors"))[0]
    kept = [part for part in shown if not part.startswith(("task=", "study=", "plugins="))]
    others = "plugins=[ideas.concentration,ideas.steadiness,ideas.stripes]"
    run(folder, *kept, "task=compare", others, f"checkpoint={classifier}", *FAST, path=folder)
    check(folder / "outputs" / "compare")


@pytest.mark.slow
def test_a_family_of_models_is_trained_explained_and_compared(folder: Path) -> None:
    common = ("--config-dir", "my_conf", "plugins=[ideas.textures,ideas.stripes]", "data=stripes", "trainer=cpu")
    common = (*common, "trainer.threads=1")
    quick = ("classifier.fit.epochs=1", "classifier.focus=0")
    run(folder, *common, "task=train", "method=classifier", "model=textures_small", *quick, path=folder)
    file = folder / "outputs" / "classifier" / "classifier.safetensors"
    few = ("case.images=3", "pictures=0", "metric.removal.masks=1", "explainers.rise.masks=20")
    rows = "rows=[grad_cam,saliency,rise,random]"
    run(folder, *common, "task=compare", f"checkpoint={file}", *few, rows, path=folder)
    scores = pd.read_csv(folder / "outputs" / "compare" / "scores.csv")
    assert set(scores.explainer) == {"grad_cam", "saliency", "rise", "random"}
    assert {"srg", "r_srg", "deletion_auc", "insertion_auc"} <= set(scores.metric[scores.value.notna()])
    Image.fromarray(np.full((50, 60, 3), 90, np.uint8)).save(folder / "photo.png")
    run(folder, *common, "task=explain", f"checkpoint={file}", "image=photo.png", "row=saliency", path=folder)
    assert list((folder / "outputs" / "explain").glob("photo.saliency.*.png"))
    # Who has not registered the family, such as this process, hears what is missing.
    with pytest.raises(UserError, match=r"textures is not a known family of models: .* plugins=\["):
        files.read_spec(file)


def test_the_explainer_shown_does_what_it_says(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    exec(FILES["ideas/lone_patch.py"], {"__name__": "lone_patch"})
    entry = registry.entry("lone_patch")
    removal = Removal("pixels", "black")
    images, targets = small_pictures(2), torch.tensor([4, 1])
    maps = entry.build(small_clip(removal), entry.params("probability", removal)).attribute(images, targets)
    game = PatchGame(small_clip(removal), images, targets, output="probability")
    for patch in range(9):
        without = game.value((torch.arange(9) != patch)[None])[:, 0]
        whole = game.value(torch.ones(1, 9, dtype=torch.bool))[:, 0]
        torch.testing.assert_close(maps.flatten(1)[:, patch], whole - without)
