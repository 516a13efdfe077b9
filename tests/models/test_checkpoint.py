import json
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.models.tiny_clip import CLASSES, PARAMS, TOWERS, classifier, pictures
from xai.core.errors import UserError
from xai.models.checkpoint import (
    ClassifierInfo,
    architecture_hash,
    read_classifier,
    read_parameters,
    write_classifier,
)
from xai.models.clip import SelfExplainingClip, trainable
from xai.models.maskable import Removal

INFO = ClassifierInfo("tiny", "0" * 16, "f" * 16, "digits", ("a", "b", "c", "d", "e"), True)


def network() -> SelfExplainingClip:
    return classifier().float()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_classifier(tmp_path / "model.safetensors", network(), INFO)
    return tmp_path / "model.safetensors"


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, Any]], object]) -> None:
    """Edit tensors and metadata in place, as a stranger might."""
    tensors = load_file(path)
    with safe_open(path, framework="pt") as opened:
        metadata = opened.metadata()
    change(tensors, metadata)
    save_file(tensors, path, metadata or None)


def refusal(read: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        read()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_classifier_makes_the_round_trip(file: Path) -> None:
    model, info = read_classifier(file, PARAMS, Removal("tokens"))
    assert info == INFO
    assert model.removal == Removal("tokens")
    assert not model.training
    assert not any(value.requires_grad for value in model.parameters())
    images, original = pictures(3).float(), network()
    for found, expected in zip(model.explain(images), original.explain(images), strict=True):
        assert torch.equal(found, expected)
    assert all(torch.equal(value, original.state_dict()[name]) for name, value in model.state_dict().items())


def test_parameters_are_the_visual_tower_and_the_file_needs_no_metadata(file: Path) -> None:
    parameters, info = read_parameters(file, PARAMS)
    assert info == INFO
    expected = trainable(network())
    assert parameters.keys() == expected.keys()
    assert all(torch.equal(parameters[name], expected[name]) for name in expected)
    # Another's checkpoint of the whole CLIP serves as well, as a torch file too.
    state = {**parameters, "text_projection": torch.zeros(2), "logit_scale": torch.tensor(1.0)}
    torch.save(state, file.with_name("foreign.pt"))
    foreign, info = read_parameters(file.with_name("foreign.pt"), PARAMS)
    assert info is None
    assert foreign.keys() == expected.keys()
    assert "does not say which classes" in refusal(lambda: read_classifier(file.with_name("foreign.pt"), PARAMS))


def test_models_of_the_same_shapes_share_their_architecture_hash() -> None:
    theta = trainable(network())
    assert architecture_hash(theta) == architecture_hash(dict(reversed([(n, v + 1) for n, v in theta.items()])))
    assert len(architecture_hash(theta)) == 16
    assert architecture_hash(theta) != architecture_hash({**theta, "visual.more": torch.zeros(1)})
    assert architecture_hash(theta) != architecture_hash({**theta, "visual.proj": theta["visual.proj"].T})


def test_another_architecture_is_refused(file: Path) -> None:
    wide = replace(PARAMS, name="wide", towers=replace(TOWERS, width=24))
    message = refusal(lambda: read_classifier(file, wide))
    assert "model.safetensors" in message
    assert "wide" in message
    deep = replace(PARAMS, name="deep", towers=replace(TOWERS, layers=3))
    assert "missing" in refusal(lambda: read_classifier(file, deep))


def test_missing_keys_and_numbers_that_are_none_are_refused(file: Path) -> None:
    rewrite(file, lambda tensors, _: tensors.pop("visual.proj"))
    assert "visual.proj" in refusal(lambda: read_classifier(file, PARAMS))
    write_classifier(file, network(), INFO)
    rewrite(file, lambda tensors, _: tensors["visual.proj"].__setitem__((0, 0), torch.nan))
    assert "visual.proj" in refusal(lambda: read_classifier(file, PARAMS))
    write_classifier(file, network(), INFO)
    rewrite(file, lambda tensors, _: tensors["head"].fill_(torch.inf))
    assert "head" in refusal(lambda: read_classifier(file, PARAMS))
    assert "no visual tower" in refusal(lambda: _only_text(file))
    assert "nowhere" in refusal(lambda: read_classifier(file.with_name("nowhere"), PARAMS))


def _only_text(file: Path) -> None:
    save_file({"text_projection": torch.zeros(2)}, file)
    read_classifier(file, PARAMS)


def test_heads_and_scales_that_do_not_fit_are_refused(file: Path) -> None:
    rewrite(file, lambda tensors, _: tensors.pop("head"))
    assert "does not say which classes" in refusal(lambda: read_classifier(file, PARAMS))
    write_classifier(file, network(), replace(INFO, classes=("a", "b")))
    assert f"head of shape [12, {CLASSES}], but names 2 classes" in refusal(lambda: read_classifier(file, PARAMS))
    write_classifier(file, network(), INFO)
    rewrite(file, lambda tensors, _: tensors.update(logit_scale=torch.ones(2)))
    assert "logit_scale of shape [2]" in refusal(lambda: read_classifier(file, PARAMS))


def test_a_vector_is_no_classifier(file: Path) -> None:
    rewrite(file, lambda _, metadata: metadata.update({"xai.vector": "{}"}))
    assert "is an explainability vector, not a classifier" in refusal(lambda: read_classifier(file, PARAMS))


GOOD = asdict(INFO)
EDITED = {
    "no JSON": "{",
    "a list": "[]",
    "a number": "5",
    "null": "null",
    "deep": "[" * 100_000,
    "a key less": json.dumps({name: value for name, value in GOOD.items() if name != "base"}),
    "a key more": json.dumps({**GOOD, "owner": "me"}),
    "classes a text": json.dumps({**GOOD, "classes": "abcde"}),
    "classes numbers": json.dumps({**GOOD, "classes": [1, 2, 3, 4, 5]}),
    "classes null": json.dumps({**GOOD, "classes": None}),
    "explains a text": json.dumps({**GOOD, "explains": "no"}),
    "model a number": json.dumps({**GOOD, "model": 3}),
}


@pytest.mark.parametrize("text", EDITED.values(), ids=EDITED.keys())
def test_edited_metadata_is_refused(file: Path, text: str) -> None:
    rewrite(file, lambda _, metadata: metadata.update({"xai.classifier": text}))
    assert "its metadata cannot be read" in refusal(lambda: read_classifier(file, PARAMS))
