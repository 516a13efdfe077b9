import captum.attr
import pytest
import torch

from tests.explainers.networks import CASES, TARGETS, Answers, patches
from tests.explainers.settings import explainer


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("output", ["logit", "probability"])
def test_it_is_captums_saliency_of_pixels_and_their_mean_within_patches(name: str, output: str) -> None:
    case = CASES[name]()
    absolute = captum.attr.Saliency(Answers(case, output)).attribute(case.images.clone().requires_grad_(), TARGETS)
    pixels, maps = (
        explainer("saliency", case.model, output=output, resolution=resolution).attribute(case.images, TARGETS)
        for resolution in ("pixel", "patch")
    )
    torch.testing.assert_close(pixels, absolute.amax(1), rtol=1e-8, atol=1e-10)
    within = [[float(patch.mean()) for patch in image] for image in patches(case, absolute.amax(1))]
    assert maps.shape == (4, *case.model.grid)
    torch.testing.assert_close(maps.flatten(1), torch.tensor(within, dtype=torch.float64), rtol=1e-8, atol=1e-10)


def test_each_class_has_its_own_map() -> None:
    case = CASES["registers"]()
    maps = [explainer("saliency", case.model).attribute(case.images[:1], torch.tensor([c]))[0] for c in range(5)]
    spread = torch.stack(maps).std(0) / torch.stack(maps).mean(0)
    assert spread.mean() > 0.1
