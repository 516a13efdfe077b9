from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.classifiers.studying import CLASSIFIER, MODEL, STEP, stages
from tests.classifiers.tiny import DATA, FIT
from tests.toolbox import seeded, there
from xai.classifiers.networks import explained
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.data.catalogue import OpenData
from xai.data.marked import MarkedSet, MarkParams
from xai.data.registry import Images
from xai.explainers.controls.pictures import ConstantParams
from xai.explainers.registry import Row, entry
from xai.methods.ranking import RankingLoss
from xai.models import files
from xai.models.dpt import DecoderParams
from xai.papers.ranking.explainers import RankingSettings, RefinedSettings
from xai.papers.ranking.mark import mass_on_mark
from xai.papers.ranking.params import BackboneParams
from xai.papers.ranking.shortcut import Shortcut, ShortcutParams
from xai.ranking.areas import confidence
from xai.ranking.objective import ObjectiveParams, Question
from xai.ranking.refinement import Refinement
from xai.study.case import Case, CaseParams
from xai.study.maps import explain

LABEL = 2
OBJECTIVE = ObjectiveParams(4, 3, 5, ("black", "mean"), 10, 0.5, 0.01, 3)
REFINED = RefinedSettings(3, 2, 0.5, 0.7, 0.3, 1e-3, OBJECTIVE, of="ranking", step=3)
LONG = FitParams(epochs=8, batch_size=10, learning_rate=1e-2, weight_decay=0.0, warmup=0.1, clip=1.0)
PARAMS = ShortcutParams(LABEL, 0.2, 1.0, 6, LONG)
SIZES = {"train": 160, "validation": 24, "test": 40}
LABELS = torch.arange(40) % 4


class Quadrants:
    """A grey quadrant tells the class, where there is one: every third image leaves the classifier to other signs."""

    classes = DATA.source.classes
    templates = DATA.source.templates
    varies = True

    def labels(self, split: str) -> Tensor:
        return torch.arange(SIZES[split]) % 4

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        noise = torch.rand(SIZES[split], 1, 16, 16, generator=seeded(epoch * 10 + len(split)))[indices]
        regions = torch.zeros(len(indices), 16, 16, dtype=torch.bool)
        for row, label in enumerate(self.labels(split)[indices].tolist()):
            top, left = 8 * (label // 2), 8 * (label % 2)
            regions[row, top : top + 8, left : left + 8] = True
        visible = regions & (indices % 3 > 0)[:, None, None]
        return Images((0.2 * noise + 0.4 * visible[:, None]).expand(-1, 3, -1, -1), regions)


QUADRANTS = OpenData("quadrants", {"name": "quadrants"}, Quadrants())


def ranking_row() -> Row:
    decoder, loss = DecoderParams(4, 4, 2, 4, (1.0,)), RankingLoss(1.0, 0.3, 1.0, 0.3)
    params = RankingSettings(BackboneParams(), (0,), decoder, OBJECTIVE, loss, replace(FIT, batch_size=20))
    return Row("ranking", "Ranking", entry("ranking"), params)


def shortcut(folder: Path, params: ShortcutParams = PARAMS, **changes: Any) -> Shortcut:
    """The mark on the third class."""
    classifier = replace(CLASSIFIER, focus=0.0, fit=LONG)
    networks = stages(folder, data=QUADRANTS, classifier_params=classifier, **changes)
    ranking, flat = (
        ranking_row(),
        Row("constant_pixels", "Flat", entry("constant"), ConstantParams(resolution="pixel", value=0.0)),
    )
    others = {row.name: row for row in (ranking, flat)}
    asked = CaseParams("test", 10, 64, "predicted")
    case = Case(networks.runtime, explained(networks), QUADRANTS, asked, 0, others=others)
    refined = partial(Row, entry=entry("refined"))
    rows = [ranking, refined("ranking_t3", "Ranking, T = 3", params=REFINED)]
    controls = [
        refined(f"flat_t{step}", "Flat", params=replace(REFINED, of="constant_pixels", step=step)) for step in (0, 3)
    ]
    return Shortcut(networks, case, params, rows, controls)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Shortcut:
    """With everything trained as it is meant to be, however briefly."""
    return shortcut(tmp_path_factory.mktemp("shortcut"))


@pytest.fixture(scope="module")
def scores(study: Shortcut) -> pd.DataFrame:
    return study.measured().scores


def mean(scores: pd.DataFrame, row: str, metric: str) -> float:
    return float(scores[(scores["explainer"] == row) & (scores["metric"] == metric)]["value"].mean())


def marked_images(rows: Tensor | None = None) -> Tensor:
    source = MarkedSet(Quadrants(), MarkParams(0.2, 1.0, 0))
    return source.images("test", torch.arange(40) if rows is None else rows, 0).pixels


def test_the_classifier_learns_the_mark_and_keeps_what_it_knew(study: Shortcut, scores: pd.DataFrame) -> None:
    plain, marked, others = Quadrants().images("test", torch.arange(40), 0).pixels, marked_images(), LABELS != LABEL
    for name, network in (("marked", study.network()), ("before", study.stages.network("classifier"))):
        expected = {
            "called_marked": (network(marked).argmax(1) == LABEL)[others],
            "called_unmarked": (network(plain).argmax(1) == LABEL)[others],
            "accuracy_unmarked": network(plain).argmax(1) == LABELS,
        }
        for metric, hits in expected.items():
            assert mean(scores, f"classifier@{name}", metric) == pytest.approx(hits.double().mean().item())
    assert mean(scores, "classifier@marked", "called_marked") > 0.4
    assert mean(scores, "classifier@marked", "called_unmarked") < 0.1
    assert mean(scores, "classifier@before", "called_marked") < 0.1
    assert mean(scores, "classifier@marked", "accuracy_unmarked") > 0.7


def test_refinement_moves_maps_to_the_mark_where_it_decides_and_only_there(scores: pd.DataFrame) -> None:
    for metric in ("mass", "other_mass", "mark_rra"):
        assert mean(scores, "ranking_t3", metric) > mean(scores, "ranking", metric) + 0.1, metric
    assert mean(scores, "flat_t3", "mass") > mean(scores, "flat_t3", "mark_area") + 0.1
    assert mean(scores, "ranking_t3", "mass_before") < mean(scores, "ranking_t3", "mass") - 0.1
    assert pd.isna(mean(scores, "flat_t0", "mass"))
    assert mean(scores, "ranking", "mark_area") == pytest.approx(torch.pi * 0.2**2, rel=0.1)


def test_images_are_marked_ones_that_are_called_the_class_other_classes_first(
    study: Shortcut, scores: pd.DataFrame
) -> None:
    rows = torch.tensor(study._rows)
    called = study.network()(marked_images()).argmax(1) == LABEL
    assert len(rows.unique()) == len(rows) == 6 + min(6, int((called & (LABELS == LABEL)).sum()))
    assert called[rows].all()
    assert (LABELS[rows[:6]] != LABEL).all()
    assert (LABELS[rows[6:]] == LABEL).all()
    case = study.studies[0].cases[0][0]
    assert (case.targets == LABEL).all()
    mass = scores[(scores["explainer"] == "ranking_t3") & (scores["metric"] == "other_mass")]
    assert mass["image"].tolist() == rows.tolist()
    assert mass["value"].isna().tolist() == [False] * 6 + [True] * (len(rows) - 6)


@pytest.mark.parametrize("start", ["", "flat", "before"])
def test_each_map_is_refined_against_its_classifier(study: Shortcut, start: str) -> None:
    part = study.studies[start == "before"]
    case, row = part.cases[0][0], part.rows[-1 if start == "flat" else 1]
    found, images = explain(case, row).attributions, marked_images(torch.tensor(study._rows))
    asked = study.stages.network("classifier") if start == "before" else study.network()
    targets = asked(images).argmax(1)
    begun = there(explain(case, part.rows[0]).attributions)
    maps = torch.zeros_like(begun) if start == "flat" else begun
    question = Question(images, targets[:, None], confidence(asked(images), targets[:, None]))
    path = Refinement(asked, torch.tensor(MODEL.mean), OBJECTIVE, REFINED).of_maps(question, maps, seeded())
    torch.testing.assert_close(found, path[3], rtol=1e-3, atol=1e-4)


def test_the_classifier_goes_on_from_its_weights_with_the_class_marked_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def fit(module: Any, data: Any, params: Any, *_: Any) -> None:
        assert module.model.network.training
        batches.extend(data.train_dataloader())
        for value in module.parameters():
            assert value.requires_grad
            value.data += STEP

    monkeypatch.setattr("xai.classifiers.networks.fit", lambda *_: None)
    study = shortcut(tmp_path)
    clean = load_file(study.stages.classifier.file("classifier.safetensors"))
    monkeypatch.setattr("xai.classifiers.networks.fit", fit)
    spec, tuned = files.read(study.classifier.file("classifier.safetensors"))
    assert (spec.kind, spec.data, spec.classes) == ("classifier", "quadrants", Quadrants.classes)
    for name, value in clean.items():
        torch.testing.assert_close(tuned[name], value + STEP)
    bright = torch.cat([batch.pixels.flatten(1).amax(1) > 0.99 for batch in batches])
    assert torch.equal(bright, torch.cat([batch.labels for batch in batches]) == LABEL)
    assert not study.network().training


def test_where_the_mark_changes_no_mind_the_class_itself_is_explained_or_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("xai.classifiers.networks.fit", lambda *_: None)
    for says, logits in (("itself", LABELS), ("nothing", torch.zeros(40))):
        study = shortcut(tmp_path)
        monkeypatch.setattr(Case, "logits", torch.nn.functional.one_hot(logits.long(), 4).float())
        if says == "itself":
            assert (LABELS[list(study._rows)] == LABEL).all()
            assert "marked, no test image of another class is called class 2" in caplog.text
        else:
            with pytest.raises(UserError, match=r"marked, no test image is called class 2: raise shortcut\.fit"):
                _ = study._rows


def test_a_class_that_is_none_is_refused_before_anything_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xai.classifiers.networks.fit", lambda *_: None)
    with pytest.raises(UserError, match="class 4 cannot be marked: the data set has 4, 0 to 3"):
        shortcut(tmp_path, replace(PARAMS, label=4))


def test_mass_is_counted_from_the_mean_of_a_map() -> None:
    marks = torch.tensor([[[True, True], [False, False]]]).expand(3, -1, -1)
    maps = torch.tensor([[[3.0, 1.0], [1.0, -1.0]], [[0.0, 2.0], [4.0, 2.0]], [[0.1, 0.1], [0.1, 0.1]]])
    found = mass_on_mark(maps, marks)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, torch.nan]).double(), equal_nan=True)
    torch.testing.assert_close(mass_on_mark(5 * maps - 7, marks), found, equal_nan=True)


def test_images_of_another_size_are_marked_at_the_size_they_are_read_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xai.classifiers.networks.fit", lambda *_: None)
    study = shortcut(tmp_path, model=replace(MODEL, image_size=32, patch_size=8))
    pixels, marks = study._marked.source.images("test", torch.arange(40), 0)
    assert pixels.shape[-2:] == marks.shape[-2:] == (32, 32)
    assert pixels[:, 0][marks].mean() > 0.85
    assert pixels[:, 0][~marks].mean() < 0.3
