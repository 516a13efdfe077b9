"""Explainers as objects: ours called as Captum and Quantus call them, and those that users bring."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import xai
from tests.api.networks import MEAN, SIZE, STD, Plain, images, normalised
from tests.toolbox import refusal
from xai.api.case import workplace
from xai.core.errors import UserError
from xai.explainers import registry
from xai.explainers.controls.position_prior import SameMap
from xai.explainers.learned.networks import ExplainingClassifier
from xai.models.dense import DenseExplainer

TARGETS = torch.tensor([2, 0])


@pytest.fixture(scope="module")
def model() -> Any:
    return xai.wrap(Plain(), mean=MEAN, std=STD, image_size=SIZE, grid=(4, 4), classes=["cat", "cow", "fox"])


@pytest.mark.parametrize("name", ["grad_cam", "saliency", "rise", "random"])
def test_ours_are_called_by_captums_names(model: Any, name: str) -> None:
    made = xai.explainer(model, name, **({"masks": 16} if name == "rise" else {}))
    expected = made.attribute(images(), TARGETS)
    assert torch.equal(made.attribute(inputs=images(), target=TARGETS), expected)
    assert torch.equal(made.attribute(images(), target=2)[:1], made.attribute(images(), torch.tensor([2, 2]))[:1])
    with pytest.raises(TypeError, match="either images or inputs"):
        made.attribute(target=TARGETS)
    with pytest.raises(TypeError, match="either targets or target"):
        made.attribute(images(), TARGETS, target=TARGETS)
    for target, said in ((-1, "target -1"), (3, "target 3"), (torch.tensor([0, 1, 2]), "3 targets for 2 images")):
        assert said in refusal(made.attribute, images(), target)


def test_classes_may_be_called_by_their_names(model: Any) -> None:
    made = xai.explainer(model, "saliency")
    expected = made.attribute(images(), TARGETS)
    for names in (["fox", "cat"], ("fox", 0), np.array(["fox", "cat"])):
        assert torch.equal(made.attribute(images(), names), expected)
        assert torch.equal(made.attribute(inputs=images(), target=names), expected)
    assert torch.equal(made.attribute(images(), target="fox"), made.attribute(images(), 2))
    assert torch.equal(xai.explain(model, images(), "saliency", targets=["fox", "cat"]), expected)
    named = made(Plain().eval(), images().numpy(), ["fox", "cat"])
    np.testing.assert_array_equal(named, made(Plain().eval(), images().numpy(), TARGETS.numpy()))
    asks: list[Callable[[str], Any]] = [
        lambda name: made.attribute(images(), target=name),
        lambda name: made.attribute(images(), [name, "cat"]),
        lambda name: xai.explain(model, images(), "saliency", targets=name),
        lambda name: xai.compare(model, images(), [name, "cat"], explainers="saliency"),
        lambda name: xai.fit("fast_shap", model, images(), [name, "cat"]),
    ]
    for ask in asks:
        assert refusal(ask, "fx") == "target 'fx' is not a known class: did you mean fox?"
    assert "1 targets for 2 images" in refusal(made.attribute, images(), ["fox"])


@pytest.mark.parametrize("target", ["fox", ["fox", "cat"]])
def test_an_explainer_that_knows_no_names_says_so(target: Any) -> None:
    with pytest.raises(UserError, match=r"target=.*fox.* knows classes by their numbers"):
        SameMap(torch.zeros(4, 4)).attribute(images(), target=target)


def test_images_that_are_normalised_are_so_where_it_is_said(model: Any) -> None:
    made, given = xai.explainer(model, "saliency_pixels"), normalised(images())
    found = made.attribute(inputs=given, target=TARGETS, normalised=True)
    torch.testing.assert_close(found, made.attribute(images(), TARGETS), rtol=1e-3, atol=1e-6)
    assert "say normalised=True" in refusal(made.attribute, inputs=given, target=TARGETS)
    whole = (255 * images()).round().to(torch.uint8)
    torch.testing.assert_close(made.attribute(whole, TARGETS), made.attribute(whole / 255, TARGETS))


@pytest.mark.parametrize("name", ["cpu", "cuda:1", "mps", "xpu:0"])
def test_what_is_asked_is_done_on_the_models_device(name: str) -> None:
    with workplace(torch.device(name)) as runtime:
        assert runtime.trainer.device == torch.device(name)


def test_so_is_every_explainer_there_is() -> None:
    classes = [registry.entry(name).of_classifier for name in registry.names()]
    classes += [SameMap, ExplainingClassifier, DenseExplainer]
    calls = [each.attribute for each in classes if hasattr(each, "attribute")]
    assert len(calls) > 12
    for call in calls:
        with pytest.raises(TypeError, match="as Captum calls it"):
            call(None, images(), TARGETS, target=TARGETS)


def test_rows_have_names_that_say_in_what_they_differ(model: Any) -> None:
    assert torch.equal(xai.explain(model, images(), "rise_8"), xai.explain(model, images(), "rise", masks=8))
    pixels = xai.explain(model, images(), "saliency_pixels")
    patches = xai.explain(model, images(), "saliency_pixels_pooled")
    torch.testing.assert_close(patches, torch.nn.functional.adaptive_avg_pool2d(pixels, (4, 4)))
    assert torch.equal(xai.explain(model, images(), "pooled", of="saliency_pixels"), patches)
    assert "grad_cam asks about no number" in refusal(xai.explain, model, images(), "grad_cam_16")


def test_they_are_captums_own_where_captum_has_them(model: Any) -> None:
    attr = pytest.importorskip("captum.attr")
    theirs = attr.Saliency(model.network()).attribute(images(), target=TARGETS)
    ours = xai.explainer(model, "saliency_pixels", output="logit", sigma=0.0).attribute(images(), target=TARGETS)
    torch.testing.assert_close(ours, theirs.abs().amax(1), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("given", ["pixels", "normalised"])
def test_quantus_calls_them(model: Any, given: str) -> None:
    quantus = pytest.importorskip("quantus", reason="the extra `quantus` is not installed")
    network = Plain().eval()
    inputs = normalised(images()) if given == "normalised" else images()
    explain = xai.explainer(model, "saliency_pixels", normalised=given == "normalised")
    call = {"x_batch": inputs.numpy(), "y_batch": TARGETS.numpy(), "device": "cpu", "explain_func": explain}
    found = quantus.Sparseness(disable_warnings=True, normalise=False)(model=network, **call)
    # Their Gini index of what they were handed, by its definition.
    maps = explain.attribute(images(), TARGETS).flatten(1).abs().double().sort().values
    rank = torch.arange(1, SIZE * SIZE + 1)
    gini = (maps * (2 * rank - SIZE * SIZE - 1)).sum(1) / (SIZE * SIZE * maps.sum(1))
    np.testing.assert_allclose(found, gini.numpy(), rtol=1e-3)


def test_a_call_by_quantus_convention_gives_pixels(model: Any) -> None:
    found = xai.explainer(model, "rise", masks=8)(None, images().numpy(), TARGETS.numpy(), device="cpu")
    assert isinstance(found, np.ndarray)
    assert found.shape == (2, 1, SIZE, SIZE)


@pytest.mark.parametrize("given", ["pixels", "normalised"])
def test_noise_of_a_metric_of_robustness_stays_in_the_images(model: Any, given: str) -> None:
    explain = xai.explainer(model, "saliency_pixels", normalised=given == "normalised")
    noisy = 2 * images() - 0.5  # out of [0, 1] on both sides
    inputs = normalised(noisy) if given == "normalised" else noisy
    found = explain(model=Plain().eval(), inputs=inputs.numpy(), targets=TARGETS.numpy())
    np.testing.assert_allclose(found[:, 0], explain.attribute(noisy, TARGETS).numpy(), rtol=1e-3, atol=1e-6)
    with pytest.raises(UserError, match="images are floats from"):
        explain(None, 2 * normalised(images()).numpy() if given == "pixels" else 99 * noisy.numpy(), TARGETS.numpy())
    quantus = pytest.importorskip("quantus", reason="the extra `quantus` is not installed")
    call = {"x_batch": inputs.numpy(), "y_batch": TARGETS.numpy(), "device": "cpu", "explain_func": explain}
    changes = quantus.MaxSensitivity(nr_samples=2, disable_warnings=True)(model=Plain().eval(), **call)
    assert all(change > 0 for change in changes)


def test_another_networks_weights_are_not_explained_in_silence(model: Any) -> None:
    """As Quantus' ModelParameterRandomisation hands them over, which would find no change at all."""
    other = Plain().eval()
    torch.nn.init.normal_(other.head.weight)
    explain, call = xai.explainer(model, "saliency_pixels"), (images().numpy(), TARGETS.numpy())
    explain(Plain().eval(), *call)
    with pytest.raises(UserError, match=r"other weights.*randomisation"):
        explain(other, *call)


def test_what_explains_another_network_is_refused_and_one_wrapped_twice_is_the_same(model: Any) -> None:
    how: dict[str, Any] = {"mean": MEAN, "std": STD, "image_size": SIZE, "grid": (4, 4)}
    trained, twice = Plain().eval(), xai.wrap(Plain(), **{**how, "grid": (2, 2), "removal": "black"})
    with torch.no_grad():
        trained.head.weight.add_(0.001)  # its answers are nearly the same
    made, first = (xai.explainer(each, "saliency_pixels") for each in (xai.wrap(trained, **how), model))
    assert torch.equal(xai.explain(twice, images(), first), xai.explain(model, images(), first))
    logits = {**how, "probabilities": False}
    cat, fox = (xai.wrap(Plain(), **logits, output=label) for label in (lambda of: of[:, [0]], lambda of: of[:, [2]]))
    asks: list[Callable[[], Any]] = [
        lambda: xai.explain(model, images(), made),
        lambda: xai.explainer(model, made),
        lambda: xai.compare(model, images(), explainers=made, metrics="deletion"),
        lambda: xai.compare(model, images(), explainers={"mine": made}, metrics="deletion"),
        lambda: xai.compare(model, images(), explainers="random", metrics="kendall", reference=made),
        lambda: xai.explain(xai.wrap(Plain(), **{**how, "mean": (0, 0, 0)}), images(), first),
        lambda: xai.explain(fox, images(), xai.explainer(cat, "saliency_pixels")),
    ]
    for ask in asks:
        assert refusal(ask).startswith("saliency_pixels of Plain explains another network than Plain: give the")


class Captums:
    def attribute(self, inputs: Any, target: Any = None) -> Any:
        return inputs.sum(1) * (1 + target[:, None, None])


class Ours:
    def attribute(self, images: Any, targets: Any) -> Any:
        return (images.sum(1) * (1 + targets[:, None, None])).numpy()


def test_those_of_users_get_pixels_whatever_came(model: Any) -> None:
    class Mine:
        def attribute(self, given: Any, targets: Any) -> Any:
            torch.testing.assert_close(given, images(), rtol=0, atol=1e-6)
            return given.mean(1)

    for given, said in ((normalised(images()), True), (images().numpy(), False)):
        assert xai.explain(model, given, Mine(), normalised=said).shape == (2, SIZE, SIZE)


def test_those_of_users_are_called_by_the_names_they_have(model: Any) -> None:
    found = [xai.explain(model, images(), each, targets=TARGETS) for each in (Captums(), Ours())]
    assert torch.equal(*found)
    torch.testing.assert_close(found[0], images().sum(1) * (1 + TARGETS[:, None, None]))
    frame = xai.compare(model, images(), explainers=Captums(), metrics="deletion")
    assert list(frame.explainer) == ["Captums", "Captums"]


@pytest.mark.parametrize(
    ("shape", "said"),
    [((2, 3, 8, 8), "of channels, add them up"), ((1, 4, 4), "[1, 4, 4] for 2 images"), ((2,), "[2, h, w]")],
)
def test_what_are_no_maps_is_refused(model: Any, shape: tuple[int, ...], said: str) -> None:
    class Wrong:
        def attribute(self, images: Any, targets: Any, generator: Any = None) -> Any:
            return torch.zeros(shape)

    assert said in refusal(xai.explain, model, images(), Wrong())


@pytest.mark.parametrize(
    ("value", "said"), [(torch.inf, "the maps of Wrong of rows 1 hold NaN or infinity: an explainer"), (1j, "complex")]
)
def test_maps_that_nobody_can_score_are_the_explainers_fault(model: Any, value: complex, said: str) -> None:
    class Wrong:
        def attribute(self, images: Any, targets: Any) -> Any:
            return torch.zeros(len(images), 4, 4, dtype=torch.tensor(value).dtype).index_fill(0, torch.tensor(1), value)

    for call in (lambda: xai.explain(model, images(), Wrong()), lambda: xai.compare(model, images(), None, [Wrong()])):
        assert said in refusal(call)
