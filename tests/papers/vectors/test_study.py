"""The study of a transfer between two tiny sets, from nothing to its frames."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.classifiers.tiny import DATA, Shades, of_a_job, runtime
from tests.models import tiny_clip
from tests.papers.vectors.test_transfer import PARAMS
from tests.study.shades import SIZES
from tests.study.test_mosaic import Pairs
from tests.toolbox import there
from xai.core.errors import UserError
from xai.data.catalogue import OpenData
from xai.explainers.block import Block
from xai.explainers.learned.networks import SelfExplaining
from xai.explainers.registry import refusal
from xai.explainers.rows import load_row, open_row
from xai.games import PatchGame
from xai.papers.vectors import diagnostics
from xai.papers.vectors import study as vectors_study
from xai.papers.vectors.choice import Choice, choose
from xai.papers.vectors.explainers import ClassMean, OtherClass
from xai.papers.vectors.fine_tuning import parameters
from xai.papers.vectors.study import TransferStudy, VectorsStudy, open_study
from xai.papers.vectors.transfer import with_coalitions
from xai.report.vectors import reason, sweep_tables, told
from xai.study.blocks import read_blocks
from xai.study.case import CaseParams
from xai.study.frame import Frames
from xai.study.maps import explain, key

ROWS = ("zero_shot", "ft_source", "ft_source_x", "ft_target", "proposed", "ft_target_x", "random_vector")
CONTROLS = ("other_class", "class_mean", "source_prior", "brightness", "constant")
METRICS = ("agreement_with_reference", "contrast", "centred_correlation", "localisation", "classification")
SOURCE = OpenData("source", {"name": "source"}, Shades())
PAIRS = OpenData("pairs", {"name": "pairs"}, Pairs())


def opened(folder: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> TransferStudy:
    data = {"source": SOURCE, "data": DATA, "probe": PAIRS if changes.get("probe") == {"name": "pairs"} else DATA}
    monkeypatch.setattr(vectors_study, "open_data", lambda _, where: data[where])
    asked = {
        **of_a_job("study", folder),
        "study": "vectors",
        "source": {},
        "supervision": "kernel_shap",
        "transfer": replace(PARAMS, alpha=None),
        "top": 3,
        "probe": None,
        "rows": (*ROWS, *CONTROLS),
        "explainers": {"kernel_shap": {"coalitions": 40, "evaluation_coalitions": 60}},
        "metrics": METRICS,
        "metric": {},
        "case": CaseParams("test", None, 4),
        "tables": (),
        "claims": (),
        "figures": (),
        "pictures": 0,
        "gallery": 0,
    }
    return open_study(VectorsStudy(**(asked | changes)), runtime(folder))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[TransferStudy, Frames]:
    with pytest.MonkeyPatch.context() as patch:
        study = opened(tmp_path_factory.mktemp("transfer"), patch)
        return study, study.run()


def test_every_row_is_measured_on_the_test_images(measured: tuple[TransferStudy, Frames]) -> None:
    study, frames = measured
    lines = frames.scores[frames.scores["split"] == "test"]
    assert set(lines["explainer"]) == {*ROWS, *CONTROLS, "proposed@lambda2=0.4", "proposed@lambda2=0.8"}
    assert (lines["source"] == "source").all()
    assert (lines.loc[lines["metric"] == "e_rmse"].groupby("explainer").size() == SIZES["test"]).all()
    has_accuracy = set(lines.loc[lines["metric"] == "accuracy", "explainer"])
    assert has_accuracy.isdisjoint({"source_prior", "brightness", "constant"})
    assert set(lines.loc[lines["lambda2"].notna(), "explainer"]) == {
        *("proposed", "random_vector", "other_class", "class_mean"),
        *("proposed@lambda2=0.4", "proposed@lambda2=0.8"),
    }
    keys = frames.costs.loc[frames.costs["split"] == "test"].set_index("explainer")["maps"]
    assert keys["proposed"] == keys[f"proposed@lambda2={there(study.choice).lambda2:g}"]
    assert keys.nunique() == len(keys) - 1


@pytest.mark.parametrize("where", ["source", "data"])
def test_photographs_behind_the_grey_of_the_scattered_sets_are_warned_of(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_training(*given: Any) -> None:
        raise UserError("nothing is trained here")

    def said(**settings: Any) -> str:
        caplog.clear()
        with pytest.raises(UserError, match="nothing is trained here"):
            opened(tmp_path, monkeypatch, **settings)
        return caplog.text

    monkeypatch.setattr(vectors_study, "Transfer", no_training)
    assert "removed patches" not in said()
    photographs = OpenData("pets", {"name": "pets", "fit": "crop"}, Shades())
    monkeypatch.setitem(globals(), "SOURCE" if where == "source" else "DATA", photographs)
    assert "removed patches of pets show 0.25, the ground of the scattered sets" in said()
    assert "removed patches" not in said(supervision="kernel_shap_paper")
    assert "removed patches" not in said(explainers={"kernel_shap": {"removal": {"reference": "mean"}}})


def test_scores_are_against_the_supervision_of_ft_target(measured: tuple[TransferStudy, Frames]) -> None:
    study, frames = measured
    case, reference = study.cases[0][0], there(study.reference)
    folder = case.runtime.store.root / "maps"
    keys = frames.costs.loc[frames.costs["split"] == "test"].set_index("explainer")["maps"]
    maps = load_file(folder / keys["ft_source"] / "maps.safetensors")["attributions"].double().flatten(1)
    wanted = there(explain(case, reference).attributions)
    pairs = [(each - each.mean(1, keepdim=True)) for each in (maps, wanted.double().flatten(1))]
    a, b = (each / each.std(1, correction=0, keepdim=True) for each in pairs)
    lines = frames.scores[(frames.scores["explainer"] == "ft_source") & (frames.scores["metric"] == "e_rmse")]
    torch.testing.assert_close(torch.tensor(lines["value"].to_numpy()), (a - b).square().mean(1).sqrt())
    assert torch.allclose(torch.tensor(lines["chance"].to_numpy()), torch.tensor(math.sqrt(2)).double())


def test_the_theory_is_in_the_frame_beside_the_scores_of_the_transfer(measured: tuple[TransferStudy, Frames]) -> None:
    study, frames = measured
    theory = study.transfer.diagnostics(bound=True)
    assert {"similarity_ft", "similarity_star", "risk", "risk_diagonal", "risk_random"} == set(theory)
    lines = frames.scores[frames.scores["metric"].isin(theory)]
    assert dict(zip(lines["metric"], lines["value"], strict=True)) == theory
    assert set(lines["explainer"]) == {"proposed"}
    assert set(lines["image"]) == {-1}
    assert len(frames.costs[frames.costs["split"] == "test"]) == len(ROWS) + len(CONTROLS) + 2


def test_the_curvature_of_a_target_is_kept_for_every_transfer_into_it(
    measured: tuple[TransferStudy, Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    transfer = measured[0].transfer
    other = transfer.at(next(alpha for alpha in (0.1, 0.5) if alpha != transfer.alpha))
    monkeypatch.delattr(diagnostics, "_diagonal")
    assert other.diagnostics(bound=False)["risk_diagonal"] != transfer.diagnostics(bound=True)["risk_diagonal"]


def test_a_set_has_one_classifier_as_source_and_as_target_where_all_of_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(opened.__globals__, "SOURCE", DATA)
    for fixed in (False, True):
        study = opened(tmp_path, monkeypatch, transfer=replace(PARAMS, alpha=0.1, lambda2=0.4, fixed_target=fixed))
        assert (study.transfer.ft_source.key == study.transfer.ft_target.key) == fixed


def test_the_choice_is_made_on_validation_images_alone(measured: tuple[TransferStudy, Frames]) -> None:
    study, frames = measured
    lines = frames.scores[frames.scores["split"] == "validation"]
    names = [f"proposed@alpha={alpha:g},lambda2={lambda2:g}" for alpha in (0.1, 0.5) for lambda2 in (0.4, 0.8)]
    assert set(lines["explainer"]) == {"ft_target@validation", *names}
    values = {
        metric: lines[lines["metric"] == metric].pivot(index="image", columns="explainer", values="value")
        for metric in ("e_rmse", "accuracy")
    }
    before = values["accuracy"].pop("ft_target@validation").to_numpy()
    error, right = (values[metric][names].to_numpy() for metric in values)
    candidates = [(0.1, 0.4), (0.1, 0.8), (0.5, 0.4), (0.5, 0.8)]
    assert study.choice == choose(candidates, error**2, right, before, 0.02)
    assert study.transfer.alpha == study.choice.alpha
    assert "contrast" not in set(lines["metric"])


def test_maps_of_the_chosen_alpha_are_measured(measured: tuple[TransferStudy, Frames]) -> None:
    study, frames = measured
    tau = load_file(study.transfer.vector.file("explainability_vector.safetensors"))
    plain, explained = (parameters(each) for each in (study.transfer.ft_source, study.transfer.ft_source_x))
    for name, value in tau.items():
        torch.testing.assert_close(value, explained[name] - plain[name])
    lines = frames.scores[frames.scores["split"] == "test"]
    assert set(lines.loc[lines["explainer"] == "proposed", "alpha"]) == {there(study.choice).alpha}


def test_the_class_mean_map_and_the_contrast_by_hand(measured: tuple[TransferStudy, Frames]) -> None:
    study, frames = measured
    case, reference = study.cases[0][0], there(study.reference)
    network = study.transfer.network(study.transfer.theta(there(study.choice).lambda2))
    images = torch.cat([case.images(number).pixels for number in range(len(case.blocks))])
    columns = network.explain(images).attributions.double()  # [N, M, C]
    rows = {row.name: row for row in study.rows}
    found = there(explain(case, rows["class_mean"]).attributions)
    torch.testing.assert_close(found.double().flatten(1), columns.sum(2) / columns.shape[2], rtol=1e-4, atol=1e-6)
    logits = case.logits
    other = [
        max((c for c in range(logits.shape[1]) if c != label), key=lambda c: float(logits[row, c]))
        if int(logits[row].argmax()) == label
        else int(logits[row].argmax())
        for row, label in enumerate(case.labels.tolist())
    ]
    assert case.second.targets.tolist() == other
    references = [explain(each, reference).attributions for each in (case, case.second)]
    lines = frames.scores[(frames.scores["metric"] == "contrast") & (frames.scores["split"] == "test")]
    said = lines.pivot(index="image", columns="explainer", values="value")
    for row, (label, second) in enumerate(zip(case.labels.tolist(), other, strict=True)):
        ours = columns[row, :, label] - columns[row, :, second]
        true, false = (each[row].double().flatten() for each in references if each is not None)
        wanted = float(torch.corrcoef(torch.stack([ours, true - false]))[0, 1])
        assert float(said["proposed"].iloc[row]) == pytest.approx(wanted, abs=1e-4)
    for name in ("class_mean", "source_prior", "brightness", "constant"):
        assert said[name].isna().all()  # the same for both classes


def test_another_study_of_the_same_finds_everything(
    measured: tuple[TransferStudy, Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, frames = measured
    again = opened(study.transfer.runtime.store.root.parent, monkeypatch)
    assert again.run().scores.equals(frames.scores)
    assert again.transfer.runtime.store.made == []


def test_another_lambda2_trains_nothing(
    measured: tuple[TransferStudy, Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    study, _ = measured
    folder = study.transfer.runtime.store.root.parent
    other = opened(
        folder,
        monkeypatch,
        transfer=replace(PARAMS, alpha=0.1, lambda2=0.6),
        rows=("ft_target", "proposed", "random_vector"),
    )
    lines = other.run().scores
    assert set(lines.loc[lines["explainer"].isin(["proposed", "random_vector"]), "lambda2"]) == {0.6}
    assert other.choice == Choice(0.1, 0.6)
    assert reason(other.choice) == "as asked for"
    assert {artifact.kind for artifact in other.transfer.runtime.store.made} == {"maps", "scores", "diagnostics"}


def test_a_vector_may_be_learned_from_the_maps_of_one_other_class_too(
    measured: tuple[TransferStudy, Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = measured[0].transfer
    asked = replace(PARAMS, alpha=plain.alpha, lambda2=0.4, other_column=True)
    transfer = opened(plain.runtime.store.root.parent, monkeypatch, transfer=asked).transfer
    with_it, without = transfer.ft_source_x, plain.ft_source_x
    assert with_it.key != without.key
    assert transfer.ft_target.key == plain.ft_target.key
    assert transfer.source_supervision.artifact.key == plain.source_supervision.artifact.key
    case = transfer.case(transfer.ft_source, SOURCE, "train", None).with_params(targets="wrong")
    assert (case.targets != case.labels).all()
    assert set(case.targets.tolist()) <= set(range(len(SOURCE.source.classes)))
    assert plain._source_columns[1] is None
    learned = there(transfer._source_columns[1])
    assert torch.equal(read_blocks(learned.artifact)["targets"], case.targets)
    assert not torch.allclose(learned.attributions, there(transfer.source_supervision.attributions))
    states = [parameters(made)["visual.proj"] for made in (with_it, without)]
    assert not torch.equal(*states)


def test_two_columns_cost_the_passes_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    value = PatchGame.value
    monkeypatch.setattr(PatchGame, "value", lambda game, rows: asked.append(rows.shape[-2]) or value(game, rows))
    for folder, two in (("one", False), ("two", True)):
        transfer = opened(
            tmp_path / folder, monkeypatch, transfer=replace(PARAMS, alpha=0.8, other_column=two)
        ).transfer
        asked.append(0)
        assert transfer.ft_source_x
        assert transfer.ft_target_x
    halves = asked.index(0), len(asked) - 1 - asked[::-1].index(0)
    assert asked[halves[0] : halves[1]] == asked[halves[1] :] != [0]


def test_a_random_vector_is_as_long_as_the_vector_in_whose_place_it_stands(
    measured: tuple[TransferStudy, Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = measured[0].transfer.runtime.store.root.parent
    row, found = open_row("random_vector", {"lambda2": 0.6}), {}
    for alpha in PARAMS.alpha_grid:
        other = opened(folder, monkeypatch, transfer=replace(PARAMS, alpha=alpha))
        found[key(other.cases[0][0], row)] = other.transfer.vector.key
    assert len(found) == len(set(found.values())) == len(PARAMS.alpha_grid) > 1


def test_two_objects_on_an_image_are_asked_about_one_after_the_other(
    measured: tuple[TransferStudy, Frames], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = measured[0].transfer.runtime.store.root.parent
    asked: dict[str, Any] = {
        "transfer": replace(PARAMS, alpha=0.1, lambda2=0.6),
        "rows": ("proposed", "constant"),
        "metrics": ("classification", "grid_pointing"),
    }
    lines = opened(folder, monkeypatch, probe={"name": "pairs"}, **asked).run().scores
    found = lines[lines["metric"] == "grid_pointing"]
    assert set(found["case"]) == {"grid"}
    assert set(found["home"]) == {"shades"}
    assert (found.loc[found["explainer"] == "constant", "value"] == 0.5).all()
    own = found[found["explainer"] == "proposed"].set_index("image")["value"]
    assert len(own) >= SIZES["test"] - 1
    assert own.between(0, 1).all()
    assert set(lines.loc[lines["metric"] == "accuracy", "case"]) == {"main"}
    with pytest.raises(UserError, match=r"probe=.* has not several objects an image: use mnist_pair"):
        opened(folder, monkeypatch, probe={"name": "shades"}, **asked)


def test_what_is_told_and_handed_over(measured: tuple[TransferStudy, Frames], tmp_path: Path) -> None:
    study, frames = measured
    choice = there(study.choice)
    found = told(study, frames, tmp_path)
    assert f"λ2 = {choice.lambda2:g}" in found.summary[0]
    assert "this machine's own" in found.summary[-1]
    assert f"{choice.alpha:g} and {choice.lambda2:g}, chosen on {SIZES['validation']}" in found.made["α and λ2"]
    assert len(found.made) == 6
    (picture,) = found.pictures(2)
    assert "the 3 patches of highest attribution by Kernel SHAP (reference), " in picture.alt
    (opening,) = found.opening(2)
    assert "2 images" in opening.alt
    assert "Proposed" in opening.alt
    assert not list(found.opening(0))
    other_split = replace(frames, scores=frames.scores.replace({"split": {"test": "validation"}}))
    assert sweep_tables(other_split, choice.lambda2)
    (table,) = sweep_tables(frames, choice.lambda2)
    labels = [row.label for section in table.sections for row in section.rows]
    assert sorted(labels) == sorted(
        f"λ2 = {value:g}" + " (chosen)" * (value == choice.lambda2) for value in PARAMS.lambda2_grid
    )
    files = {path.name: load_file(path) for path in tmp_path.iterdir()}
    assert sorted(files) == ["classifier.safetensors", "explainability_vector.safetensors", "model.safetensors"]
    moved = files["model.safetensors"]
    for name, tau in files["explainability_vector.safetensors"].items():
        by_hand = files["classifier.safetensors"][name].double() + choice.lambda2 * tau.double()
        torch.testing.assert_close(moved[name].double(), by_hand, rtol=1e-5, atol=1e-7)


def test_the_rows_of_a_transfer_are_refused_elsewhere(measured: tuple[TransferStudy, Frames]) -> None:
    study, _ = measured
    case = study.cases[0][0]
    elsewhere = replace(case, model=replace(case.model, networks=None))
    for name in ("ft_source", "random_vector", "other_class", "class_mean", "source_prior"):
        row = load_row(name)
        assert "study=vectors" in str(refusal(row.entry, row.params, elsewhere))


def test_a_factor_of_nothing_is_refused() -> None:
    with pytest.raises(UserError, match=r"lambda2=0\.4 has nothing to move with parameters=ft_source"):
        open_row("self_explanation", {"parameters": "ft_source", "lambda2": 0.4})


def test_the_bound_has_its_own_coalitions_where_there_are_any() -> None:
    shap = with_coalitions(load_row("kernel_shap"), 16).params
    assert getattr(shap, "coalitions", None) == 16
    cam = load_row("grad_cam")
    assert with_coalitions(cam, 16) == cam


def test_the_class_mean_map_is_the_same_for_every_class_whoever_asks() -> None:
    network, images, generator = tiny_clip.classifier(), tiny_clip.pictures(3), torch.Generator()
    expected = network.explain(images).attributions.mean(2).reshape(3, 4, 4)
    for targets in (torch.tensor([0, 1, 2]), torch.tensor([4, 4, 3])):
        torch.testing.assert_close(ClassMean(network).attribute(images, targets), expected)
        found = ClassMean(network).explain(Block(images, targets, None, None, torch.arange(3), generator))
        torch.testing.assert_close(found.maps, expected)
        torch.testing.assert_close(found.logits, network(images))


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_another_class_is_never_the_own_one_and_every_other_is_drawn_alike(classes: int) -> None:
    rows, targets = torch.arange(6000), torch.arange(6000) % classes
    asked: list[torch.Tensor] = []

    class Asked(SelfExplaining):
        def __init__(self) -> None:
            pass

        def explain(self, block: Block) -> Any:
            asked.append(block.targets)

    other = OtherClass(Asked(), rows, classes)
    for part in rows.split(700):
        other.explain(Block(torch.empty(0), targets[part], None, None, part, torch.Generator()))
    others = torch.cat(asked)
    assert (others != targets).all()
    shifts = torch.randint(1, classes, (6000,), generator=torch.Generator().manual_seed(0))
    assert torch.equal(others, (targets + shifts) % classes)  # which those of maps that are kept are
    table = torch.zeros(classes, classes)
    table.index_put_((targets, others), torch.ones(()), accumulate=True)
    expected = 6000 / classes / (classes - 1)
    assert (table[~torch.eye(classes, dtype=torch.bool)] - expected).abs().max() <= 5 * math.sqrt(expected)
