"""A convolutional classifier as an artifact: trained, published, or the user's own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.classifiers.studying import CLASSIFIER, PHOTOGRAPHS, STEP, Trained
from tests.classifiers.tiny import DATA, FIT, runtime
from xai.classifiers.networks import ClassifierStages
from xai.classifiers.params import ClassifierParams
from xai.core.errors import UserError
from xai.models import files
from xai.models.cnn import CnnParams
from xai.models.spec import describe

MODEL = CnnParams("tiny", 16, 4, (0.5,) * 3, (0.25,) * 3, "test_efficientnet", output_stride=8)
CLASSES = ("north", "east", "south", "west")
TEST = DATA.source.images("test", torch.arange(9), 0).pixels


def stages(folder: Path, **changes: Any) -> ClassifierStages:
    return replace(ClassifierStages(runtime(folder), MODEL, DATA, CLASSIFIER, 0), **changes)


def tensors(stage: ClassifierStages) -> dict[str, Tensor]:
    return load_file(stage.classifier.file("classifier.safetensors"))


def published(folder: Path, seed: int = 5) -> CnnParams:
    """The model with published weights in a file: of ImageNet's 1000 classes."""
    save_file(MODEL.build(1000, seed).state_dict(), folder / "published.safetensors")
    return replace(MODEL, weights=str(folder / "published.safetensors"))


def assert_moved(found: dict[str, Tensor], start: dict[str, Tensor]) -> None:
    """That a training which takes no time started there: it adds a step to parameters, and none to statistics."""
    assert found.keys() == start.keys()
    for name, value in start.items():
        statistic = "running" in name or "tracked" in name
        torch.testing.assert_close(found[name], value if statistic else value + STEP, msg=name)


def test_it_is_trained_from_nothing_where_there_are_no_weights(tmp_path: Path, trained: Trained) -> None:
    assert_moved(tensors(stages(tmp_path)), MODEL.build(4, 0).state_dict())
    assert stages(tmp_path).classifier.key == stages(tmp_path).classifier.key
    assert trained.names == ["Classifier"]


def test_it_starts_from_a_published_body_and_a_head_of_its_own(tmp_path: Path, trained: Trained) -> None:
    model = published(tmp_path)
    body, own = load_file(model.weights or ""), MODEL.build(4, 0).state_dict()
    start = {name: own[name] if name.startswith("classifier.") else body[name] for name in own}
    assert_moved(tensors(stages(tmp_path, model=model)), start)
    published(tmp_path, seed=6)
    assert stages(tmp_path, model=model).classifier.path
    assert trained.names == ["Classifier", "Classifier"]


def test_a_published_network_is_taken_as_it_is_where_the_classes_are_its_own(tmp_path: Path, trained: Trained) -> None:
    model = published(tmp_path)
    stage = stages(tmp_path, model=model, data=PHOTOGRAPHS)
    found, given = tensors(stage), load_file(model.weights or "")
    assert all(torch.equal(found[name], given[name]) for name in given)
    other = replace(CLASSIFIER, focus=0.25, fit=replace(FIT, epochs=9))
    assert replace(stage, classifier_params=other).classifier.key == stage.classifier.key
    assert trained.journal == []
    assert len(tensors(replace(stage, model=MODEL))["classifier.bias"]) == 1000
    assert trained.names == ["Classifier"]


def test_a_classifier_of_the_users_own_is_taken_as_it_is(tmp_path: Path, trained: Trained) -> None:
    theirs = MODEL.build(4, 9)
    files.write(tmp_path / "own", theirs, describe(MODEL, "classifier", "elsewhere", CLASSES))
    save_file(theirs.state_dict(), tmp_path / "timm")
    for name in ("own", "timm"):
        found = tensors(stages(tmp_path, classifier_params=replace(CLASSIFIER, checkpoint=str(tmp_path / name))))
        assert all(torch.equal(found[name], value) for name, value in theirs.state_dict().items())
    files.write(tmp_path / "own", theirs, describe(MODEL, "classifier", "elsewhere", CLASSES[::-1]))
    with pytest.raises(UserError, match="a classifier of the 4 classes of data=shades is needed"):
        stages(tmp_path, classifier_params=replace(CLASSIFIER, checkpoint=str(tmp_path / "own"))).classifier  # noqa: B018
    assert trained.journal == []


def test_what_is_trained_is_handed_over_and_answers(tmp_path: Path, trained: Trained) -> None:
    stage = stages(tmp_path)
    held = stage.hand_over("classifier", tmp_path)
    assert files.read_spec(held) == describe(MODEL, "classifier", "shades", CLASSES, seed=stage.seed)
    plain = MODEL.build(4, 3)
    plain.load_state_dict(load_file(held))
    network = stage.network("classifier")
    torch.testing.assert_close(network(TEST), plain.eval()((TEST - 0.5) / 0.25), rtol=1e-4, atol=1e-4)
    assert not network.training
    assert not any(value.requires_grad for value in network.parameters())
    assert set(stage.validation_accuracy("classifier")) == {"whole images", "half of the patches"}


def test_the_training_itself(tmp_path: Path) -> None:
    stage = stages(tmp_path, classifier_params=ClassifierParams(0.5, replace(FIT, epochs=15)))
    accuracy = stage.validation_accuracy("classifier")["whole images"]
    assert accuracy > 0.5
    start = MODEL.build(4, 0).state_dict()
    assert not torch.equal(tensors(stage)["bn1.running_mean"], start["bn1.running_mean"])
