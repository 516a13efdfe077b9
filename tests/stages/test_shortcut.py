from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.stages.bench import DATA, FIT
from tests.stages.studying import CLASSIFIER, MODEL, STEP, stages
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.store import Artifact
from xai.data.catalogue import OpenData
from xai.data.marked import MarkedSet, MarkParams
from xai.data.module import load_images
from xai.data.registry import Images
from xai.methods.ranking import RankingLoss
from xai.models import files
from xai.models.dpt import DecoderParams
from xai.papers.ranking.networks import RankingStages
from xai.papers.ranking.params import BackboneParams, PerturbationParams, RankingParams, RefinementSettings
from xai.papers.ranking.shortcut import Shortcut, ShortcutParams, mass_on_mark
from xai.ranking.areas import confidence
from xai.ranking.objective import ObjectiveParams, Question
from xai.ranking.refinement import refine_maps
from xai.results import read_result, read_tensors

LABEL = 2
OBJECTIVE = ObjectiveParams(4, 3, 5, ("black", "mean"), 10, 0.5, 0.01, 3)
RANKING = RankingParams(
    BackboneParams(),
    (0,),
    DecoderParams(4, 4, 2, 4, (1.0,)),
    OBJECTIVE,
    RankingLoss(1.0, 0.3, 1.0, 0.3),
    replace(FIT, batch_size=20),
)
REFINEMENT = RefinementSettings(3, 2, 0.5, 0.7, 0.3, 1e-3, OBJECTIVE)
PERTURBATION = PerturbationParams("test", None, 5, ("black",), 64)
LONG = FitParams(epochs=8, batch_size=10, learning_rate=1e-2, weight_decay=0.0, warmup=0.1, clip=1.0)
PARAMS = ShortcutParams(LABEL, 0.2, 1.0, 6, LONG)
SIZES = {"train": 160, "validation": 24, "test": 40}


class Quadrants:
    """A grey quadrant tells the class, where there is one: every third image leaves the classifier to other signs."""

    classes = DATA.source.classes
    templates = DATA.source.templates
    varies = True

    def labels(self, split: str) -> Tensor:
        return torch.arange(SIZES[split]) % 4

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        generator = torch.Generator().manual_seed(epoch * 10 + len(split))
        noise = torch.rand(SIZES[split], 1, 16, 16, generator=generator)[indices]
        regions = torch.zeros(len(indices), 16, 16, dtype=torch.bool)
        for row, label in enumerate(self.labels(split)[indices].tolist()):
            top, left = 8 * (label // 2), 8 * (label % 2)
            regions[row, top : top + 8, left : left + 8] = True
        visible = regions & (indices % 3 > 0)[:, None, None]
        return Images((0.2 * noise + 0.4 * visible[:, None]).expand(-1, 3, -1, -1), regions)


QUADRANTS = OpenData("quadrants", {"name": "quadrants"}, Quadrants())


def shortcut(folder: Path, **changes: Any) -> Shortcut:
    """The study of a mark on the third class; `changes` are fields of `Shortcut`, or of its `VitStages`."""
    own = {name: changes.pop(name) for name in ("data", "seed", "model", "runtime") if name in changes}
    classifier = replace(CLASSIFIER, focus=0.0, fit=LONG)
    networks = RankingStages(stages(folder, **{"data": QUADRANTS, "classifier_params": classifier, **own}), RANKING)
    return replace(Shortcut(networks, PERTURBATION, REFINEMENT, PARAMS), **changes)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shortcut, Artifact]:
    """One study with everything trained as it is meant to be, however briefly."""
    study = shortcut(tmp_path_factory.mktemp("shortcut"))
    return study, study.measured()


def marked_images(study: Shortcut, rows: Tensor | None = None) -> Tensor:
    source = MarkedSet(Quadrants(), MarkParams(0.2, 1.0, study.networks.stages.seed))
    return source.images("test", torch.arange(40) if rows is None else rows, 0).pixels


def test_the_classifier_learns_the_mark_and_keeps_what_it_knew(found: tuple[Shortcut, Artifact]) -> None:
    study, artifact = found
    metrics, labels = read_result(artifact.path).metrics, torch.arange(40) % 4
    before, now = study.networks.classifier(), study.network()
    plain, marked = Quadrants().images("test", torch.arange(40), 0).pixels, marked_images(study)
    called = now(marked).argmax(1) == LABEL
    others = labels != LABEL
    expected = {
        "called_marked": called[others],
        "called_unmarked": (now(plain).argmax(1) == LABEL)[others],
        "called_before": (before(marked).argmax(1) == LABEL)[others],
        "accuracy_clean": now(plain).argmax(1) == labels,
        "accuracy_before": before(plain).argmax(1) == labels,
    }
    for name, hits in expected.items():
        assert metrics[name] == pytest.approx(hits.double().mean().item()), name
    assert metrics["called_marked"] > 0.4
    assert metrics["called_unmarked"] < 0.1
    assert metrics["called_before"] < 0.1
    assert metrics["accuracy_clean"] > 0.7


def test_refinement_moves_maps_to_the_mark_where_it_decides_and_only_there(found: tuple[Shortcut, Artifact]) -> None:
    metrics = read_result(found[1].path).metrics
    for name in ("mass", "other_mass", "rra"):
        assert metrics[f"{name}_t3"] > metrics[f"{name}_t0"] + 0.1, name
    assert metrics["flat_mass_t3"] > metrics["mark_area"] + 0.1
    assert metrics["clean_mass_t3"] < metrics["mass_t3"] - 0.1


def test_images_are_marked_ones_that_are_called_the_class_other_classes_first(
    found: tuple[Shortcut, Artifact],
) -> None:
    study, artifact = found
    tensors = read_tensors(artifact.path)
    labels, everything = tensors["labels"], marked_images(study)
    called = study.network()(everything).argmax(1) == LABEL
    own = torch.arange(40) % 4 == LABEL
    assert read_result(artifact.path).n_images == len(labels) == 6 + min(6, int((called & own).sum()))
    assert (labels[:6] != LABEL).all()
    assert (labels[6:] == LABEL).all()
    assert len(labels[:6].unique()) > 1
    shown = (255 * everything).round().to(torch.uint8)
    rows = [int((shown == image).flatten(1).all(1).nonzero().item()) for image in tensors["images"]]
    assert len(set(rows)) == len(rows)
    assert called[rows].all()
    assert torch.equal(labels, torch.tensor(rows) % 4)
    assert (tensors["targets"] == LABEL).all()
    # The soft edge of a white mark is brighter than any object too.
    bright = everything[rows].amax(1) > 0.85
    assert (bright <= tensors["marks"]).all()
    assert (tensors["marks"].sum((1, 2)) - bright.sum((1, 2))).max() <= 12


def by_hand(study: Shortcut, start: str, images: Tensor) -> list[Tensor]:
    """Maps after 0, 1, 2 and 3 steps; the block is larger than the number of images."""
    now, before = study.network(), study.networks.classifier()
    asked = before if start == "clean_" else now
    targets = before(images).argmax(1) if start == "clean_" else torch.full((len(images),), LABEL)
    maps = study.networks.explainer(RANKING).attribute(images, targets)
    if start == "flat_":
        maps = torch.zeros_like(maps)
    question = Question(images, targets[:, None], confidence(asked(images), targets[:, None]))
    generator = torch.Generator().manual_seed(0)
    return refine_maps(maps, question, asked, torch.tensor(MODEL.mean), OBJECTIVE, REFINEMENT, generator)


@pytest.mark.parametrize("start", ["", "flat_", "clean_"])
def test_each_map_is_refined_against_its_classifier_and_measured_on_the_mark(
    found: tuple[Shortcut, Artifact], start: str
) -> None:
    study, artifact = found
    tensors, metrics = read_tensors(artifact.path), read_result(artifact.path).metrics
    everything = (255 * marked_images(study)).round().to(torch.uint8)
    rows = [int((everything == image).flatten(1).all(1).nonzero().item()) for image in tensors["images"]]
    path = by_hand(study, start, marked_images(study, torch.tensor(rows)))
    marks = tensors["marks"].numpy()
    if not start:
        torch.testing.assert_close(tensors["path"], torch.stack(path, dim=1), rtol=1e-3, atol=1e-4)
        assert torch.equal(tensors["attributions"], tensors["path"][:, 3])
    for step, maps in enumerate(path):
        mass, ranked = tensors[f"{start}mass_t{step}"], tensors[f"{start}rra_t{step}"]
        for image, (one, mark) in enumerate(zip(maps.double().numpy(), marks, strict=True)):
            above = np.maximum(one - one.mean(), 0)
            share = above[mark].sum() / above.sum() if above.sum() else np.nan
            assert mass[image].item() == pytest.approx(share, abs=1e-3, nan_ok=True)
            if above.sum():
                top = np.argsort(-one, axis=None)[: mark.sum()]
                assert ranked[image].item() == pytest.approx(mark.ravel()[top].mean(), abs=0.05)
        assert metrics[f"{start}mass_t{step}"] == pytest.approx(mass.nanmean().item(), nan_ok=True)
    if start == "flat_":
        assert tensors["flat_mass_t0"].isnan().all()


def test_of_the_images_of_other_classes_alone_those_of_the_class_are_left_out(
    found: tuple[Shortcut, Artifact],
) -> None:
    tensors = read_tensors(found[1].path)
    for step in range(4):
        torch.testing.assert_close(tensors[f"other_mass_t{step}"][:6], tensors[f"mass_t{step}"][:6])
        assert tensors[f"other_mass_t{step}"][6:].isnan().all()


def test_a_result_says_what_a_map_without_knowledge_scores(found: tuple[Shortcut, Artifact]) -> None:
    result = read_result(found[1].path)
    area = read_tensors(found[1].path)["marks"].double().mean().item()
    assert result.metrics["mark_area"] == pytest.approx(area)
    assert area == pytest.approx(np.pi * 0.2**2, rel=0.1)
    kinds = ("mass", "rra", "flat_mass", "flat_rra", "clean_mass", "clean_rra", "other_mass")
    expected = {f"{kind}_t{step}": pytest.approx(area) for kind in kinds for step in range(4)}
    assert result.chance == expected
    assert (result.role, result.method, result.split) == ("shortcut", "perturbation", "test")
    assert result.params == {"label": 2, "radius": 0.2, "level": 1.0}


def test_the_classifier_goes_on_from_its_weights_with_the_class_marked_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []

    def fit(module: Any, data: Any, params: Any, *_: Any) -> None:
        assert module.model.network.training
        assert all(value.requires_grad for value in module.parameters())
        batches.extend(data.train_dataloader())
        for value in module.parameters():
            value.data += STEP

    monkeypatch.setattr("xai.classifiers.networks.fit", lambda *_: None)
    monkeypatch.setattr("xai.papers.ranking.shortcut.fit", fit)
    study = shortcut(tmp_path)
    clean = load_file(study.networks.stages.classifier.file("classifier.safetensors"))
    info, tuned = files.read(study.classifier.file("classifier.safetensors"))
    assert info is not None
    assert (info.kind, info.data, info.classes) == ("classifier", "quadrants", Quadrants.classes)
    for name, value in clean.items():
        torch.testing.assert_close(tuned[name], value + STEP)
        assert torch.equal(dict(study.network().network.state_dict())[name], tuned[name])  # type: ignore[union-attr, operator]
    bright = torch.cat([batch.pixels.flatten(1).amax(1) > 0.99 for batch in batches])
    assert len(bright) == 160
    assert torch.equal(bright, torch.cat([batch.labels for batch in batches]) == LABEL)
    assert not study.network().training


def test_where_the_mark_changes_no_mind_the_class_itself_is_explained_or_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    study, labels = shortcut(tmp_path), torch.arange(40) % 4
    rows = study._rows(labels == LABEL, labels)
    assert len(rows.unique()) == 6
    assert (labels[rows] == LABEL).all()
    assert "the shortcut was not learned: marked, no test image of another class is called class 2" in caplog.text
    with pytest.raises(UserError, match=r"marked, no test image is called class 2: raise shortcut\.fit"):
        study._rows(torch.zeros(40, dtype=torch.bool), labels)


CHANGES: list[tuple[dict[str, Any], bool, bool]] = [
    ({"params": replace(PARAMS, label=1)}, True, True),
    ({"params": replace(PARAMS, radius=0.15)}, True, True),
    ({"params": replace(PARAMS, level=0.9)}, True, True),
    ({"params": replace(PARAMS, fit=replace(LONG, epochs=2))}, True, True),
    ({"seed": 1}, True, True),
    ({"params": replace(PARAMS, images=5)}, False, True),
    ({"perturbation": replace(PERTURBATION, split="validation")}, False, True),
    ({"perturbation": replace(PERTURBATION, block=3)}, False, True),
    ({"perturbation": replace(PERTURBATION, steps=3)}, False, False),
    ({"refinement": replace(REFINEMENT, steps=2)}, False, True),
    ({"refinement": replace(REFINEMENT, objective=replace(OBJECTIVE, chunk=4))}, False, False),
]


@pytest.mark.parametrize(("changes", "trains", "measures"), CHANGES)
def test_what_differs_is_made_anew_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], trains: bool, measures: bool
) -> None:
    for module in ("classifiers.networks", "papers.ranking.networks", "papers.ranking.shortcut"):
        monkeypatch.setattr(f"xai.{module}.fit", lambda *_: None)
    monkeypatch.setattr(Shortcut, "_write", lambda self, workdir: (workdir / "nothing").touch())
    first, second = shortcut(tmp_path), shortcut(tmp_path, **changes)
    assert (first.classifier.key != second.classifier.key) == trains
    assert (first.measured().key != second.measured().key) == measures


def test_mass_is_counted_from_the_mean_of_a_map() -> None:
    marks = torch.tensor([[[True, True], [False, False]]]).expand(3, -1, -1)
    maps = torch.tensor([[[3.0, 1.0], [1.0, -1.0]], [[0.0, 2.0], [4.0, 2.0]], [[0.1, 0.1], [0.1, 0.1]]])
    found = mass_on_mark(maps, marks)
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, torch.nan]).double(), equal_nan=True)
    torch.testing.assert_close(mass_on_mark(5 * maps - 7, marks), found, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": 4}, "class 4 cannot be marked: the data set has 4, 0 to 3"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_any_training(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        shortcut(tmp_path, params=replace(PARAMS, **change))


def test_a_refinement_that_does_not_fit_the_images_is_refused_before_any_training(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a grid of 17 x 17 cells does not fit an image of 16 x 16 px"):
        shortcut(tmp_path, refinement=replace(REFINEMENT, objective=replace(OBJECTIVE, grid_max=17)))


def test_images_of_another_size_are_marked_at_the_size_they_are_read_at(tmp_path: Path) -> None:
    study = shortcut(tmp_path, model=replace(MODEL, image_size=32, patch_size=8))
    source, rows = study._set(None), torch.arange(40)
    marks = source.marks("test", rows, 0, (32, 32))
    pixels = load_images(source, "test", rows, 0, 32).pixels[:, 0]
    assert pixels[marks].mean() > 0.85
    assert pixels[~marks].mean() < 0.3
