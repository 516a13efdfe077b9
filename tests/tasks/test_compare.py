"""`task=compare` from a checkpoint alone: every explainer that fits a model gets every number."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from tests.composed import composed, plain
from tests.toolbox import refusal
from xai import app, cli
from xai.core.errors import UserError
from xai.core.settings import build
from xai.core.training import TrainerParams
from xai.models import files
from xai.models.cnn import CnnParams
from xai.models.factory import ClipParams, build_clip, build_explainer
from xai.models.families import open_model, published_classes
from xai.models.named import NamedParams
from xai.models.spec import describe
from xai.tasks.compare import _explained, _named, with_classes

CPU = TrainerParams(accelerator="cpu")
CLASSES = tuple("0123456789")
PIXELS = ["saliency_pixels", "integrated_gradients_pixels", "input_x_gradient_pixels"]
EVERYWHERE = ["grad_cam", "eigen_cam", "saliency", "integrated_gradients", "input_x_gradient", "rise", "kernel_shap"]
ATTENTION = ["attention_last", "attention_rollout"]
CONTROLS = ["random", "brightness", "object_mask"]
FEW = (
    *("data=mnist_cluttered", "trainer=cpu", "trainer.threads=1", "logger=none", "pictures=0", "case.images=2"),
    *("figures=[]", "++metric.removal.masks=1", "++metric.perturbation.steps=5", "++explainers.rise.masks=8"),
    *("++explainers.integrated_gradients.steps=4", "++explainers.integrated_gradients_pixels.steps=4"),
    *("++explainers.kernel_shap.coalitions=16", "++explainers.kernel_shap.evaluation_coalitions=16"),
)


def written(folder: Path, name: str, **changes: Any) -> Path:
    """The file of a classifier of the shipped settings; its head, and a model without published weights, are random."""
    values = yaml.safe_load((cli.CONF / "model" / f"{name}.yaml").read_text(encoding="utf-8"))
    values.pop("pretraining", None)
    params: Any = open_model({**values, **changes})
    if isinstance(params, ClipParams):
        network: Any = build_explainer(params, build_clip(params), torch.randn(params.towers.embed_dim, 10))  # type: ignore[union-attr]
    else:
        network = params.start(10)
    files.write(folder / "classifier.safetensors", network, describe(params, "classifier", "mnist_cluttered", CLASSES))
    return folder / "classifier.safetensors"


def compared(folder: Path, path: Path, *more: str) -> Path:
    """The folder of a comparison of two images."""
    app.run(composed("task=compare", f"checkpoint={path}", "store=store", *FEW, *more), folder / "out")
    return folder / "out"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "expected"),
    [("cnn_tiny", EVERYWHERE), ("vit_tiny", EVERYWHERE + ATTENTION), ("clip_tiny", EVERYWHERE + ATTENTION)],
)
def test_every_explainer_that_fits_gets_every_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, expected: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    compared(tmp_path, written(tmp_path, name))
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    # Of weights that are random a map may have nothing positive, and then no mass to be accurate of.
    scores = scores[scores.value.notna() | (scores.metric == "rma")]
    of_pixels = {"deletion_auc", "insertion_auc", "difference_auc", "rma", "rra"}
    found = {row: set(values.metric) for row, values in scores.groupby("explainer")}
    assert set(found) == {*expected, *PIXELS, *CONTROLS}
    for row, columns in found.items():
        assert of_pixels <= columns, row
        assert ({"srg", "r_srg"} <= columns) == (row not in PIXELS), row
    assert set(pd.read_csv(tmp_path / "out" / "left_out.csv").explainer) == set(PIXELS)
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert ("shows no attention" in page) == (expected is EVERYWHERE)


def test_what_a_row_is_made_from_costs_what_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    typed = ("rows=[all]", "budget=18", "metrics=[difference_auc]")
    out = compared(tmp_path, written(tmp_path, "cnn_tiny"), *typed, "tables=[]")
    assert {"kernel_shap", "wrong_class"} <= set(pd.read_csv(out / "scores.csv").explainer)


def test_another_classifier_judges_grids_are_made_and_rows_are_ranked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, "vit_tiny")
    (tmp_path / "other").mkdir()
    judge = written(tmp_path / "other", "cnn_tiny")
    typed = ("rows=[saliency,random]", "metrics=[transfer,grid_pointing,contrast,randomisation]")
    views = ("tables=[compare_ranks,compare]", "rank_by=transfer", "pictures=2", "case.images=4", "case.targets=label")
    out = compared(tmp_path, path, *typed, f"judge={judge}", "reference=saliency", "++metric.transfer.steps=3", *views)
    scores = pd.read_csv(out / "scores.csv")
    asked = set(scores.metric)
    assert {"transfer", "transfer_insertion", "grid_pointing", "contrast", "randomisation"} <= asked
    assert set(scores[scores.metric == "grid_pointing"].case) == {"grid"}
    assert scores[(scores.explainer == "random") & (scores.metric == "randomisation")].value.tolist() == [1.0] * 4
    ranks = pd.read_csv(out / "compare_ranks.csv")
    assert ranks.column.iloc[0] == "mean_place"
    # The usual table has what was asked for, too.
    assert {"transfer", "grid_pointing", "randomisation"} <= set(pd.read_csv(out / "compare.csv").column)
    assert set(ranks.row) == {"saliency", "random"}
    assert ranks[ranks.column == "transfer"]["mean"].sum() == pytest.approx(3)
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count('class="tile"') == 2
    for wrong, said in (
        (f"judge={tmp_path / 'none.safetensors'}", "none.safetensors does not exist"),
        ("reference=salency", "saliency"),
    ):
        with pytest.raises(UserError, match=said):
            compared(tmp_path, path, *typed, wrong)
    with pytest.raises(UserError, match="wrong_class is made from itself"):
        compared(tmp_path, path, *typed, "reference=wrong_class", "++explainers.wrong_class.of=wrong_class")
    small = written(tmp_path / "other", "cnn_tiny", image_size=28)
    with pytest.raises(
        UserError, match="takes images of 28 px, and the classifier of 42 px: they have to see the same"
    ):
        compared(tmp_path, path, *typed, f"judge={small}")


GIVEN = {"name": "pictures", "path": "photos", "size": 8}


def test_classes_are_those_of_the_file_of_imagenet_or_given(tmp_path: Path) -> None:
    params = build(CnnParams, plain("model=cnn_tiny")["model"], "model")
    files.write(
        tmp_path / "c.safetensors", params.build(2), describe(params, "classifier", "mine", ("cat", "dog"), seed=0)
    )
    assert with_classes(GIVEN, str(tmp_path / "c.safetensors"))["classes"] == ("cat", "dog")
    assert with_classes(GIVEN, None)["classes"] == published_classes()
    named = {**GIVEN, "classes": ["x", "y"]}
    assert with_classes(named, str(tmp_path / "c.safetensors")) == named
    assert with_classes({"name": "folder"}, None) == {"name": "folder"}


@pytest.mark.parametrize(
    ("data", "expected"),
    [("pictures", ["cat", "dog"]), ("photos", ["cat", "dog"]), ("folder", None)],
)
def test_names_that_unlabelled_data_are_given_are_the_classifiers(
    data: str, expected: list[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xai.tasks.compare.load_named", lambda model, file, classes, device: classes)
    model = NamedParams("net", 28, 7, (0.5,) * 3, (0.5,) * 3, architecture="resnet18")
    asked: Any = SimpleNamespace(
        model=model, checkpoint=None, classes=None, data={"name": data, "classes": ["cat", "dog"]}, trainer=CPU
    )
    assert _named(asked) == expected


def test_classes_that_are_called_as_their_folders_are_those_of_the_data() -> None:
    params = NamedParams("net", 28, 7, (0.5,) * 3, (0.5,) * 3, architecture="resnet18")
    asked: Any = SimpleNamespace(model=params, checkpoint=None, classes="names.txt")
    data: Any = SimpleNamespace(name="folder", source=SimpleNamespace(classes=("hot dog", "other")))

    def explained(*names: str) -> Any:
        model: Any = SimpleNamespace(name="net", classes=names, image_size=28, mean=params.mean, network=None)
        return _explained(model, asked, data)

    assert explained("hot_dog", "other").classes == ("hot dog", "other")
    # A CLIP is asked by its names, so what it says is kept apart.
    assert explained("hot_dog", "other").identity != explained("hot dog", "other").identity
    assert "they have to be the same" in refusal(explained, "other", "hot_dog")
