import captum.attr
import pytest
import torch
from torch import Tensor

from tests.explainers.networks import CASES, TARGETS, Answers, Case, clip, patches
from tests.explainers.settings import explainer


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
def test_it_is_captums_measured_from_the_baseline(name: str, output: str, start: str) -> None:
    case = CASES[name]()
    settings = {"output": output, "baseline": start}
    pixels = explainer("input_x_gradient", case.model, resolution="pixel", **settings).attribute(case.images, TARGETS)
    expected = by_captum(case, output, start)
    torch.testing.assert_close(pixels, expected, rtol=1e-7, atol=1e-10)
    added_up = [[float(patch.sum()) for patch in image] for image in patches(case, expected)]
    maps = explainer("input_x_gradient", case.model, **settings).attribute(case.images, TARGETS)
    torch.testing.assert_close(maps.flatten(1), torch.tensor(added_up, dtype=torch.float64), rtol=1e-7, atol=1e-9)


def test_an_image_that_is_its_baseline_gets_nothing() -> None:
    case = clip()
    grey = torch.full_like(case.images, 0.25)
    maps = explainer("input_x_gradient", case.model, baseline="0.25").attribute(grey, TARGETS)
    assert maps.abs().max() == 0
    assert explainer("input_x_gradient", case.model, baseline="black").attribute(grey, TARGETS).abs().max() > 0
