from pathlib import Path

import pytest
import torch

from tests.classifiers.studying import Trained, train_in_no_time
from tests.composed import plain, settings_of
from tests.papers.ranking.test_shortcut import LABEL, shortcut
from tests.toolbox import there
from xai.core.errors import UserError
from xai.core.runtime import open_runtime
from xai.explainers.registry import refusal
from xai.explainers.rows import load_row
from xai.papers.ranking.mark import mass_on_mark
from xai.papers.ranking.shortcut import Shortcut
from xai.papers.ranking.study import RankingStudy, StudyWithShortcut, open_study, over_path_steps, over_steps
from xai.ranking.objective import ObjectiveParams
from xai.report.pictures import Gallery
from xai.report.ranking import _sheets, marked, pictures_of_steps, soft_deletion
from xai.study.maps import explain

SMALL = ["model.tower={width:8,depth:1,heads:2,registers:1}", "case.images=4", "trainer=cpu", "logger=none"]
RANKING = (
    "++explainers.ranking={levels:[0],decoder:{channels:8,fusion:4,head:2,refinement:4,resize:[1],pixels:2},"
    "objective:{steps:3,grid_max:5}}"
)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    return train_in_no_time(monkeypatch)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Shortcut:
    """A classifier that has learned a mark, and the maps that look for it: trained once for all who draw them."""
    return shortcut(tmp_path_factory.mktemp("shortcut"))


def opened(folder: Path, *overrides: str) -> StudyWithShortcut:
    asked = settings_of(RankingStudy, plain("task=study", "study=ranking", f"store={folder}", *overrides))
    return open_study(asked, open_runtime(asked, folder, small=True))


def test_figure_3a_has_every_step_of_every_start_that_a_row_has() -> None:
    rows = [load_row(name) for name in ("ranking", "ranking_t3", "flat_t1", "flat_t5")]
    derived = over_steps(rows)
    names = [row.name for row in derived]
    assert names == [*(f"ranking@t{step}" for step in (1, 2, 4, 5)), *(f"flat@t{step}" for step in (2, 3, 4))]
    for row in derived:
        assert row.name.endswith(f"t{row.params.step}")
        assert row.params.of == ("ranking" if row.name.startswith("ranking") else "constant_pixels")


def test_a_judge_is_another_network_trained_on_the_same_images_for_the_metric_that_asks_it(
    tmp_path: Path, trained: Trained
) -> None:
    study = opened(
        tmp_path, *SMALL, "rows=[random]", "metrics=[transfer]", "++metric.transfer.steps=3", "judge=cnn_tiny"
    )
    case = study.cases[0][0]
    assert there(case.judge).identity != case.model.identity
    scores = study.run().scores
    assert set(scores["metric"]) == {"transfer", "transfer_insertion", "transfer_deletion"}
    for name, why in (("clip_tiny", "must be a network for images of 42 px"), ("vit_b16_augreg", "of 42 px")):
        with pytest.raises(UserError, match=f"judge={name} .*{why}"):
            opened(tmp_path, *SMALL, "rows=[random]", f"judge={name}")
    with pytest.raises(UserError, match=r"judge=cnn_tinny .*did you mean cnn_tiny"):
        opened(tmp_path, *SMALL, "rows=[random]", "judge=cnn_tinny")


def test_figure_3b_trains_with_other_numbers_of_points_where_the_explainer_is_a_row() -> None:
    ranking = load_row("ranking")
    (other,) = over_path_steps(ranking, [ranking], [4, 8])
    assert other.name == "ranking@S=8"
    assert other.params.objective.steps == 8
    assert not list(over_path_steps(ranking, [], [8]))


def test_what_is_refined_has_the_settings_that_the_row_would_have(tmp_path: Path, trained: Trained) -> None:
    study = opened(tmp_path, *SMALL, RANKING, "rows=[ranking_t3]")
    params = study.cases[0][0].row("ranking").params
    assert params.levels == (0,)
    assert trained.names == []


def test_rows_that_a_cnn_cannot_have_are_left_out_before_they_are_trained(tmp_path: Path, trained: Trained) -> None:
    rows = "rows=[random,grad_cam,attention_rollout,rollout_t3,salvage,vit_shapley]"
    study = opened(
        tmp_path, "model=cnn_tiny", "case.images=4", "trainer=cpu", "logger=none", "classifier.focus=0", rows
    )
    case = study.cases[0][0]
    reasons = {row.name: refusal(row.entry, row.params, case) for row in study.rows if "@" not in row.name}
    assert [name for name, reason in reasons.items() if reason is None] == ["random", "grad_cam"]
    assert "attention" in str(reasons["attention_rollout"])
    assert "refined is made from attention_rollout, which cannot be had here" in str(reasons["rollout_t3"])
    assert "starts from a vision transformer" in str(reasons["salvage"])
    assert trained.names == []


def test_what_a_row_is_refined_from_is_refused_before_anything_is_trained(tmp_path: Path, trained: Trained) -> None:
    with pytest.raises(UserError, match=r"^explainers\.ranking: levels: .* has no feature level 9: there are 0 to 0"):
        opened(tmp_path, *SMALL, RANKING, "explainers.ranking.levels=[9]", "rows=[ranking_t3]")
    assert trained.names == []


def test_a_refined_row_is_charged_the_passes_up_to_its_step(tmp_path: Path, trained: Trained) -> None:
    study = opened(tmp_path, *SMALL, RANKING, "rows=[ranking,ranking_t1,ranking_t5]", "++explainers.refined.draws=1")
    ranking, *refined = (explain(study.cases[0][0], row) for row in study.rows[:3])
    assert ranking.prepared.share == 1
    one = 1 * 3 * 2 * 6
    assert [maps.prepared.passes for maps in refined] == [4 + one, 4 + 5 * one]
    first, last = (maps.milliseconds for maps in refined)
    assert first == pytest.approx(last * (4 + one) / (4 + 5 * one))


@pytest.mark.parametrize(("of", "why"), [("ranking_t1", "is a refined row"), ("ranking_pooled", "is a pooled row")])
def test_what_is_made_from_a_row_itself_is_not_refined(tmp_path: Path, trained: Trained, of: str, why: str) -> None:
    study = opened(tmp_path, *SMALL, RANKING, "rows=[ranking_t3]", f"++explainers.ranking_t3.of={of}")
    (row,) = (row for row in study.rows if row.name == "ranking_t3")
    assert why in str(refusal(row.entry, row.params, study.cases[0][0]))
    assert trained.names == []


def test_a_position_prior_is_the_same_whichever_class_is_asked_about(tmp_path: Path, trained: Trained) -> None:
    study = opened(tmp_path, *SMALL, RANKING, "rows=[ranking,position_prior]")
    (case, _), (ranking, prior) = study.cases[0], study.rows
    first, second = explain(case, prior).attributions, explain(case.second, prior).attributions
    assert torch.equal(first, second)
    own, other = explain(case, ranking).attributions, explain(case.second, ranking).attributions
    assert not torch.equal(own, other)


@pytest.mark.parametrize("experiment", ["ranking", "ranking_mnist5k", "ranking_paper"])
def test_every_row_of_pixels_stands_in_the_table_averaged_in_patches_too(experiment: str) -> None:
    rows = [load_row(name) for name in plain(f"experiment={experiment}")["rows"]]
    names = [row.name for row in rows]
    of_pixels = [row.name for row in rows if row.params.of_pixels]
    assert "integrated_gradients_pixels" in of_pixels
    assert [name for name in of_pixels if f"{name}_pooled" not in names] == []


def test_the_mark_is_outlined_and_each_map_says_how_much_of_it_lies_there(found: Shortcut) -> None:
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


def test_a_study_has_a_sheet_for_steps_and_one_for_the_mark(found: Shortcut) -> None:
    study = StudyWithShortcut(found.rows, [(found.case, [])], dict(found.case.others), shortcut=found)
    figure2, figure4, figure5 = pictures_of_steps(study, 2)
    assert figure2.caption.startswith("Figure 2.")
    assert figure4.caption.startswith("Figure 4.")
    assert figure5.caption.startswith("Figure 5.")
    assert "T = 0, T = 3" in figure4.alt
    study.shortcut = None
    study.rows = found.rows[:1]
    assert [picture.caption[:9] for picture in pictures_of_steps(study, 2)] == ["Figure 2."]


def test_soft_masks_take_away_what_the_map_has_first_until_the_reference_is_all_that_is_left() -> None:
    maps = torch.zeros(1, 8, 8)
    maps[:, :4, :4] = 1
    shown = Gallery(torch.full((1, 3, 8, 8), 0.8), {"Ranking": maps}, ["one"])
    params = ObjectiveParams(5, 2, 2, ("black",), 60, 0.0, 0.0, 3)
    panels = [axes.images[0].get_array() for axes in soft_deletion(shown, params, torch.zeros(3), 0.01).axes]
    assert [round(float(panel.mean() / 255), 1) for panel in (panels[0], panels[-1])] == [0.8, 0.0]
    # A quarter of the image is gone: the one cell that the map speaks for.
    quarter = panels[2]
    assert quarter[:4, :4].max() <= 1
    assert min(quarter[4:].min(), quarter[:, 4:].min()) >= 203


def test_more_steps_than_fit_on_a_sheet_are_put_on_further_ones() -> None:
    maps = {f"T = {step}": torch.rand(1, 8, 8) for step in range(13)}
    drawn = list(_sheets(Gallery(torch.rand(1, 3, 8, 8), maps, ["one"]), "Figure 5."))
    assert [picture.caption for picture in drawn] == ["Figure 5."] * 2


def test_no_pictures_are_drawn_where_none_are_wanted(found: Shortcut) -> None:
    assert marked(found, 0) is None
