"""Figure 5 of SALVAGE: whose mistakes are shown, and of which two classes the maps are."""

from pathlib import Path
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from tests.study.engine import register, study
from tests.study.shades import DATA
from tests.toolbox import there
from xai.core.errors import UserError
from xai.explainers.block import Block, Explanation
from xai.explainers.registry import Prepared, Row, entry, explainer
from xai.papers.salvage.study import StudyWithExamples, chosen
from xai.report.pictures import Gallery
from xai.report.salvage import mistakes, pictures_of_examples, pictures_of_mistakes

LABELS = DATA.source.labels("test")


class OneClass:
    """Says the same class of every image; its map of a class has the class everywhere, and one patch more."""

    def __init__(self, said: int) -> None:
        self._said = said

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        maps = targets[:, None, None].float().expand(-1, 4, 4).clone()
        maps[:, 0, 0] += 1
        return maps

    def explain(self, block: Block) -> Explanation:
        logits = torch.zeros(len(block.images), 5)
        logits[:, self._said] = 1
        return Explanation(self.attribute(block.images, block.targets), logits)


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Row:
    register(monkeypatch, tmp_path / "journal")

    def prepare(context: Any, params: Any) -> Prepared:
        return Prepared({"says": 2}, lambda: OneClass(2))

    explainer("one_class", label="One class", about="for tests")(prepare)
    return Row("salvage", "One class", entry("one_class"), entry("one_class").params())


def test_images_that_the_explainer_has_wrong_are_shown_for_what_it_says_and_for_the_truth(
    row: Row, tmp_path: Path
) -> None:
    made = study(tmp_path, ["random"])
    found = there(mistakes(made.cases[0][0], row, 4))
    wrong = [number for number, label in enumerate(LABELS.tolist()) if label != 2]
    assert 4 < len(wrong) < len(LABELS)
    assert found.classes == found.predicted == ["c"] * 4
    assert found.true == found.second_classes
    assert "c" not in found.true
    maps, truth = found.maps["One class"], found.second["One class"]
    assert torch.equal(maps[:, 1, 1], torch.full((4,), 2.0))
    assert ["abcde"[int(value)] for value in truth[:, 1, 1]] == found.true
    every = DATA.source.images("test", torch.tensor(wrong), 0).pixels
    assert all((image == every).flatten(1).all(1).any() for image in found.images)


def test_a_sheet_is_drawn_where_salvage_was_measured_and_is_sometimes_wrong(row: Row, tmp_path: Path) -> None:
    made = study(tmp_path, ["random"])
    assert list(pictures_of_mistakes(made, 3)) == []
    made.rows = [*made.rows, row]
    (picture,) = pictures_of_mistakes(made, 3)
    assert "u(N)" in picture.caption
    assert picture.png.startswith(b"\x89PNG")
    assert list(pictures_of_mistakes(made, 0)) == []


def test_chosen_images_are_shown_under_methods_and_not_under_controls(
    row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, shown = study(tmp_path, ["random"]), list[Gallery]()

    def sheets(found: Gallery) -> list[Figure]:
        shown.append(found)
        return []

    monkeypatch.setattr("xai.report.salvage.sheets", sheets)
    numbers = {"Figure 1": [4, 1], "Figure 8": chosen(DATA, "test", "classes", "Figure 8")}
    with_examples = StudyWithExamples([*made.rows, row], made.cases, examples=numbers)
    assert list(pictures_of_examples(with_examples)) == []
    first, eighth = shown
    assert list(first.maps) == list(eighth.maps) == ["One class"]
    assert torch.equal(first.images, DATA.source.images("test", torch.tensor([4, 1]), 0).pixels)
    assert eighth.true is not None
    assert eighth.true == sorted(set(eighth.true))
    assert {"abcde"[label] for label in LABELS.tolist()} == set(eighth.true)


def test_images_are_chosen_by_number_or_how_many() -> None:
    last = len(LABELS) - 1
    assert chosen(DATA, "test", (3, 0), "it") == [3, 0]
    assert chosen(DATA, "test", 3, "it") == [0, round(last / 2), last]
    with pytest.raises(UserError, match=rf"^examples: it: image {last + 1} is not there: .* 0 to {last}$"):
        chosen(DATA, "test", (last + 1,), "it")
