from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torchvision
from timm.models.deit import VisionTransformerDistilled
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tests.explainers.settings import explainer
from tests.explainers.test_grad_cam import by_hand
from tests.models.tiny_clip import PARAMS, TOWERS, classifier, pictures
from xai.core.errors import UserError
from xai.explainers.posthoc.cam_targets import cam_target, last_layer_with_cells, tokens_to_grid
from xai.models.maskable import PaintedClassifier, Removal, class_logits
from xai.models.timm_vit import MaskableVit


class Strange(nn.Module):
    grid = (2, 2)


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_tokens_lie_row_by_row_behind_the_prefix(prefix: int) -> None:
    tokens = torch.randn(2, prefix + 6, 7, generator=torch.Generator().manual_seed(0))
    laid = tokens_to_grid((2, 3), prefix)(tokens)
    assert laid.shape == (2, 7, 2, 3)
    for row in range(2):
        for column in range(3):
            assert torch.equal(laid[:, :, row, column], tokens[:, prefix + 3 * row + column])


@pytest.mark.parametrize("shape", [(2, 7, 4), (2, 9, 4), (4, 8)])
def test_other_tokens_are_refused_with_their_shape(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"tokens are \[{', '.join(map(str, shape))}\], expected \[B, 2 \+ 2 \* 3, D"):
        tokens_to_grid((2, 3), 2)(torch.zeros(shape))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("removal", [Removal("tokens"), Removal("pixels", "mean")], ids=["tokens", "pixels"])
def test_the_layer_of_clip_runs_once_on_all_tokens_and_all_patches_bear_on_the_logits(
    layers: int, removal: Removal
) -> None:
    model = classifier(removal, replace(PARAMS, towers=replace(TOWERS, layers=layers)))
    network, layer, to_grid = cam_target(model)
    assert layer is model.visual.transformer.resblocks[layers - 1].ln_1
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    logits = network(pictures(2).requires_grad_())
    assert [tuple(output.shape) for output in seen] == [(2, 17, 16)]
    torch.testing.assert_close(logits, model(pictures(2)))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), seen[0])
    assert to_grid(gradient).abs().sum(1).gt(0).all()


@pytest.mark.parametrize(
    ("kind", "settings", "prefix"),
    [
        (VisionTransformer, {}, 1),
        (VisionTransformer, {"reg_tokens": 4}, 5),
        (VisionTransformer, {"class_token": False, "global_pool": "avg"}, 0),
        (VisionTransformerDistilled, {}, 2),
    ],
    ids=["class", "registers", "none", "distilled"],
)
def test_the_layer_of_a_timm_vit_runs_once_on_all_tokens_and_all_patches_bear_on_the_logits(
    kind: type[VisionTransformer], settings: dict[str, Any], prefix: int
) -> None:
    shape = {"img_size": (8, 16), "patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}
    vit = kind(**shape, **settings).double()
    generator = torch.Generator().manual_seed(0)
    for weight in vit.parameters():
        weight.data = 0.5 * torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    model = MaskableVit(vit, (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)).double().eval()
    network, layer, to_grid = cam_target(model)
    assert layer is vit.blocks[1].norm1
    seen: list[Tensor] = []
    layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
    images = pictures(2)[:, :, :8]
    logits = network(images.clone().requires_grad_())
    assert [tuple(output.shape) for output in seen] == [(2, prefix + 8, 16)]
    torch.testing.assert_close(logits, model(images))
    (gradient,) = torch.autograd.grad(logits[:, 0].sum(), seen[0])
    assert to_grid(gradient).shape == (2, 16, 2, 4)
    assert to_grid(gradient).abs().sum(1).gt(0).all()


@pytest.mark.parametrize("outputs", [1, 3])
def test_the_layer_of_a_painted_network_is_found_by_a_forward_pass(outputs: int) -> None:
    convolutions = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.ReLU())
    plain = nn.Sequential(convolutions, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, outputs)).double()
    model = PaintedClassifier(plain, (2, 2), (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)).double()
    network, find, to_grid = cam_target(model)
    assert not isinstance(find, nn.Module)
    assert find(network, pictures(1)) is convolutions
    torch.testing.assert_close(network(pictures(2)), class_logits(plain(model.normalisation(pictures(2)))))
    cells = torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    laid = to_grid(cells)
    assert torch.equal(laid, cells)
    assert laid.data_ptr() == cells.data_ptr(), "what is written to it is written to the output"


def test_the_map_of_a_binary_vit_explains_either_class() -> None:
    vit = VisionTransformer(img_size=16, patch_size=4, embed_dim=16, depth=2, num_heads=2, num_classes=1).double()
    model = MaskableVit(vit, (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)).double().eval()
    network, _, _ = cam_target(model)
    assert network(pictures(2)).shape == (2, 2)
    torch.testing.assert_close(network(pictures(2)), model(pictures(2)))


def test_a_classifier_nobody_has_registered_is_refused_in_one_line() -> None:
    with pytest.raises(UserError, match=r"^class activation maps know no layer of a Strange .*kernel_shap$"):
        cam_target(Strange())


MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)
TARGETS = torch.tensor([1, 0, 2, 1])
Build = Callable[[], tuple[nn.Module, nn.Module]]


def noise(count: int, height: int = 64, width: int = 64) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def seeded(network: nn.Module) -> nn.Module:
    """The network in float64 with weights by which images differ, and every last cell is evidence for every class."""
    generator = torch.Generator().manual_seed(1)
    for weight in network.parameters():
        scale = weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.5
        weight.data = scale * torch.randn(weight.shape, generator=generator) + (weight.ndim == 1)
        if weight.ndim == 2:
            weight.data.abs_()
    return network.double().eval()


def resnet() -> tuple[nn.Module, nn.Module]:
    network = ResNet(BasicBlock, (1, 1, 1, 1), num_classes=3, channels=(8, 8, 16, 16))
    return seeded(network), network.layer4


def vgg() -> tuple[nn.Module, nn.Module]:
    layers = torchvision.models.vgg.make_layers([4, "M", 8, "M", 8, "M"])
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    return seeded(nn.Sequential(layers, head)), layers


def densenet() -> tuple[nn.Module, nn.Module]:
    network = torchvision.models.DenseNet(4, (1, 1, 1), 8, num_classes=3)
    return seeded(network), network.features


class Reused(nn.Module):
    """One rectifier for all, as in many networks: it returns last, and is no place of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.relu = nn.Conv2d(3, 4, 4, 4), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU()
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.last(self.relu(self.first(images)))).mean((2, 3)))


class Permuted(nn.Module):
    """Ends in channels-last features [B, h, w, D]."""

    def __init__(self) -> None:
        super().__init__()
        self.cells, self.norm, self.head = nn.Conv2d(3, 5, 4, 4), nn.LayerNorm(5), nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.norm(self.cells(images).movedim(1, 3)).mean((1, 2)))


@pytest.mark.parametrize("build", [resnet, vgg, densenet])
def test_it_is_the_last_stage_of_networks_everybody_uses(build: Build) -> None:
    network, stage = build()
    assert last_layer_with_cells(network, network, noise(1)) is stage
    assert not any(module._forward_hooks for module in network.modules())


def test_a_layer_that_runs_twice_is_passed_over() -> None:
    network = Reused().double()
    assert last_layer_with_cells(network, network, noise(1)) is network.last


def test_channels_last_features_are_not_cells() -> None:
    network = Permuted().double()
    assert last_layer_with_cells(network, network, noise(1)) is network.cells


@pytest.mark.parametrize(("height", "width"), [(50, 70), (33, 95), (95, 33)])
def test_cells_of_oblong_images_with_odd_sides_are_cells(height: int, width: int) -> None:
    network, stage = resnet()
    assert last_layer_with_cells(network, network, noise(1, height, width)) is stage


def test_cells_laid_out_for_their_average_are_no_tokens() -> None:
    convolution = nn.Conv2d(3, 5, 4, 4)
    network = nn.Sequential(convolution, nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(5, 3)).double()
    assert last_layer_with_cells(network, network, noise(1)) is convolution


def test_a_transformer_is_refused_in_one_line() -> None:
    network = VisionTransformer(img_size=64, patch_size=16, embed_dim=8, depth=1, num_heads=2, num_classes=3).double()
    for block in network.blocks:
        block.attn.fused_attn = False
    with pytest.raises(UserError, match=r"^VisionTransformer computes with tokens after .*use kernel_shap$"):
        last_layer_with_cells(network, network, noise(1))


def test_a_network_without_cells_is_refused_in_one_line() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3)).double()
    message = r"^no layer of Sequential has more than one cell for images of 64 x 64 px, .*kernel_shap$"
    with pytest.raises(UserError, match=message):
        last_layer_with_cells(flat, flat, noise(1))
    assert not any(module._forward_hooks for module in flat.modules())


class Unwatched(nn.Identity):
    """Like a scripted module, it takes no hooks."""

    def register_forward_hook(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("register_forward_hook is not supported on ScriptModules")


def test_a_part_that_nobody_can_watch_leaves_no_hooks_on_the_others() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 8, 8), Unwatched())
    with pytest.raises(RuntimeError, match="not supported"):
        last_layer_with_cells(network, network, torch.zeros(1, 3, 16, 16))
    assert not any(module._forward_hooks for module in network.modules())


def test_where_the_last_stage_has_one_cell_the_stage_before_it_is_taken() -> None:
    network, _ = resnet()
    assert last_layer_with_cells(network, network, noise(1, 32, 32)) is network.layer3


def test_a_network_that_goes_on_in_place_is_explained_by_what_its_layer_returned() -> None:
    # In float32, because a conversion to it would be a copy.
    network, stage = densenet()
    model, images = PaintedClassifier(network.float(), (2, 2), MEAN, STD), noise(4).float()
    cells = stage(model.normalisation(images)).detach().requires_grad_()
    logits = network.classifier(cells.relu().mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits.gather(1, TARGETS[:, None]).sum(), cells)
    raw = (gradient.mean((2, 3), keepdim=True) * cells).sum(1).detach()
    assert raw.relu().flatten(1).std(1).gt(0).all()
    expected = by_hand(raw, (64, 64), 32)
    found = explainer("grad_cam", model).attribute(images, TARGETS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
