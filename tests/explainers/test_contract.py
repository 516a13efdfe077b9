"""What every explainer promises that is made from a classifier alone; with the settings of the row of its name.

Each is tried on every family of classifiers that it fits: a CLIP, a ViT, a convolutional network.
"""

import copy
import functools
import gc
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.explainers.settings import OF_CLASSIFIERS, SMALL, colour_clip, coloured, configured, fitting, small_pictures
from tests.toolbox import seeded, there
from xai.explainers.block import Block, explain
from xai.explainers.registry import ExplainerParams, entry
from xai.games import PatchGame
from xai.models.maskable import MaskableClassifier

IMAGES = 8
TARGETS = torch.tensor([4, 0, 2, 1, 3, 0, 4, 2])
CHEAP: dict[str, dict[str, Any]] = {
    "blur_ig": {"steps": 10},
    "kernel_shap": {"coalitions": 20},
    "rise": {"masks": 60},
    "rise_smooth": {"masks": 200, "cells": 3},
    "lime": {"samples": 60},
    "permutation_shapley": {"permutations": 4},
    "banzhaf": {"coalitions": 60},
    "shapley_distribution": {"coalitions": 60, "steps": 60},
    "smoothgrad": {"samples": 4},
}
FAMILIES = {name: fitting(name) for name in OF_CLASSIFIERS}
# A pass for each channel of a layer: the settings do not say how many these are.
UNTOLD = {"score_cam", "ablation_cam"}
# Grad-CAM++ divides by what may have either sign behind a layer norm; with these weights no map is left.
EMPTY = [*(("constant", family) for family in SMALL), ("grad_cam_plusplus", "vit")]
SPECIFIC = [name for name in OF_CLASSIFIERS if entry(name).info.class_specific]
# How much a change of a patch would matter is another question than what a patch has done, and has another answer:
# where a patch has settled the matter, more of it changes nothing.
# Score-CAM has a positive weight for every channel, be it one for the class or against it. What blurs or blends (ViT-CX
# by soft masks) leaves something of a patch, and behind a layer norm the least of a colour is as much as all of it.
OTHER = {"saliency", "smoothgrad", "score_cam", "blur_ig", "rise_smooth", "vit_cx"}
CONTRIBUTIONS = [name for name in SPECIFIC if name not in OTHER and "clip" in FAMILIES[name]]
EACH = pytest.mark.parametrize("name", OF_CLASSIFIERS)
PAIRS = pytest.mark.parametrize(("name", "family"), [(name, family) for name in FAMILIES for family in FAMILIES[name]])
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def explained(name: str, model: MaskableClassifier, which: slice = slice(None)) -> Tensor:
    """Maps of some of the eight pictures."""
    return drawn(name, model, small_pictures(IMAGES)[which], TARGETS[which], regions()[which])


def drawn(
    name: str, model: MaskableClassifier, images: Tensor, targets: Tensor, regions: Tensor | None = None
) -> Tensor:
    block = Block(images, targets, None, regions, torch.arange(len(images)), seeded())
    return there(explain(made(name, model), block).maps)


def regions() -> Tensor:
    return torch.rand(IMAGES, 12, 12, generator=torch.Generator().manual_seed(1)) < 0.3


@functools.cache
def params(name: str) -> ExplainerParams:
    """Composed once, which takes longer than most of these maps."""
    return configured(name, **CHEAP.get(name, {}))


def made(name: str, model: MaskableClassifier) -> Any:
    return entry(name).build(model, params(name))


def home(name: str) -> str:
    """The first family that an explainer fits."""
    return FAMILIES[name][0]


@functools.cache
def maps(name: str, family: str) -> Tensor:
    return explained(name, SMALL[family]())


def hooks(model: nn.Module) -> int:
    """How many hooks there are on all parts of a network."""
    return sum(len(getattr(part, kind) or ()) for part in model.modules() for kind in HOOKS)


@PAIRS
def test_a_finite_map_on_the_patch_grid_for_each_image(name: str, family: str) -> None:
    found = maps(name, family)
    assert found.shape == (IMAGES, 3, 3)
    assert found.isfinite().all()
    # Where a class has no evidence for it, a map may be zero everywhere.
    assert found.flatten(1).std(1).gt(0).any() or (name, family) in EMPTY
    assert not found.requires_grad


@pytest.mark.parametrize("name", [name for name in OF_CLASSIFIERS if entry(name).asks_once])
def test_several_classes_are_explained_as_each_by_itself_for_the_passes_of_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, images = SMALL[home(name)](), small_pictures(IMAGES)
    classes = torch.stack([TARGETS, (TARGETS + 1) % 5, torch.zeros_like(TARGETS)], 1)
    alone = [drawn(name, model, images, column) for column in classes.unbind(1)]
    asked: list[int] = []
    value = PatchGame.value
    monkeypatch.setattr(PatchGame, "value", lambda game, rows: asked.append(rows.shape[-2]) or value(game, rows))
    columns = made(name, model).attribute_classes(images, classes, torch.Generator().manual_seed(0))
    first, once = next(columns), sum(asked)
    together = [first, *columns]
    assert all(torch.equal(*pair) for pair in zip(together, alone, strict=True))
    assert sum(asked) == once > 0


@PAIRS
def test_an_image_is_explained_alone_as_in_company(name: str, family: str) -> None:
    if name == "random":
        pytest.skip("each image has a map of its own, drawn in the order of the images")
    model = SMALL[family]()
    # The first, the last and one between where it is at home; elsewhere two and their company tell as much.
    numbers = (0, 3, IMAGES - 1) if family == home(name) else (1, IMAGES - 1)
    for i in numbers:
        alone = explained(name, model, slice(i, i + 1))
        torch.testing.assert_close(alone, maps(name, family)[i : i + 1], rtol=1e-4, atol=1e-5)


@EACH
@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_a_caller_without_gradients_gets_the_same_maps(name: str, mode: type) -> None:
    with mode():
        model = SMALL[home(name)]()
        within = explained(name, model)
    torch.testing.assert_close(within, maps(name, home(name)), rtol=1e-5, atol=1e-6)
    after = explained(name, model)
    torch.testing.assert_close(after, maps(name, home(name)), rtol=1e-5, atol=1e-6)


@PAIRS
def test_the_classifier_is_left_as_it_was(name: str, family: str) -> None:
    model, images = SMALL[family](), small_pictures(IMAGES).requires_grad_()
    # In training mode, of which a batch norm would make other maps; so that one stays as it was trained.
    training = {part: not isinstance(part, nn.BatchNorm2d) for part in model.modules()}
    for part, mode in training.items():
        part.training = mode
    weights = list(model.parameters())
    for number, weight in enumerate(weights):
        weight.requires_grad_(number % 2 == 0)
        weight.grad = torch.full_like(weight, 3.0) if number % 3 == 0 else None
    before = copy.deepcopy(model.state_dict())
    flags = {part: part.fused_attn for part in model.modules() if hasattr(part, "fused_attn")}
    found = drawn(name, model, images, TARGETS, regions())
    torch.testing.assert_close(found, maps(name, family), rtol=1e-5, atol=1e-6)
    assert images.grad is None
    assert all(new is old for new, old in zip(model.parameters(), weights, strict=True))
    assert [weight.requires_grad for weight in weights] == [number % 2 == 0 for number in range(len(weights))]
    assert all((w.grad is None) if n % 3 else bool((w.grad == 3).all()) for n, w in enumerate(weights))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert hooks(model) == 0
    assert list(model.modules()) == list(training), "no part is replaced"
    assert all(part.training == mode for part, mode in training.items())
    assert all(part.fused_attn == fused for part, fused in flags.items())


def test_many_images_leave_nothing_behind() -> None:
    """A list of activations that grows, a graph that is kept, a hook: all of them hold tensors."""
    models = {name: SMALL[home(name)]() for name in OF_CLASSIFIERS if name != "object_mask"}
    rows, images = {name: made(name, model) for name, model in models.items()}, small_pictures(1)
    counts: dict[int, int] = {}
    for round_ in range(6):
        for ours in rows.values():
            ours.attribute(images, TARGETS[:1])
        if round_ in (1, 5):  # what is cached is cached by then
            gc.collect()
            counts[round_] = sum(issubclass(type(each), Tensor) for each in gc.get_objects())
    assert counts[5] == counts[1]
    assert {name: hooks(model) for name, model in models.items() if hooks(model)} == {}


@EACH
def test_without_a_generator_every_call_gives_the_same(name: str) -> None:
    if name == "object_mask":
        pytest.skip("it is made of regions")
    ours = made(name, SMALL[home(name)]())
    for _ in range(2):
        assert torch.equal(ours.attribute(small_pictures(IMAGES), TARGETS), maps(name, home(name)))


@EACH
def test_maps_depend_on_the_target_where_the_registry_says_so(name: str) -> None:
    found = maps(name, home(name))
    others = drawn(name, SMALL[home(name)](), small_pictures(IMAGES), (TARGETS + 1) % 5, regions())
    if name in SPECIFIC:
        assert (others - found).abs().flatten(1).amax(1).gt(1e-3 * found.abs().flatten(1).amax(1)).all()
    else:
        torch.testing.assert_close(others, found)


@EACH
def test_the_registry_says_what_it_is_and_what_it_costs(name: str) -> None:
    info = entry(name).info
    assert info.name == name
    assert 0 < len(info.label) <= 16
    assert info.about
    assert (info.passes is None) == (name in UNTOLD)
    assert info.passes is None or info.passes(configured(name), 9) >= (info.kind != "control")


@pytest.mark.parametrize("name", CONTRIBUTIONS)
def test_the_patch_that_alone_makes_the_class_stands_out(name: str) -> None:
    places = [0, 2, 4, 5, 7]
    images, targets = coloured([{place: 0} for place in places]), torch.zeros(5, dtype=torch.long)
    found = drawn(name, colour_clip(), images, targets)
    assert found.flatten(1).argmax(1).tolist() == places
    assert found.flatten(1).amax(1).gt(0).all()


@pytest.mark.parametrize("name", CONTRIBUTIONS)
def test_each_class_has_its_own_patch(name: str) -> None:
    images = coloured([{1: 0, 6: 1}, {1: 0, 6: 1}])
    found = drawn(name, colour_clip(), images, torch.tensor([0, 1])).flatten(1)
    assert found.argmax(1).tolist() == [1, 6]


@pytest.mark.gpu
@PAIRS
def test_on_a_gpu_the_maps_are_those_of_the_processor(name: str, family: str) -> None:
    generator, images = torch.Generator().manual_seed(0), small_pictures(IMAGES).cuda()
    block = Block(images, TARGETS.cuda(), None, regions().cuda(), torch.arange(IMAGES), generator)
    found = there(explain(made(name, SMALL[family]().cuda()), block).maps)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), maps(name, family), rtol=1e-4, atol=1e-5)
