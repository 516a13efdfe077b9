"""What comes in from outside is understood when it is said what it is, and refused in one line otherwise."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import xai
from tests.api.networks import MEAN, SIZE, STD, Plain, Returns, images, normalised, vit
from xai.core.errors import UserError
from xai.models.maskable import Removal


def wrapped(network: nn.Module, **settings: Any) -> Any:
    return xai.wrap(network, **{"mean": MEAN, "std": STD, "image_size": SIZE, "grid": (4, 4), **settings})


def line(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_network_is_asked_as_it_was_trained_and_stays_as_it_is() -> None:
    network = Plain().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = wrapped(network).predict(images())
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    torch.testing.assert_close(found, network.eval()(normalised(images())).softmax(1))


@pytest.mark.parametrize(
    ("form", "output"),
    [
        (lambda logits: {"logits": logits, "loss": logits.sum()}, "logits"),
        (lambda logits: (logits, None), 0),
        (lambda logits: [None, {"deep": logits}], lambda found: found[1]["deep"]),
    ],
)
def test_logits_within_what_is_returned_are_found_where_it_is_said(form: Any, output: Any) -> None:
    expected = Plain().eval()(normalised(images())).softmax(1)
    torch.testing.assert_close(wrapped(Returns(form), output=output).predict(images()), expected)


def test_probabilities_that_are_said_to_be_are_undone() -> None:
    expected = Plain().eval()(normalised(images())).softmax(1)
    model = wrapped(Returns(lambda logits: logits.softmax(1)), probabilities=True)
    torch.testing.assert_close(model.predict(images()), expected)


@pytest.mark.parametrize("form", [lambda logits: logits, lambda logits: logits[:, 0]])
def test_one_logit_is_a_binary_classifier_whose_second_class_is_the_positive_one(form: Any) -> None:
    positive = Plain(outputs=1).eval()(normalised(images()))[:, 0].sigmoid()
    model = wrapped(Returns(form, outputs=1), classes=["no", "yes"])
    torch.testing.assert_close(model.predict(images()), torch.stack([1 - positive, positive], 1))
    maps = {name: xai.explain(model, images(), "saliency", targets=name) for name in ("no", "yes")}
    torch.testing.assert_close(maps["no"], maps["yes"])  # sizes of gradients of z / 2 and - z / 2
    shapley = {name: xai.explain(model, images(), "exact_shapley", targets=name) for name in ("no", "yes")}
    torch.testing.assert_close(shapley["no"], -shapley["yes"], atol=1e-5, rtol=1e-4)


def test_a_network_of_grey_images_gets_the_luminance() -> None:
    model = wrapped(Plain(channels=1), channels=1, mean=0.0 * torch.ones(3), std=(1, 1, 1))
    grey = (images() * torch.tensor([0.299, 0.587, 0.114]).reshape(3, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(model.predict(images()), Plain(channels=1).eval()(grey).softmax(1))


def test_half_precision_is_asked_in_its_own() -> None:
    model = wrapped(Plain().to(torch.bfloat16))
    torch.testing.assert_close(model.predict(images()), wrapped(Plain()).predict(images()), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(
    ("network", "settings", "said"),
    [
        (Returns(lambda logits: {"logits": logits}), {}, "dict of logits"),
        (Returns(lambda logits: {"logits": logits}), {"output": "scores"}, "scores"),
        (Returns(lambda logits: logits[:, :, None]), {}, r"3, 1"),
        (Returns(lambda logits: logits.softmax(1)), {}, "probabilities=True"),
        (Returns(lambda logits: logits * float("nan")), {}, "NaN"),
        (Returns(lambda logits: logits - logits.mean(0)), {}, "another batch"),
        (Plain(channels=1), {}, "channels=1"),
        (Plain(channels=4), {}, "4 channels"),
        (Plain(), {"classes": ["a"]}, "1 classes"),
        (Plain(), {"classes": ["a", "a", "b"]}, "twice"),
        (Plain(), {"mean": None}, "mean="),
        (Plain(), {"std": (1, 0, 1)}, "std="),
        (Plain(), {"grid": (5, 5)}, "grid="),
        (Plain(), {"removal": "purple"}, "purple"),
        (Plain(), {"removal": "tokens"}, "tokens"),
        ("a network", {}, "Module"),
    ],
)
def test_what_cannot_be_explained_is_refused_in_a_line(network: Any, settings: dict[str, Any], said: str) -> None:
    assert said in line(lambda: wrapped(network, **settings))


def test_the_fast_pass_of_a_transformer_is_taken_only_where_it_is_the_networks_own() -> None:
    network = vit()
    assert type(xai.wrap(network, image_size=SIZE).network()).__name__ == "MaskableVit"
    network.blocks[3].register_forward_hook(lambda module, inputs, output: 2 * output)
    model = xai.wrap(network, image_size=SIZE)
    pixels = normalised(images(), model.mean, model.std)
    torch.testing.assert_close(model.predict(images()), network(pixels).softmax(1))
    keep = torch.rand(2, model.network().players) < 0.5
    grey = model.network(Removal("pixels", "mean"))
    assert not torch.allclose(grey(images(), keep), grey(images()))


@pytest.mark.parametrize(
    "given",
    [
        lambda pixels: pixels,
        lambda pixels: (255 * pixels).round().to(torch.uint8),
        lambda pixels: (255 * pixels).round().to(torch.uint8).permute(0, 2, 3, 1).numpy(),
        lambda pixels: [
            Image.fromarray(each) for each in (255 * pixels.permute(0, 2, 3, 1).numpy() + 0.5).astype("uint8")
        ],
        lambda pixels: list((255 * pixels).round().to(torch.uint8)),
        lambda pixels: pixels.double().numpy(),
    ],
)
def test_images_of_any_kind_are_the_same_images(given: Callable[[Tensor], Any]) -> None:
    model = wrapped(Plain())
    found = model.pixels(given(images()))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, images(), atol=0.5 / 255 + 1e-6, rtol=0)


def test_a_file_is_a_picture(tmp_path: Any) -> None:
    Image.fromarray((255 * np.random.default_rng(0).random((SIZE, SIZE, 3))).astype("uint8")).save(tmp_path / "a.png")
    assert wrapped(Plain()).pixels(tmp_path / "a.png").shape == (1, 3, SIZE, SIZE)


def test_normalised_floats_are_brought_back() -> None:
    model = wrapped(Plain())
    torch.testing.assert_close(model.pixels(normalised(images()), normalised=True), images(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (normalised(images()), "normalised=True"),
        (255 * images(), "255"),
        (images().to(torch.int64), "int64"),
        (images()[:, :1], "three channels"),
        (images()[..., :16], "32 x 32"),
        (images() * float("nan"), "NaN"),
        ([], "no images"),
        (images()[:0], "give"),
        ("nowhere.png", "nowhere.png"),
        (3, "int"),
        ([1, 2], "list of int"),
    ],
)
def test_images_that_would_be_misread_are_refused(given: Any, said: str) -> None:
    assert said in line(lambda: wrapped(Plain()).pixels(given))


@pytest.mark.parametrize("target", [99, -1, 1.5, True, "dog", [0], [0, 1, 2], torch.tensor([0, 3])])
def test_targets_that_there_are_not_are_refused(target: Any) -> None:
    model = wrapped(Plain(), classes=["cat", "cow", "fox"])
    line(lambda: xai.explain(model, images(), "saliency", targets=target))


def test_numbers_and_names_of_targets_are_the_same() -> None:
    model = wrapped(Plain(), classes=["cat", "cow", "fox"])
    maps = [xai.explain(model, images(), "saliency", targets=each) for each in (2, "fox", [2, 2], torch.tensor([2, 2]))]
    assert all(torch.equal(each, maps[0]) for each in maps)
