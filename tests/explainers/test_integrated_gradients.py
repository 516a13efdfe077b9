import itertools
from types import SimpleNamespace

import captum.attr
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

import xai
from tests.api.networks import MEAN, SIZE, STD, Plain, images
from tests.explainers.context import Context
from tests.explainers.networks import CASES, TARGETS, Answers, Case, check_maps, check_patches, clip
from tests.explainers.settings import configured, explainer, small_clip, small_pictures
from tests.toolbox import randn, refusal
from xai.explainers.posthoc.integrated_gradients import (
    ExpectedGradients,
    blur_and_slope,
)
from xai.explainers.registry import entry
from xai.models.maskable import Encoded, MaskableClassifier, Removal, Rows, reference_image


def baseline(case: Case, name: str) -> Tensor:
    """Where the path starts, [4, 3, H, W]."""
    levels = {"black": (0.0, 0.0, 0.0), "mean": case.mean, "0.25": (0.25, 0.25, 0.25)}
    if name == "blur":
        return reference_image(case.images, Removal("pixels", "blur"), torch.zeros(3))
    return torch.tensor(levels[name]).double().reshape(1, 3, 1, 1).expand_as(case.images)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("output", "start", "steps"),
    [
        ("logit", "black", 50),
        ("probability", "black", 7),
        ("logit", "mean", 4),
        ("logit", "blur", 1),
        ("probability", "0.25", 3),
    ],
)
def test_it_is_captums_added_up_over_channels_and_within_patches(
    name: str, output: str, start: str, steps: int
) -> None:
    case = CASES[name]()
    integrated = captum.attr.IntegratedGradients(Answers(case, output)).attribute(
        case.images, baseline(case, start), TARGETS, n_steps=steps, method="gausslegendre"
    )
    settings = {"output": output, "baseline": start, "steps": steps}
    # Captum keeps the weights of the quadrature in float32.
    check_maps(case, "integrated_gradients", integrated.sum(1), "sum", 1e-5, 1e-7, **settings)
    assert integrated.sum(1).lt(0).any()


class Bare(MaskableClassifier):
    """A classifier that normalises nothing: its logits are the mean colours."""

    grid = (2, 2)

    def encode(self, images: Tensor) -> Encoded:
        return (images,)

    def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
        return encoded[0].mean((2, 3))

    def cost(self, kept: int) -> int:
        return 1


def test_only_the_mean_asks_for_a_normalisation() -> None:
    images = clip().images
    for start, level in (("black", 0.0), ("0.25", 0.25)):
        maps = explainer("integrated_gradients", Bare(), baseline=start).attribute(images, TARGETS % 3)
        torch.testing.assert_close(maps.sum((1, 2)), images[range(4), TARGETS % 3].mean((1, 2)) - level)
    assert refusal(explainer, "integrated_gradients", Bare(), baseline="mean") == (
        "baseline=mean: a Bare does not say what it normalises with, use black, blur or a grey level"
    )


def test_a_grey_level_has_one_spelling() -> None:
    found = configured("integrated_gradients", baseline=0.250)
    assert found == configured("integrated_gradients", baseline="0.25")
    assert found.baseline == "0.25"


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
    exactly = blur_and_slope(images.float(), deviation)
    with torch.autocast("cpu", torch.bfloat16):
        assert all(map(torch.equal, blur_and_slope(images.float(), deviation), exactly))


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


def made(case: Case, backgrounds: Tensor, **changes: object) -> ExpectedGradients:
    params = configured("expected_gradients", **changes)
    return ExpectedGradients(case.model, params, backgrounds)


def others(case: Case) -> Tensor:
    return randn(3, *case.images.shape[1:], seed=9).sigmoid()


@pytest.mark.parametrize(("family", "output"), [("clip", "logit"), ("registers", "probability"), ("cnn", "logit")])
def test_it_is_the_papers_mean_point_by_point(family: str, output: str) -> None:
    case = CASES[family]()
    backgrounds, generator, samples = others(case), torch.Generator().manual_seed(0), 7
    which = torch.randint(3, (samples,), generator=generator)
    along = torch.rand(samples, generator=generator).double()
    total = torch.zeros_like(case.images)
    for other, step in zip(backgrounds[which], along, strict=True):
        for number, (image, target) in enumerate(zip(case.images, TARGETS, strict=True)):
            point = (other + step * (image - other))[None].requires_grad_()
            (slope,) = torch.autograd.grad(Answers(case, output)(point)[0, target], point)
            total[number] += (image - other) * slope[0] / samples
    settings = {"samples": samples, "output": output}
    pixels = made(case, backgrounds, resolution="pixel", **settings).attribute(case.images, TARGETS)
    torch.testing.assert_close(pixels, total.sum(1), rtol=1e-8, atol=1e-10)
    maps = made(case, backgrounds, **settings).attribute(case.images, TARGETS)
    check_patches(case, maps, total.sum(1), "sum")


def test_baselines_are_training_images_of_the_size_of_the_classifiers() -> None:
    context = Context(model=SimpleNamespace(image_size=12))
    params = configured("expected_gradients", samples=4, backgrounds=3)
    prepared = entry("expected_gradients").prepare(context, params)
    assert prepared.made_from["seed"] == 0
    ours = prepared.build()
    assert isinstance(ours, ExpectedGradients)
    known = small_pictures(4)
    assert [any(torch.equal(each, image) for image in known) for each in ours._backgrounds] == [True] * 3
    assert ours.classifier.grid == small_clip().grid


def test_the_face_measures_images_from_one_another_and_refuses_a_single_one() -> None:
    model = xai.wrap(Plain(), mean=MEAN, std=STD, image_size=SIZE, grid=(4, 4))
    found = xai.explain(model, images(3), "expected_gradients", samples=6)
    assert found.shape == (3, 4, 4)
    assert found.flatten(1).std(1).gt(0).all()
    line = refusal(xai.explain, model, images(1), "expected_gradients")
    assert line.startswith("expected_gradients measures an image from others, and there is only one")
