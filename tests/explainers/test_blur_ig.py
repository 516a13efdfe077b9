import itertools

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tests.explainers.networks import CASES, TARGETS, Case, check_patches
from tests.explainers.settings import configured, explainer
from tests.toolbox import refusal
from xai.explainers.posthoc.integrated_gradients import blur_and_slope

LARGEST = 6.0


def blurred(images: Tensor, deviation: float) -> Tensor:
    """By scipy, a channel at a time, out to six deviations; none is the image itself."""
    reach = int(np.ceil(6 * deviation))
    if not reach:
        return images
    planes = [
        [gaussian_filter(plane, deviation, mode="constant", radius=reach) for plane in one] for one in images.numpy()
    ]
    return torch.from_numpy(np.array(planes))


@pytest.mark.parametrize("deviation", [0.02, 0.4, 1.0, 3.3, 50.0])
def test_the_blur_is_scipys_and_the_slope_its_derivative(deviation: float) -> None:
    images = torch.rand(2, 3, 8, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, slope = blur_and_slope(images, deviation)
    torch.testing.assert_close(found, blurred(images, deviation), rtol=1e-9, atol=1e-9)
    step = 1e-4 * deviation
    difference = (blurred(images, deviation + step) - blurred(images, deviation - step)) / (2 * step)
    torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-4)


def in_small_steps(case: Case, steps: int) -> Tensor:
    """The paper's sum (equation 4), from the strongest blur to none: gradient times what the next step adds."""
    deviations, mean = LARGEST * (np.linspace(1, 0, steps + 1) ** 2), torch.tensor(case.mean).reshape(3, 1, 1).double()
    total = torch.zeros_like(case.images)
    for before, after in itertools.pairwise(deviations):
        middle = (mean + blurred(case.images - mean, (before + after) / 2)).requires_grad_()
        answers = case.logits(middle).gather(1, TARGETS[:, None]).sum()
        (slope,) = torch.autograd.grad(answers, middle)
        total += slope * (blurred(case.images - mean, after) - blurred(case.images - mean, before))
    return total.sum(1)


def test_it_is_the_papers_sum_of_small_steps() -> None:
    case = CASES["clip"]()
    pixels, maps = (
        explainer("blur_ig", case.model, steps=60, largest=LARGEST, resolution=resolution).attribute(
            case.images, TARGETS
        )
        for resolution in ("pixel", "patch")
    )
    expected = in_small_steps(case, 120)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=0.01 * float(expected.abs().max()))
    check_patches(case, maps, pixels, "sum")


@pytest.mark.parametrize("family", ["clip", "registers", "cnn"])
def test_it_adds_up_to_what_the_blur_takes_from_the_answer(family: str) -> None:
    case = CASES[family]()
    found = explainer("blur_ig", case.model, steps=200, largest=LARGEST, baseline=0.25).attribute(case.images, TARGETS)
    ground = 0.25 + blurred(case.images - 0.25, LARGEST)
    answers = [case.logits(each).gather(1, TARGETS[:, None])[:, 0] for each in (case.images, ground)]
    difference = answers[0] - answers[1]
    # Where a rectifier opens on the way, the gradient jumps, and no quadrature meets the place.
    torch.testing.assert_close(found.flatten(1).sum(1), difference, rtol=0, atol=0.02 * float(difference.abs().max()))


def test_an_image_that_is_like_what_lies_beyond_its_border_has_nothing_to_lose() -> None:
    case = CASES["cnn"]()
    flat = torch.full_like(case.images, 0.3)
    for baseline, nothing in (("0.3", True), ("black", False)):
        found = explainer("blur_ig", case.model, steps=5, baseline=baseline).attribute(flat, TARGETS)
        assert bool((found.abs() < 1e-12).all()) == nothing


def test_blur_is_not_measured_from_blur() -> None:
    assert refusal(configured, "blur_ig", baseline="blur").startswith(
        "explainers.blur_ig.baseline=blur lies beyond the border: use black, mean"
    )
