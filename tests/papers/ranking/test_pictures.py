"""The sheets of Figures 4 and 5 show maps that are in the store, step by step."""

from pathlib import Path

import torch

from tests.papers.ranking.test_shortcut import LABEL, shortcut
from xai.papers.ranking.mark import mass_on_mark
from xai.papers.ranking.study import StudyWithShortcut
from xai.report.ranking import marked, pictures_of_steps
from xai.study.maps import explain


def test_the_mark_is_outlined_and_each_map_says_how_much_of_it_lies_there(tmp_path: Path) -> None:
    found = shortcut(tmp_path)
    case, rows = found.studies[0].cases[0][0], found.rows
    shown = marked(found, 3)
    assert list(shown.maps) == ["T = 0", "T = 3"]
    assert len(shown.images) == 3
    assert not shown.second
    assert set(shown.predicted) == {case.model.classes[LABEL]}
    maps = explain(case, rows[1]).attributions
    places = [int((maps == one).flatten(1).all(1).nonzero()[0]) for one in shown.maps["T = 3"]]
    regions = torch.cat([case.images(number).regions for number in range(len(case.blocks))])[places]
    assert torch.equal(shown.regions, regions)
    shares = mass_on_mark(maps[places], regions)
    assert shown.notes["T = 3"] == [f"{share:.0%}" for share in shares]


def test_a_study_has_a_sheet_for_steps_and_one_for_the_mark(tmp_path: Path) -> None:
    found = shortcut(tmp_path)
    study = StudyWithShortcut(found.rows, [(found.case, [])], dict(found.case.others), shortcut=found)
    figure4, figure5 = pictures_of_steps(study, 2)
    assert figure4.caption.startswith("Figure 4.")
    assert figure5.caption.startswith("Figure 5.")
    assert "T = 0, T = 3" in figure4.alt
    study.shortcut = None
    study.rows = found.rows[:1]
    assert not list(pictures_of_steps(study, 2))


def test_no_pictures_are_drawn_where_none_are_wanted(tmp_path: Path) -> None:
    assert marked(shortcut(tmp_path), 0) is None
