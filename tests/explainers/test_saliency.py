import captum.attr
import pytest
import torch
from torch import Tensor

from tests.explainers.networks import CASES, TARGETS, Answers, Case, patches
from tests.explainers.settings import explainer


def by_captum(case: Case, output: str) -> Tensor:
    """Captum's absolute gradients; the largest of a pixel's channels, the mean of a patch's pixels."""
    absolute = captum.attr.Saliency(Answers(case, output)).attribute(case.images.clone().requires_grad_(), TARGETS)
    expected = [[float(patch.mean()) for patch in image] for image in patches(case, absolute.amax(1))]
    return torch.tensor(expected, dtype=torch.float64)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("output", ["logit", "probability"])
def test_it_is_captums_saliency_within_patches(name: str, output: str) -> None:
    case = CASES[name]()
    maps = explainer("saliency", case.model, output=output).attribute(case.images, TARGETS)
    assert maps.shape == (4, *case.model.grid)
    torch.testing.assert_close(maps.flatten(1), by_captum(case, output), rtol=1e-8, atol=1e-10)


def test_each_class_has_its_own_map() -> None:
    case = CASES["registers"]()
    maps = [explainer("saliency", case.model).attribute(case.images[:1], torch.tensor([c]))[0] for c in range(5)]
    spread = torch.stack(maps).std(0) / torch.stack(maps).mean(0)
    assert spread.mean() > 0.1


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("output", ["logit", "probability"])
def test_at_the_resolution_of_pixels_it_is_captums_own(name: str, output: str) -> None:
    case = CASES[name]()
    maps = explainer("saliency", case.model, output=output, resolution="pixel").attribute(case.images, TARGETS)
    expected = captum.attr.Saliency(Answers(case, output)).attribute(case.images.clone().requires_grad_(), TARGETS)
    torch.testing.assert_close(maps, expected.amax(1), rtol=1e-8, atol=1e-10)
