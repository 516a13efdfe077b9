from collections.abc import Callable

import pytest
import torch
import torchvision
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from tests.explainers.settings import explainer
from xai.core.errors import UserError
from xai.explainers.posthoc.cam_targets import last_layer_with_cells
from xai.models.painted import PaintedClassifier

MEAN, STD = (0.5, 0.4, 0.3), (0.25, 0.3, 0.2)
TARGETS = torch.tensor([1, 0, 2, 1])
Build = Callable[[], tuple[nn.Module, nn.Module]]


def pictures(count: int, height: int = 64, width: int = 64) -> Tensor:
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
    assert last_layer_with_cells(network, network, pictures(1)) is stage
    assert not any(module._forward_hooks for module in network.modules())


def test_a_layer_that_runs_twice_is_passed_over() -> None:
    network = Reused().double()
    assert last_layer_with_cells(network, network, pictures(1)) is network.last


def test_channels_last_features_are_not_cells() -> None:
    network = Permuted().double()
    assert last_layer_with_cells(network, network, pictures(1)) is network.cells


@pytest.mark.parametrize(("height", "width"), [(50, 70), (33, 95), (95, 33)])
def test_cells_of_oblong_images_with_odd_sides_are_cells(height: int, width: int) -> None:
    network, stage = resnet()
    assert last_layer_with_cells(network, network, pictures(1, height, width)) is stage


def test_cells_laid_out_for_their_average_are_no_tokens() -> None:
    convolution = nn.Conv2d(3, 5, 4, 4)
    network = nn.Sequential(convolution, nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(5, 3)).double()
    assert last_layer_with_cells(network, network, pictures(1)) is convolution


def test_a_transformer_is_refused_in_one_line() -> None:
    network = VisionTransformer(img_size=64, patch_size=16, embed_dim=8, depth=1, num_heads=2, num_classes=3).double()
    for block in network.blocks:
        block.attn.fused_attn = False
    with pytest.raises(UserError, match=r"^VisionTransformer computes with tokens after .*use kernel_shap$"):
        last_layer_with_cells(network, network, pictures(1))


def test_a_network_without_cells_is_refused_in_one_line() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64 * 64, 3)).double()
    message = r"^no layer of Sequential has more than one cell for images of 64 x 64 px, .*kernel_shap$"
    with pytest.raises(UserError, match=message):
        last_layer_with_cells(flat, flat, pictures(1))
    assert not any(module._forward_hooks for module in flat.modules())


def test_where_the_last_stage_has_one_cell_the_stage_before_it_is_taken() -> None:
    network, _ = resnet()
    assert last_layer_with_cells(network, network, pictures(1, 32, 32)) is network.layer3


@pytest.mark.parametrize("build", [resnet, vgg])
def test_grad_cam_of_a_painted_network_is_the_librarys_averaged_within_patches(build: Build) -> None:
    network, stage = build()
    model = PaintedClassifier(network, (4, 4), MEAN, STD).double()
    images = pictures(4)
    with GradCAM(network, [stage]) as cam:
        normalised = (images - torch.tensor(MEAN).reshape(3, 1, 1)) / torch.tensor(STD).reshape(3, 1, 1)
        pixels = torch.from_numpy(cam(normalised, [ClassifierOutputTarget(target) for target in TARGETS.tolist()]))
    assert pixels.flatten(1).std(1).gt(0.01).all()
    expected = pixels.reshape(4, 4, 16, 4, 16).mean((2, 4))
    found = explainer("grad_cam", model).attribute(images, TARGETS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_a_network_that_goes_on_in_place_is_explained_by_what_its_layer_returned() -> None:
    # In float32, because a conversion to it would be a copy.
    network, stage = densenet()
    model, images = PaintedClassifier(network.float(), (2, 2), MEAN, STD), pictures(4).float()
    cells = stage(model.normalisation(images)).detach().requires_grad_()
    logits = network.classifier(cells.relu().mean((2, 3)))
    (gradient,) = torch.autograd.grad(logits.gather(1, TARGETS[:, None]).sum(), cells)
    raw = (gradient.mean((2, 3), keepdim=True) * cells).sum(1).relu().detach()
    assert raw.flatten(1).std(1).gt(0).all()

    def stretched(maps: Tensor) -> Tensor:
        low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
        return (maps - low) / (high - low)

    pixels = nn.functional.interpolate(stretched(raw)[:, None], (64, 64), mode="bilinear")[:, 0]
    expected = stretched(pixels).reshape(4, 2, 32, 2, 32).mean((2, 4))
    found = explainer("grad_cam", model).attribute(images, TARGETS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
