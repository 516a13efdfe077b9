from types import SimpleNamespace

import captum.attr
import pytest
import torch
from torch import Tensor

import xai
from tests.api.networks import MEAN, SIZE, STD, Plain, images
from tests.explainers.context import Context
from tests.explainers.networks import CASES, TARGETS, Answers, Case, check_patches
from tests.explainers.settings import configured, small_clip, small_pictures
from tests.toolbox import randn, refusal
from xai.explainers.posthoc import gradients
from xai.explainers.posthoc.integrated_gradients import ExpectedGradients, ExpectedGradientsParams
from xai.explainers.registry import entry


def made(case: Case, backgrounds: Tensor, **changes: object) -> ExpectedGradients:
    params = configured("expected_gradients", **changes)
    assert isinstance(params, ExpectedGradientsParams)
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


def test_from_one_baseline_it_estimates_integrated_gradients() -> None:
    case = CASES["clip"]()
    background = others(case)[:1]
    expected = captum.attr.IntegratedGradients(Answers(case, "logit")).attribute(
        case.images, background.expand_as(case.images), target=TARGETS
    )
    found = made(case, background, samples=1000, resolution="pixel").attribute(case.images, TARGETS)
    assert (found - expected.sum(1)).norm() < 0.05 * expected.sum(1).norm()


def test_how_many_pass_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["cnn"]()
    ours = made(case, others(case), samples=5)
    expected = ours.attribute(case.images, TARGETS)
    for count in (1, 3, 9):
        monkeypatch.setitem(gradients._PIXELS_AT_ONCE, "cpu", count * case.images[0, 0].numel())
        torch.testing.assert_close(ours.attribute(case.images, TARGETS), expected)


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
