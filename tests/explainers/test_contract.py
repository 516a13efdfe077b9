"""What every registered explainer promises; each with the settings of conf/supervision/ that bear its name."""

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.explainers.settings import NAMES, colour_clip, coloured, explainer, small_clip, small_pictures
from xai.explainers.registry import entry
from xai.models.clip import SelfExplainingClip

TARGETS = torch.tensor([4, 0, 2])
CHEAP: dict[str, dict[str, Any]] = {
    "kernel_shap": {"coalitions": 20},
    "shapley_distribution": {"coalitions": 60, "steps": 60},
}

SPECIFIC = [name for name in NAMES if entry(name).class_specific]
# How much a change of a patch would matter is another question than what a patch has done, and has another answer:
# where a patch has settled the matter, more of it changes nothing.
SENSITIVITIES = {"saliency"}
CONTRIBUTIONS = [name for name in SPECIFIC if name not in SENSITIVITIES]


def explained(name: str, model: SelfExplainingClip, images: Tensor, targets: Tensor, seed: int = 0) -> Tensor:
    return explainer(name, model, seed, **CHEAP.get(name, {})).attribute(images, targets)


@pytest.fixture(scope="module")
def maps() -> dict[str, Tensor]:
    return {name: explained(name, small_clip(), small_pictures(3), TARGETS) for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_finite_map_on_the_patch_grid_for_each_image(name: str, maps: dict[str, Tensor]) -> None:
    assert maps[name].shape == (3, 3, 3)
    assert maps[name].isfinite().all()
    assert maps[name].flatten(1).std(1).gt(0).all()
    assert not maps[name].requires_grad


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_maps(name: str, maps: dict[str, Tensor]) -> None:
    assert torch.equal(explained(name, small_clip(), small_pictures(3), TARGETS), maps[name])


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_explained_alone_as_in_company(name: str, maps: dict[str, Tensor]) -> None:
    alone = [explained(name, small_clip(), small_pictures(3)[i : i + 1], TARGETS[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(torch.cat(alone), maps[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_a_caller_without_gradients_gets_the_same_maps(name: str, context: type, maps: dict[str, Tensor]) -> None:
    with context():
        model, images = small_clip(), small_pictures(3)
        within = explained(name, model, images, TARGETS)
    torch.testing.assert_close(within, maps[name], rtol=1e-5, atol=1e-6)
    after = explained(name, model, images, TARGETS)
    torch.testing.assert_close(after, maps[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_that_require_gradients_change_nothing(name: str, maps: dict[str, Tensor]) -> None:
    model = small_clip().requires_grad_(True)
    torch.testing.assert_close(explained(name, model, small_pictures(3), TARGETS), maps[name], rtol=1e-5, atol=1e-6)
    assert all(weight.requires_grad and weight.grad is None for weight in model.parameters())


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


@pytest.mark.parametrize("name", NAMES)
def test_maps_depend_on_the_target_where_the_registry_says_so(name: str, maps: dict[str, Tensor]) -> None:
    others = explained(name, small_clip(), small_pictures(3), (TARGETS + 1) % 5)
    if name in SPECIFIC:
        assert (others - maps[name]).abs().flatten(1).amax(1).gt(1e-3 * maps[name].abs().max()).all()
    else:
        torch.testing.assert_close(others, maps[name])


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_on_a_gpu_the_maps_are_those_of_the_processor(name: str, maps: dict[str, Tensor]) -> None:
    found = explained(name, small_clip().cuda(), small_pictures(3).cuda(), TARGETS.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), maps[name], rtol=1e-4, atol=1e-5)
