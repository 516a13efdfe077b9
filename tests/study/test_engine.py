"""The engine: explainers make maps, metrics score maps, and each is made once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.models.tiny_clip import classifier
from tests.study.engine import MODEL, RISE, asked, lines, made, register, rows, stored, study
from tests.study.shades import BORDERLESS, DATA, SIZES, Shades, runtime
from tests.toolbox import refusal, there
from xai.core.errors import Busy, UserError
from xai.data.catalogue import OpenData
from xai.explainers.posthoc.rise import rise
from xai.explainers.rows import open_row
from xai.games import PatchGame
from xai.metrics import registry as metrics
from xai.models.maskable import Removal
from xai.study.blocks import read_blocks
from xai.study.case import Case, CaseParams
from xai.study.maps import explain
from xai.study.statistics import WHOLE
from xai.study.study import Study, open_metrics, open_rows, together


@pytest.fixture(autouse=True)
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register(monkeypatch, tmp_path / "journal")
    asked.clear()
    return tmp_path / "journal"


# What is made, and what is found.


def test_maps_and_scores_are_kept_apart_one_artifact_for_each(tmp_path: Path) -> None:
    first = study(tmp_path, ["rise", "noted"], ["localisation", "peak"])
    first.run()
    assert made(first) == ["maps", "maps", *["scores"] * 4]
    again = study(tmp_path, ["rise", "noted"], ["localisation", "peak"])
    again.run()
    assert made(again) == []
    assert len(again.cases[0][0].runtime.store.found) == 6


def test_a_case_of_some_of_its_images_asks_nothing_again(tmp_path: Path) -> None:
    (case, _), *_ = study(tmp_path, ["noted"], targets="predicted").cases
    positions = torch.tensor([1, 4, 5])
    logits, targets = case.logits[positions], case.targets[positions]
    asked.clear()
    few = case.at(positions)
    assert few.rows.tolist() == case.rows[positions].tolist()
    assert torch.equal(few.logits, logits)
    assert torch.equal(few.targets, targets)
    assert asked == []
    assert few.spec["images"] == few.rows.tolist()


def test_a_metric_that_is_added_afterwards_explains_nothing_again(tmp_path: Path, journal: Path) -> None:
    explainers = ["rise", "saliency", "noted"]
    study(tmp_path, explainers, ["localisation"]).run()
    before = lines(journal)
    assert sum(asked) >= 9 * 2
    asked.clear()
    added = study(tmp_path, explainers, ["localisation", "peak"])
    assert set(added.run().scores.metric) >= {"rma", "peak"}
    assert made(added) == ["scores"] * 3
    # `peak` asks the classifier nothing, so that whatever it was asked would be an explainer's.
    assert asked == []
    assert [line for line in lines(journal) if line.startswith("maps")] == before


def test_kept_scores_of_a_metric_that_answers_otherwise_by_now_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study(tmp_path, ["noted"], ["peak"]).run()
    monkeypatch.setitem(metrics._ENTRIES, "peak", replace(metrics.entry("peak"), revision=1))
    again = study(tmp_path, ["noted"], ["peak"])
    again.run()
    assert made(again) == ["scores"]


def test_maps_of_the_second_class_are_made_with_those_of_the_first_and_are_what_they_are_alone(tmp_path: Path) -> None:
    alone = study(tmp_path / "alone", ["rise"], ["perturbation"])
    case, row = alone.cases[0][0], alone.rows[0]
    passes = []
    for each in (case, case.second):
        assert len(case.logits)
        asked.clear()
        explain(each, row)
        passes.append(sum(asked))
    assert passes[0] == passes[1] > 0
    both = study(tmp_path / "both", ["rise"], ["class_correlation"])
    case = both.cases[0][0]
    assert len(case.logits)
    asked.clear()
    both.run()
    assert sum(asked) == passes[0]
    assert made(both) == ["maps", "maps", "scores"]
    kept, by_itself = stored(tmp_path / "both"), stored(tmp_path / "alone")
    assert {name: kept[name] for name in kept if name.startswith("maps")} == {
        name: by_itself[name] for name in by_itself if name.startswith("maps")
    }


def test_references_of_both_classes_come_from_the_passes_of_one(tmp_path: Path) -> None:
    both, alone = (
        study(tmp_path / each, ["brightness"], ["agreement_with_reference", "contrast"]) for each in ("both", "alone")
    )
    both.reference = alone.reference = rows(["rise"])[0]
    assert len(both.cases[0][0].logits) == len(alone.cases[0][0].logits)
    asked.clear()
    explain(alone.cases[0][0], alone.reference)
    passes = sum(asked)
    asked.clear()
    both.run()
    assert sum(asked) == passes > 0
    assert made(both).count("maps") == 4


def test_of_the_second_class_no_map_is_made_that_no_metric_can_look_at(tmp_path: Path) -> None:
    # Contrast needs a reference, and there is none.
    both = study(tmp_path, ["rise"], ["contrast", "localisation"])
    both.run()
    assert made(both) == ["maps", "scores"]


def test_an_explainer_that_is_added_afterwards_scores_only_itself(tmp_path: Path, journal: Path) -> None:
    metrics = ["localisation", "peak"]
    study(tmp_path, ["noted"], metrics).run()
    before = len(lines(journal))
    added = study(tmp_path, ["noted", "noted_too"], metrics)
    assert set(added.run().scores.explainer) == {"noted", "noted_too"}
    assert made(added) == ["maps", "scores", "scores"]
    after = [line.split()[:2] for line in lines(journal)[before:] if line.startswith("maps")]
    assert after == [["maps", "noted_too"]] * 3


def test_the_same_settings_under_another_name_make_nothing_and_others_do(tmp_path: Path) -> None:
    case = study(tmp_path, []).cases[0][0]
    keys = {
        name: explain(case, row).artifact.key
        for name, row in {
            "first": open_row("first", {"name": "rise", **RISE}),
            "same": open_row("second", {"name": "rise", "label": "Another", **RISE}),
            "other": open_row("third", {"name": "rise", **RISE, "masks": 9}),
        }.items()
    }
    assert keys["first"] == keys["same"] != keys["other"]
    assert [artifact.kind for artifact in case.runtime.store.made] == ["maps", "maps"]


def test_stages_of_a_path_are_one_artifact_of_which_each_row_picks_its_own(tmp_path: Path, journal: Path) -> None:
    found = study(tmp_path, ["noted", "noted@1", "noted@2"], ["peak"])
    scores = found.run().scores
    assert made(found) == ["maps", *["scores"] * 3]
    assert sum(line.startswith("maps") for line in lines(journal)) == 3
    case = found.cases[0][0]
    of_rows = [explain(case, row) for row in found.rows]
    path = read_blocks(of_rows[0].artifact)["attributions"]
    assert path.shape == (9, 3, 4, 4)
    for step, maps in enumerate(of_rows):
        assert torch.equal(maps.attributions, path[:, step])
        own = scores[scores.step == step]
        assert own.value.tolist() == path[:, step].flatten(1).amax(1).double().tolist()


def test_refined_rows_share_one_path_and_the_first_stage_is_what_it_starts_from(tmp_path: Path) -> None:
    small = {"steps": 2, "draws": 1, "objective": {"grid_min": 2, "grid_max": 4}}
    changes = {name: {"step": step, **small} for name, step in (("flat_t1", 0), ("flat_t3", 2))}
    found = study(tmp_path, ["flat_t1", "flat_t3"], changes=changes)
    found.run()
    assert made(found) == ["maps", "scores", "scores"]
    start, end = (explain(found.cases[0][0], row).attributions for row in found.rows)
    assert start.shape == end.shape == (9, 16, 16)
    assert start.flatten(1).std(1).max() == 0
    assert end.flatten(1).std(1).min() > 0


# What is asked.


def test_the_draws_are_those_of_the_block_and_the_answers_those_of_the_classifier(tmp_path: Path) -> None:
    found = study(tmp_path, ["rise", "random"], seed=3)
    found.run()
    case = found.cases[0][0]
    by_rise, by_chance = (explain(case, row).attributions for row in found.rows)
    for number, block in enumerate(torch.arange(9).split(4)):
        generator = torch.Generator().manual_seed(3 * 1_000_003 + number)
        torch.testing.assert_close(by_chance[block], torch.rand(len(block), 4, 4, generator=generator), rtol=0, atol=0)
        generator = torch.Generator().manual_seed(3 * 1_000_003 + number)
        masks = torch.rand(8, 16, generator=generator) < 0.5
        images = DATA.source.images("test", block, 0).pixels
        model = classifier(Removal("tokens")).float()
        game = PatchGame(model, images, DATA.source.labels("test")[block], output="probability")
        expected = rise(game.value(masks), masks).reshape(-1, 4, 4)
        torch.testing.assert_close(by_rise[block], expected, rtol=1e-5, atol=1e-6)


def test_the_class_that_is_explained_is_the_label_the_prediction_or_the_other_one_of_the_two(tmp_path: Path) -> None:
    images, labels = DATA.source.images("test", torch.arange(9), 0).pixels, DATA.source.labels("test")
    first, second = classifier().float()(images).topk(2, 1).indices.unbind(1)
    assert 0 < (first == labels).sum() < 9
    expected = {"label": labels, "predicted": first, "second": torch.where(first == labels, second, labels)}
    keys = set()
    for targets, classes in expected.items():
        found = study(tmp_path, ["noted"], targets=targets)  # type: ignore[arg-type]
        case = found.cases[0][0]
        assert torch.equal(case.targets, classes)
        maps = explain(case, found.rows[0])
        assert torch.equal(read_blocks(maps.artifact)["targets"], classes)
        keys.add(maps.artifact.key)
    assert len(keys) == 3


@pytest.mark.parametrize("targets", ["label", "predicted", "second", "other", "wrong"])
def test_the_second_class_is_never_the_one_that_is_explained(tmp_path: Path, targets: Any) -> None:
    case = study(tmp_path, ["noted"], targets=targets).cases[0][0]
    assert (case.second.targets != case.targets).all()


def test_without_labels_the_other_class_is_the_second_most_likely(tmp_path: Path) -> None:
    class Unlabelled(Shades):
        labelled = False

    data = OpenData("strangers", {"name": "strangers"}, Unlabelled())
    case = study(tmp_path, ["noted"], data=data, targets="second").cases[0][0]
    expected = classifier().float()(DATA.source.images("test", torch.arange(9), 0).pixels).topk(2, 1).indices[:, 1]
    assert torch.equal(case.targets, expected)
    for targets in ("predicted", "second", "other"):
        case = study(tmp_path, ["noted"], data=data, targets=targets).cases[0][0]  # type: ignore[arg-type]
        assert (case.second.targets != case.targets).all()
    with pytest.raises(UserError, match=r"case\.targets=wrong: data=strangers has no labels"):
        study(tmp_path, ["noted"], data=data, targets="wrong")
    metrics = ["classification", "classification_quality"]
    left_out = study(tmp_path, ["classifier"], metrics, data=data, targets="predicted").run().left_out
    names = ["accuracy", "classifier_accuracy", "classification_quality"]
    assert left_out.metric.tolist() == names
    assert left_out.reason.tolist() == [f"{name} is left out: the images have no labels" for name in names]
    # What was not asked for is not missing.
    whole, column = (
        study(tmp_path, ["noted"], [metric], data=data, targets="predicted").run().left_out
        for metric in ("perturbation", "deletion_auc")
    )
    assert "deletion_auc_true" in set(whole.metric)
    assert column.empty


def test_a_subset_is_drawn_with_the_seed_and_images_keep_their_numbers(tmp_path: Path) -> None:
    found = study(tmp_path, ["noted"], ["peak"], images=5)
    scores = found.run().scores
    chosen = found.cases[0][0].rows
    assert scores.image.tolist() == chosen.tolist() == sorted(set(chosen.tolist()))
    assert len(chosen) == 5
    others = [study(tmp_path, ["noted"], images=5, seed=seed).cases[0][0].rows.tolist() for seed in range(6)]
    assert any(other != chosen.tolist() for other in others)


def test_rows_that_are_called_alike_are_told_apart(tmp_path: Path) -> None:
    found = study(tmp_path, ["kernel_shap", "noted@1", "kernel_shap_few", "noted", "noted@2"])
    labels = ["Kernel SHAP", "noted", "Kernel SHAP (kernel_shap_few)", "noted", "noted"]
    assert [row.label for row in found.rows] == labels
    assert [row.label for row in found.cases[0][0].others.values()] == labels


def test_what_cannot_be_asked_is_refused_before_any_work(tmp_path: Path) -> None:
    for images in (10, 100):
        with pytest.raises(UserError, match=f"images={images}: the test split of data=shades has 9 images"):
            study(tmp_path, ["noted"], images=images)
    assert "rows: noted is named twice" in refusal(study, tmp_path, ["noted", "noted"])
    assert "rows is empty" in refusal(open_rows, [], {})
    with pytest.raises(UserError, match=r"^metric\.remuval is not a known metric: did you mean removal"):
        open_metrics(["removal"], {"remuval": {}})
    with pytest.raises(UserError, match=r"^quick\.metric\.removal\.masks=-1 must be at least 0"):
        open_metrics([], {"removal": {"masks": -1}}, "quick.")
    for name in ("removel", "srgg"):
        with pytest.raises(UserError, match=rf"^metrics={name} is not a known metric: did you mean (removal|srg)\?"):
            open_metrics([name], {})
    assert refusal(open_rows, ["rize_16"], {}).startswith("rows=rize is not a known explainer: did you mean rise?")
    assert [each.metric.name for each in open_metrics(["srg", "removal", "rma"], {})] == ["removal", "localisation"]
    by_name = {name: open_metrics([name], {}) for name in ("perturbation", "deletion_auc", "deletion_auc_true")}
    assert [each.whole for (each,) in by_name.values()] == [True, False, True]


# What does not fit.


def test_a_row_that_does_not_fit_is_left_out_with_its_reason(tmp_path: Path) -> None:
    found = study(tmp_path, ["noted", "object_mask", "salvage"], data=BORDERLESS, metrics=["peak"])
    assert set(found.run().scores.explainer) == {"noted"}
    assert found.unfit == {
        "object_mask": "object_mask needs the regions of the objects, which data=borderless has not",
        "salvage": "it starts from a vision transformer, and model=tiny is none: use model=vit_tiny, or "
        "network=vit_tiny to train one beside it",
    }
    assert [row.name for row in found.measured_rows] == ["noted"]
    with pytest.raises(UserError, match=r"^rows: object_mask: object_mask needs the regions"):
        study(tmp_path, ["noted", "object_mask"], data=BORDERLESS, strict=True).run()
    with pytest.raises(UserError, match=r"^none of the explainers fits: object_mask: object_mask needs the regions"):
        study(tmp_path, ["object_mask"], data=BORDERLESS).run()


@pytest.mark.parametrize(
    ("metric", "explainer", "data", "reason"),
    [
        ("localisation", "random", BORDERLESS, "the data set has no regions of objects"),
        ("grid_pointing", "random", DATA, "the data set does not place several objects on an image"),
        ("agreement_with_reference", "random", DATA, "there are no reference maps"),
        ("classification", "random", DATA, "the row makes maps and no predictions"),
        ("localisation", "classifier", DATA, "the row makes no maps"),
        ("removal", "random_pixels", DATA, "the maps are of pixels, and it takes maps of patches"),
    ],
)
def test_a_metric_that_cannot_be_had_is_left_out_with_its_reason(
    tmp_path: Path, metric: str, explainer: str, data: OpenData, reason: str
) -> None:
    found = study(tmp_path, [explainer, "noted"], [metric, "peak"], data=data).run()
    own = found.left_out[(found.left_out.explainer == explainer) & (found.left_out.metric == metric)]
    assert own.reason.tolist() == [f"{metric} is left out: {reason}"]
    assert "peak" in set(found.scores.metric)


def test_where_no_metric_can_be_had_it_says_why(tmp_path: Path) -> None:
    asked = study(tmp_path, ["random", "noted"], ["localisation"], data=BORDERLESS)
    why = "localisation is left out: the data set has no regions of objects"
    assert refusal(asked.run) == f"nothing could be measured: {why}"


def test_maps_that_are_not_finite_are_refused_by_their_rows_and_nothing_is_kept(tmp_path: Path) -> None:
    broken = study(tmp_path, ["noted"], block=6, changes={"noted": {"broken": [2, 5, 7]}})
    # Of the first block; the second is not begun.
    assert "attributions of noted for shades test of rows 2, 5 hold NaN or infinity" in refusal(broken.run)
    assert not list((tmp_path / "store" / "maps").glob("*/maps.safetensors"))


# The frame.


def test_the_frames_have_a_line_for_everything_and_what_it_cost(tmp_path: Path) -> None:
    metrics = ["removal", "localisation", "class_correlation", "classification", "classification_quality"]
    found = study(tmp_path, ["rise", "classifier", "random_pixels"], metrics).run()
    counted = found.scores.groupby(["explainer", "metric"]).size()
    assert counted["rise", "srg"] == counted["random_pixels", "class_correlation"] == SIZES["test"]
    assert counted["classifier", "mcc"] == 1
    assert set(found.scores[found.scores.metric == "mcc"].image) == {WHOLE}
    assert set(found.scores[found.scores.metric == "srg"].image) == set(range(9))
    same = {"case": "main", "model": "tiny", "data": "shades", "home": "shades", "seed": 3, "split": "test"}
    for name, value in same.items():
        assert set(found.scores[name]) == {value}
    kinds = found.scores.groupby("explainer").kind.first().to_dict()
    assert kinds == {"rise": "post-hoc", "classifier": "classifier", "random_pixels": "control"}
    curve = found.curves[(found.curves.explainer == "rise") & (found.curves.curve == "curve_mif")]
    assert curve.x.tolist() == pytest.approx(torch.linspace(0, 1, 16).tolist())
    costs = found.costs.set_index("explainer")
    assert costs.passes.to_dict() == {"rise": 8.0, "classifier": 1.0, "random_pixels": 0.0}
    assert (costs.milliseconds >= 0).all()
    agreement = found.scores[(found.scores.explainer == "classifier") & (found.scores.metric == "agreement")]
    assert agreement.value.tolist() == [1.0] * 9


def test_the_reference_agrees_with_itself(tmp_path: Path) -> None:
    (reference,) = rows(["noted"])
    found = study(tmp_path, ["noted", "random"], ["agreement_with_reference"], reference=reference).run()
    means = found.scores.groupby(["explainer", "metric"]).value.mean()
    assert means["noted", "e_rmse"] == pytest.approx(0, abs=1e-6)
    assert means["noted", "kendall"] == pytest.approx(1)
    assert means["random", "e_rmse"] > 0.5


def test_a_prior_is_the_mean_of_maps_of_validation_images(tmp_path: Path) -> None:
    found = study(tmp_path, ["noted", "position_prior"], changes={"position_prior": {"of": "noted", "images": None}})
    found.run()
    case = found.cases[0][0]
    prior = there(explain(case, found.rows[1]).attributions)
    expected = there(explain(case.with_params(split="validation"), found.rows[0]).attributions)
    torch.testing.assert_close(prior, expected.mean(0).expand(9, -1, -1))


def test_the_cases_of_a_study_have_metrics_of_their_own(tmp_path: Path) -> None:
    work = runtime(tmp_path)
    few = Case(work, MODEL, DATA, CaseParams("test", 2, 4), 0, name="few")
    all_of_them = Case(work, MODEL, DATA, CaseParams("test", None, 4), 0, name="all")
    cases = [(few, open_metrics(["peak"], {})), (all_of_them, open_metrics(["localisation"], {}))]
    scores = Study(rows(["noted", "random"]), cases).run().scores
    assert scores[scores.case == "few"].groupby(["explainer", "metric"]).size().to_dict() == {
        ("noted", "peak"): 2,
        ("random", "peak"): 2,
    }
    assert set(scores[scores.case == "all"].metric) == {"rma", "rra", "pointing_game"}


# Whose turn it is.


def test_what_others_make_is_come_back_to_when_the_rest_is_done(tmp_path: Path) -> None:
    order: list[str] = []

    def task(name: str, busy: int) -> str:
        order.append(name)
        if order.count(name) <= busy:
            raise Busy(name)
        return name.upper()

    tasks = [lambda name=name, busy=busy: task(name, busy) for name, busy in (("a", 2), ("b", 0), ("c", 1))]
    assert together(tasks, runtime(tmp_path).store.impatient) == ["A", "B", "C"]
    assert order[:3] == ["a", "b", "c"]
    assert sorted(order[3:]) == ["a", "a", "c"]
