"""Saliency and input times gradient, against captum's."""

import captum.attr
import pytest
import torch
from torch import Tensor

from tests.explainers.networks import CASES, TARGETS, Answers, Case, check_maps, clip
from tests.explainers.settings import explainer


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


def test_an_image_that_is_its_baseline_gets_nothing() -> None:
    case = clip()
    grey = torch.full_like(case.images, 0.25)
    maps = explainer("input_x_gradient", case.model, baseline="0.25").attribute(grey, TARGETS)
    assert maps.abs().max() == 0
    assert explainer("input_x_gradient", case.model, baseline="black").attribute(grey, TARGETS).abs().max() > 0
