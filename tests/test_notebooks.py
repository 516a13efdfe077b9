"""The notebooks run from top to bottom, and open where notebooks are opened."""

import ast
import json
import re
from pathlib import Path
from typing import Any

import matplotlib.figure
import pytest

from xai.explainers import registry

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "docs" / "notebooks").glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[str]:
    written = json.loads(path.read_text("utf-8"))
    return ["".join(each["source"]) for each in written["cells"] if each["cell_type"] == kind]


def run(path: Path) -> list[Any]:
    """What the cells come to that end in a value, with few masks; plain Python but for what installs the package."""
    scope: dict[str, Any] = {}
    found = []
    for cell in cells(path, "code"):
        quick = re.sub(r"\b60\b", "8", cell)
        parts = ast.parse(re.sub(r"^(\s*)%pip.*$", r"\1pass", quick, flags=re.MULTILINE))
        value = parts.body.pop() if isinstance(parts.body[-1], ast.Expr) else None
        exec(compile(parts, path.name, "exec"), scope)
        if isinstance(value, ast.Expr):
            found.append(eval(compile(ast.Expression(value.value), path.name, "eval"), scope))
    return found


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    registry.names()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))


def test_there_are_two_and_nothing_they_printed_is_kept() -> None:
    assert len(NOTEBOOKS) == 2
    for path in NOTEBOOKS:
        written = json.loads(path.read_text("utf-8"))
        assert (written["nbformat"], written["metadata"]["kernelspec"]["name"]) == (4, "python3")
        assert not any(each.get("outputs") or each.get("execution_count") for each in written["cells"])
        assert len({each["id"] for each in written["cells"]}) == len(written["cells"])
        assert "%pip install --quiet learned-explainers" in cells(path, "code")[0]


def test_a_new_explainer() -> None:
    figure, table, shape = run(NOTEBOOKS[0])
    assert isinstance(figure, matplotlib.figure.Figure)
    assert table.loc["Both ends", "mean"] > table.loc["Random", "mean"] + 0.1
    assert shape == (6, 4, 4)


@pytest.mark.slow
def test_ones_own_classifier() -> None:
    predicted, figure, table, times, listed = run(NOTEBOOKS[1])
    assert [name for name, _ in predicted] == ["palace", "daisy"]
    assert isinstance(figure, matplotlib.figure.Figure)
    assert {"Grad-CAM", "RISE", "Random"} == set(table.index)
    assert set(times) == {"grad_cam", "rise", "random"}
    assert {"fits", "why_not"} <= set(listed.columns)
