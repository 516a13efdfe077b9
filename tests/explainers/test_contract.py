"""What every explainer promises that is made from a classifier alone; with the settings of the row of its name."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.explainers.settings import (
    OF_CLASSIFIERS,
    colour_clip,
    coloured,
    configured,
    explainer,
    small_clip,
    small_pictures,
)
from xai.explainers.block import Block, explain
from xai.explainers.registry import entry
from xai.models.clip import SelfExplainingClip

IMAGES = 8
TARGETS = torch.tensor([4, 0, 2, 1, 3, 0, 4, 2])
CHEAP: dict[str, dict[str, Any]] = {
    "kernel_shap": {"coalitions": 20},
    "rise": {"masks": 60},
    "shapley_distribution": {"coalitions": 60, "steps": 60},
}
SPECIFIC = [name for name in OF_CLASSIFIERS if entry(name).info.class_specific]
# How much a change of a patch would matter is another question than what a patch has done, and has another answer:
# where a patch has settled the matter, more of it changes nothing.
CONTRIBUTIONS = [name for name in SPECIFIC if name != "saliency"]
EACH = pytest.mark.parametrize("name", OF_CLASSIFIERS)


def explained(
    name: str, model: SelfExplainingClip, images: Tensor, targets: Tensor, regions: Tensor | None = None
) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    block = Block(images, targets, None, regions, torch.arange(len(images)), generator)
    maps = explain(explainer(name, model, **CHEAP.get(name, {})), block).maps
    assert maps is not None
    return maps


def regions(count: int = IMAGES) -> Tensor:
    return torch.rand(count, 12, 12, generator=torch.Generator().manual_seed(1)) < 0.3


@pytest.fixture(scope="module")
def maps() -> dict[str, Tensor]:
    images = small_pictures(IMAGES)
    return {name: explained(name, small_clip(), images, TARGETS, regions()) for name in OF_CLASSIFIERS}


@EACH
def test_a_finite_map_on_the_patch_grid_for_each_image(name: str, maps: dict[str, Tensor]) -> None:
    assert maps[name].shape == (IMAGES, 3, 3)
    assert maps[name].isfinite().all()
    assert maps[name].flatten(1).std(1).gt(0).all() or name == "constant"
    assert not maps[name].requires_grad


@EACH
def test_an_image_is_explained_alone_as_in_company(name: str, maps: dict[str, Tensor]) -> None:
    if name == "random":
        pytest.skip("each image has a map of its own, drawn in the order of the images")
    images, where = small_pictures(IMAGES), regions()
    alone = [explained(name, small_clip(), *(of[i : i + 1] for of in (images, TARGETS, where))) for i in range(IMAGES)]
    torch.testing.assert_close(torch.cat(alone), maps[name], rtol=1e-4, atol=1e-5)


@EACH
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_caller_without_gradients_gets_the_same_maps(name: str, mode: type, maps: dict[str, Tensor]) -> None:
    with mode():
        model, images = small_clip(), small_pictures(IMAGES)
        within = explained(name, model, images, TARGETS, regions())
    torch.testing.assert_close(within, maps[name], rtol=1e-5, atol=1e-6)
    after = explained(name, model, images, TARGETS, regions())
    torch.testing.assert_close(after, maps[name], rtol=1e-5, atol=1e-6)


@EACH
def test_the_classifier_is_left_as_it_was(name: str, maps: dict[str, Tensor]) -> None:
    model, images = small_clip().train(), small_pictures(IMAGES).requires_grad_()
    weights = list(model.parameters())
    for number, weight in enumerate(weights):
        weight.requires_grad_(number % 2 == 0)
        weight.grad = torch.full_like(weight, 3.0) if number % 3 == 0 else None
    before = copy.deepcopy(model.state_dict())
    found = explained(name, model, images, TARGETS, regions())
    torch.testing.assert_close(found, maps[name], rtol=1e-5, atol=1e-6)
    assert images.grad is None
    assert all(new is old for new, old in zip(model.parameters(), weights, strict=True))
    assert [weight.requires_grad for weight in weights] == [number % 2 == 0 for number in range(len(weights))]
    assert all((w.grad is None) if n % 3 else bool((w.grad == 3).all()) for n, w in enumerate(weights))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert all(part.training and not any(getattr(part, kind) for kind in hooks) for part in model.modules())


@EACH
def test_without_a_generator_every_call_gives_the_same(name: str, maps: dict[str, Tensor]) -> None:
    if name == "object_mask":
        pytest.skip("it is made of regions")
    ours = explainer(name, small_clip(), **CHEAP.get(name, {}))
    for _ in range(2):
        assert torch.equal(ours.attribute(small_pictures(IMAGES), TARGETS), maps[name])


@EACH
def test_maps_depend_on_the_target_where_the_registry_says_so(name: str, maps: dict[str, Tensor]) -> None:
    others = explained(name, small_clip(), small_pictures(IMAGES), (TARGETS + 1) % 5, regions())
    if name in SPECIFIC:
        assert (others - maps[name]).abs().flatten(1).amax(1).gt(1e-3 * maps[name].abs().flatten(1).amax(1)).all()
    else:
        torch.testing.assert_close(others, maps[name])


@EACH
def test_the_registry_says_what_it_is_and_what_it_costs(name: str) -> None:
    info = entry(name).info
    assert info.name == name
    assert 0 < len(info.label) <= 16
    assert info.about
    assert info.passes is not None
    assert info.passes(configured(name), 9) >= (info.kind != "control")


@pytest.mark.parametrize("name", CONTRIBUTIONS)
def test_the_patch_that_alone_makes_the_class_stands_out(name: str) -> None:
    places = [0, 2, 4, 5, 7]
    images, targets = coloured([{place: 0} for place in places]), torch.zeros(5, dtype=torch.long)
    found = explained(name, colour_clip(), images, targets)
    assert found.flatten(1).argmax(1).tolist() == places
    assert found.flatten(1).amax(1).gt(0).all()


@pytest.mark.parametrize("name", CONTRIBUTIONS)
def test_each_class_has_its_own_patch(name: str) -> None:
    images = coloured([{1: 0, 6: 1}, {1: 0, 6: 1}])
    found = explained(name, colour_clip(), images, torch.tensor([0, 1])).flatten(1)
    assert found.argmax(1).tolist() == [1, 6]


@pytest.mark.gpu
@EACH
def test_on_a_gpu_the_maps_are_those_of_the_processor(name: str, maps: dict[str, Tensor]) -> None:
    found = explained(name, small_clip().cuda(), small_pictures(IMAGES).cuda(), TARGETS.cuda(), regions().cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), maps[name], rtol=1e-4, atol=1e-5)
