"""What explainers by gradients share: batches that fit, a classifier that stays as it is, precision, refusals."""

import math
from typing import Any

import captum.attr
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tests.explainers.networks import CASES, TARGETS, Answers, Case, check_maps, clip, cnn
from tests.explainers.settings import explainer
from xai.core.errors import UserError
from xai.explainers.posthoc import gradients
from xai.explainers.posthoc.gradients import by_patch, images_at_once
from xai.explainers.rows import load_row

BOTH = pytest.mark.parametrize("name", ["saliency", "integrated_gradients"])


def passes(case: Case) -> list[int]:
    """How many images are normalised each time, in a list that grows."""
    seen: list[int] = []
    case.model(case.images[:1])  # the fast pass is compared with the network's own at its first use
    case.model.normalisation.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
    return seen


@BOTH
@pytest.mark.parametrize("family", CASES)
def test_images_pass_in_batches_that_fit_and_the_maps_do_not_tell(
    name: str, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {} if name == "saliency" else {"steps": 5}
    expected = explainer(name, CASES[family]().model, **steps).attribute(CASES[family]().images, TARGETS)
    for fitting, saliency, integrated in (
        (1.5, [1] * 4, [1] * 20),
        (3, [3, 1], [3] * 5 + [3, 2]),
        (8, [4], [8, 8, 4]),
        (99, [4], [20]),
    ):
        case = CASES[family]()
        monkeypatch.setitem(gradients._PIXELS_AT_ONCE, "cpu", int(fitting * case.images[0, 0].numel()))
        seen = passes(case)
        maps = explainer(name, case.model, **steps).attribute(case.images, TARGETS)
        torch.testing.assert_close(maps, expected)
        # Every other one is what removed patches would show.
        assert seen[::2] == (saliency if name == "saliency" else integrated)


@pytest.mark.parametrize("name", ["blur_ig", "rise_smooth", "smoothgrad", "smoothgrad_squared", "vargrad"])
def test_how_many_pass_at_once_changes_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = cnn()
    few: dict[str, Any] = {"blur_ig": {"steps": 5}, "rise_smooth": {"masks": 20}}.get(name, {"samples": 5})
    row = load_row(name, {name: few})
    ours = row.entry.build(case.model, row.params)
    expected = ours.attribute(case.images, TARGETS)
    for images in (1, 3, 9):
        monkeypatch.setitem(gradients._PIXELS_AT_ONCE, "cpu", images * case.images[0, 0].numel())
        torch.testing.assert_close(ours.attribute(case.images, TARGETS), expected)


@pytest.mark.parametrize(("device", "images"), [("cpu", 10), ("meta", 41)])
def test_a_pass_has_as_many_images_as_its_device_holds_and_never_none(device: str, images: int) -> None:
    assert images_at_once(torch.empty(1, 3, 224, 224, device=device)) == images
    assert images_at_once(torch.empty(1, 3, 4096, 4096, device=device)) == 1


def test_a_caller_in_inference_mode_gets_maps_of_a_convolutional_network_too() -> None:
    expected = explainer("saliency", cnn().model).attribute(cnn().images, TARGETS)
    with torch.inference_mode():
        case = cnn()
        within = explainer("saliency", case.model).attribute(case.images, TARGETS.clone())
    torch.testing.assert_close(within, expected)


@BOTH
@pytest.mark.parametrize("output", ["logit", "probability"])
def test_brain_floats_come_close(name: str, output: str) -> None:
    case = CASES["registers"]()
    expected = explainer(name, case.model, output=output).attribute(case.images, TARGETS)
    model, images = case.model.float(), case.images.float()
    with torch.autocast("cpu", torch.bfloat16):
        mixed = explainer(name, model, output=output).attribute(images, TARGETS)
    half = explainer(name, model.bfloat16(), output=output).attribute(images.bfloat16(), TARGETS)
    for maps in (mixed, half):
        assert maps.dtype == torch.float32
        assert 0 < (maps - expected).abs().mean() < 0.1 * expected.abs().mean()


@BOTH
def test_under_float16_the_gradients_are_those_of_float32(name: str) -> None:
    case = CASES["registers"]()
    model, images = case.model.float(), case.images.float()
    expected = explainer(name, model).attribute(images, TARGETS)
    with torch.autocast("cpu", torch.float16):
        assert torch.equal(explainer(name, model).attribute(images, TARGETS), expected)


@pytest.mark.parametrize("name", ["saliency", "integrated_gradients", "grad_cam"])
@pytest.mark.parametrize(("images", "targets"), [(2, [1]), (2, [1, 2, 3]), (0, [])])
def test_one_class_for_each_image(name: str, images: int, targets: list[int]) -> None:
    case = clip()
    with pytest.raises(ValueError, match=rf"\[{images}, 3, 16, 16\] and targets \[{len(targets)}\]"):
        explainer(name, case.model).attribute(case.images[:images], torch.tensor(targets, dtype=torch.long))


def test_patches_are_cut_row_by_row() -> None:
    pixels = torch.arange(48).reshape(2, 4, 6)
    cut = by_patch(pixels, (2, 3))
    assert cut.shape == (2, 2, 3, 2, 2)
    assert cut[1, 1, 2].tolist() == pixels[1, 2:, 4:].tolist()


@pytest.mark.parametrize("grid", [(3, 3), (2, 4)])
def test_a_grid_that_does_not_divide_the_image_is_refused(grid: tuple[int, int]) -> None:
    with pytest.raises(UserError, match=rf"^a grid of {grid[0]} x {grid[1]} does not divide an image of 4 x 6$"):
        by_patch(torch.zeros(1, 4, 6), grid)


@BOTH
@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0])
@pytest.mark.parametrize("family", ["oblong", "cnn"])
def test_maps_of_pixels_are_smoothed_by_a_gaussian(name: str, sigma: float, family: str) -> None:
    case = CASES[family]()
    raw, maps = (
        explainer(name, case.model, resolution="pixel", sigma=s).attribute(case.images, TARGETS) for s in (0, sigma)
    )
    expected = [gaussian_filter(one, sigma, mode="mirror", radius=math.ceil(3 * sigma)) for one in raw.numpy()]
    np.testing.assert_allclose(maps.numpy(), np.stack(expected), rtol=1e-9, atol=1e-12)
    assert (maps - raw).abs().amax() > 0.05 * raw.abs().amax()


@BOTH
def test_smoothing_is_not_in_half_precision(name: str) -> None:
    case = CASES["registers"]()
    model, images = case.model.float(), case.images.float()
    with torch.autocast("cpu", torch.bfloat16):
        raw, maps = (
            explainer(name, model, resolution="pixel", sigma=sigma).attribute(images, TARGETS) for sigma in (0.0, 1.0)
        )
    assert raw.dtype == maps.dtype == torch.float32
    expected = [gaussian_filter(one.double(), 1, mode="mirror", radius=3) for one in raw]
    np.testing.assert_allclose(maps.numpy(), np.stack(expected), atol=1e-6 * raw.abs().max().item())


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("output", ["logit", "probability"])
def test_saliency_is_captums_of_pixels_and_their_mean_within_patches(name: str, output: str) -> None:
    case = CASES[name]()
    absolute = captum.attr.Saliency(Answers(case, output)).attribute(case.images.clone().requires_grad_(), TARGETS)
    check_maps(case, "saliency", absolute.amax(1), "mean", output=output)


def by_captum(case: Case, output: str, start: str) -> Tensor:
    """Captum's input times gradient has a black baseline; another one is taken off the factor, not off the image."""
    images = case.images.clone().requires_grad_()
    product = captum.attr.InputXGradient(Answers(case, output)).attribute(images, TARGETS)
    if start == "black":
        return product.detach().sum(1)
    slopes = (product / images).detach()
    levels = case.mean if start == "mean" else (0.25, 0.25, 0.25)
    return ((case.images - torch.tensor(levels).double().reshape(3, 1, 1)) * slopes).sum(1)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("output", "start"), [("logit", "black"), ("probability", "mean"), ("logit", "0.25")])
def test_input_times_gradient_is_captums_measured_from_the_baseline(name: str, output: str, start: str) -> None:
    case = CASES[name]()
    expected = by_captum(case, output, start)
    check_maps(case, "input_x_gradient", expected, "sum", 1e-7, 1e-9, output=output, baseline=start)
