"""The tutorials do what they say: their files, commands and code, in a folder of a user's own, from top to bottom."""

import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from PIL import Image

from tests.api.networks import Plain
from tests.end_to_end.jobs import run
from xai.explainers import registry

ROOT = Path(__file__).resolve().parents[2]
QUICK = ("trainer=cpu", "trainer.threads=1")
SCENES = ("data=digits_cluttered",)
SMALL = (*SCENES, "model.tower.width=16", "model.tower.depth=1", "model.tower.heads=2", "classifier.fit.epochs=1")
FEW = (*SCENES, "case.images=4", "pictures=1", "metric.removal.masks=1", "explainers.rise.masks=10")
BRIEF = ("case.images=10", "transfer.bound_coalitions=8", "pictures=0", "gallery=0", "model.pretraining.steps=50")


def follow(page: str, scope: dict[str, Any], more: dict[str, tuple[str, ...]]) -> str:
    """Do what a page says, in this folder; returns what its commands printed.

    Args:
        page: A file of docs/.
        scope: What its code finds, and leaves.
        more: By a word of a command, what makes it cheap.
    """
    said = []
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    for language, content in re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        if named := re.match(r"# (\S+\.(?:py|yaml))\n", content):
            Path(named[1]).parent.mkdir(parents=True, exist_ok=True)
            Path(named[1]).write_text(content, encoding="utf-8")
        elif language == "python":
            exec(content, scope)
        elif not language:
            for line in content.splitlines():
                words = shlex.split(line)
                assert words[:2] == ["python", "run.py"], line
                added = [each for word, given in more.items() if word in words for each in given]
                said.append(run(Path.cwd(), *words[2:], *QUICK, *added, path=Path.cwd()).out)
    return "".join(said)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.mark.slow
def test_a_new_explainer(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    registry.names()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    pictures = [Image.new("RGB", (40, 32), colour) for colour in ("red", "blue")]
    scope: dict[str, Any] = {"network": Plain().eval(), "images": pictures}
    follow("tutorial_explainer.md", scope, {"task=train": SMALL, "task=compare": FEW})
    monkeypatch.delitem(sys.modules, "my_explainers")
    assert scope["maps"].shape == (2, 4, 4)
    assert set(scope["frame"].explainer) == {"both_ends", "grad_cam", "random"}
    assert "share" in capsys.readouterr().out
    costs = pd.read_csv("outputs/compare/costs.csv").set_index("explainer")
    assert costs.passes["both_ends"] == 2 * 36 + 2
    scores = pd.read_csv("outputs/compare/scores.csv")
    assert set(scores.explainer) == {"both_ends", "last_end", "rise", "random"}
    values = scores.query("metric == 'difference_auc'").groupby("explainer").value.apply(tuple)
    assert len(set(values)) == 4
    assert "Without the patch" in Path("outputs/compare/report.html").read_text(encoding="utf-8")


def test_the_explainer_shown_is_linear_where_the_classifier_is(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a game without interactions both ends are the Shapley values."""
    registry.names()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    text = (ROOT / "docs" / "tutorial_explainer.md").read_text(encoding="utf-8")
    scope: dict[str, Any] = {"__name__": "my_explainers"}
    exec(re.search(r"^```python\n(# my_explainers\.py\n.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)[1], scope)

    class Game:
        players = 6

        def __init__(self, *given: Any, **more: Any) -> None:
            self.weights = torch.arange(12.0).reshape(2, 6)

        def value(self, coalitions: torch.Tensor) -> torch.Tensor:
            return 3 + self.weights @ coalitions.float().T

    scope["PatchGame"] = Game
    classifier = type("Classifier", (), {"grid": (2, 3)})()
    for share in (0.0, 0.3, 1.0):
        maps = scope["BothEnds"](classifier, scope["BothEndsParams"](share=share)).attribute(
            torch.zeros(2, 3, 4, 6), torch.zeros(2, dtype=torch.long)
        )
        torch.testing.assert_close(maps, torch.arange(12.0).reshape(2, 2, 3))


@pytest.mark.slow
def test_a_table(folder: Path) -> None:
    scope: dict[str, Any] = {}
    said = follow("tutorial_table.md", scope, {"experiment=smoke": BRIEF})
    assert re.search(r"store: \d+ re-used, 0 made", said)
    shown = scope["table"]["mean"].drop("chance")
    torch.testing.assert_close(torch.tensor(scope["errors"][shown.index].to_numpy()), torch.tensor(shown.to_numpy()))
    assert set(scope["claims"].verdict) == {"undecided"}
    assert set(scope["short"].row) >= {"ft_target", "proposed", "source_prior", "other_class"}
    assert set(scope["short"].column) == {"e_rmse", "iou@5"}
