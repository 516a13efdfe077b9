"""docs/explainers.md says what is so: the table against the registry, the example by running it."""

import re
import runpy
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from tests.explainers.settings import NAMES, configured_in, small_clip, small_pictures
from xai.explainers import registry
from xai.explainers.registry import Row, entry
from xai.explainers.rows import load_row
from xai.models.maskable import Removal

PAGE = (Path(__file__).parents[2] / "docs" / "explainers.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    return found


@pytest.fixture
def occlusion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Row:
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    (tmp_path / "occlusion.py").write_text(block("python"), encoding="utf-8")
    runpy.run_path(str(tmp_path / "occlusion.py"))
    (tmp_path / "explainer").mkdir()
    (tmp_path / "explainer" / "occlusion.yaml").write_text(block("yaml"), encoding="utf-8")
    configured_in(tmp_path, monkeypatch)
    return load_row("occlusion", {"occlusion": {"output": "probability"}})


def test_the_table_is_the_registry() -> None:
    rows = re.findall(r"^\| `(\w+)` \| .* \| .* \| (.*) \|$", PAGE.split("## Shapley values")[0], flags=re.MULTILINE)
    assert sorted(name for name, _ in rows) == NAMES
    for name, settings in rows:
        assert set(re.findall(r"`(\w+)`", settings)) == {field.name for field in fields(entry(name).params)}


def test_the_example_is_an_explainer_in_fifteen_lines(occlusion: Row) -> None:
    assert len([line for line in block("python").splitlines() if line.strip()]) <= 15
    images, targets = small_pictures(2), torch.tensor([4, 1])
    explained = small_clip(occlusion.params.classifier_removal)
    maps = occlusion.entry.build(explained, occlusion.params).attribute(images, targets)
    model = small_clip(Removal("pixels", "black"))
    for image, target in enumerate(targets.tolist()):
        for patch in range(9):
            keep = (torch.arange(9) != patch)[None]
            with_and_without = [model(images[image : image + 1], k).softmax(1)[0, target] for k in (None, keep)]
            expected = with_and_without[0] - with_and_without[1]
            torch.testing.assert_close(maps[image].flatten()[patch].double(), expected, rtol=1e-4, atol=1e-6)
