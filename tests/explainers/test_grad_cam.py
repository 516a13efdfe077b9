import captum.attr
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam import EigenCAM
from torch import Tensor, nn
from torchvision import transforms

from tests.explainers.settings import COLOUR_PARAMS, colour_clip, coloured, explainer
from tests.models.tiny_clip import PARAMS, classifier, pictures
from xai.explainers.posthoc.cam_targets import CamTarget, cam_target
from xai.models.clip import SelfExplainingClip
from xai.models.factory import ClipParams
from xai.models.maskable import PaintedClassifier

TARGETS = torch.tensor([0, 1, 2, 3, 4, 0])


class Plain(nn.Module):
    """The tower block by block, all rows in every block; the grid of the last layer norm passes through `spot`."""

    def __init__(self, model: SelfExplainingClip, params: ClipParams = PARAMS) -> None:
        super().__init__()
        self.model, self.spot = model, nn.Identity()
        self.normalise = transforms.Normalize(params.mean, params.std)

    def forward(self, images: Tensor) -> Tensor:
        visual = self.model.visual
        tokens = visual._embeds(self.normalise(images))
        *blocks, last = visual.transformer.resblocks
        for block in blocks:
            tokens = block(tokens)
        normed = last.ln_1(tokens)
        grid = self.spot(normed[:, 1:].transpose(1, 2).unflatten(2, self.model.grid))
        normed = torch.cat([normed[:, :1], grid.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + last.attn(normed, normed, normed)[0]
        tokens = tokens + last.mlp(last.ln_2(tokens))
        features = (visual.ln_post(tokens) @ visual.proj)[:, 0]
        return self.model.logit_scale * (features / features.norm(dim=1, keepdim=True)) @ self.model.head


def stretched(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


def by_hand(grid_map: Tensor, size: tuple[int, int] = (16, 16), patch: int = 4) -> Tensor:
    """From a map whose positive part is still to be taken to averages of pixels within patches."""
    pixels = F.interpolate(stretched(grid_map.relu())[:, None], size, mode="bilinear", align_corners=False)
    return stretched(pixels[:, 0]).unflatten(1, (-1, patch)).unflatten(3, (-1, patch)).mean((2, 4))


def class_activation_map(plain: Plain, images: Tensor, targets: Tensor) -> Tensor:
    """Equations 1 and 2 of Grad-CAM by autograd, without the rectifier: [B, h, w]."""
    kept: list[Tensor] = []
    plain.spot.register_forward_hook(lambda module, inputs, output: kept.append(output))
    logits = plain(images.clone().requires_grad_())
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), kept[0])
    return torch.einsum("bd,bdhw->bhw", gradient.mean((2, 3)), kept[0]).detach()


class Convolutions(nn.Module):
    """Cells of a last stage are 4 px wide, patches are 8 px wide, and the image is wider than high."""

    grid = (2, 3)

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.Sequential(nn.Conv2d(3, 6, 4, stride=4), nn.Tanh(), nn.Conv2d(6, 5, 3, padding=1), nn.Tanh())
        self.head = nn.Linear(5, 4)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.stages(images).square().mean((2, 3)))


@cam_target.register
def _(network: Convolutions) -> CamTarget:
    return CamTarget(network, network.stages, lambda cells: cells)


def test_a_convolutional_network_needs_its_last_stage_named_and_no_more() -> None:
    generator = torch.Generator().manual_seed(3)
    network, images = Convolutions().double(), torch.rand(6, 3, 16, 24, generator=generator, dtype=torch.float64)
    for weight in network.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    targets = torch.arange(6) % 4
    raw = captum.attr.LayerGradCam(network, network.stages).attribute(images.requires_grad_(), targets)[:, 0].detach()
    assert raw.shape == (6, 4, 6)
    assert (raw > 0).flatten(1).any(1).all()
    maps = explainer("grad_cam", network).attribute(images, targets)
    torch.testing.assert_close(maps, by_hand(raw, (16, 24), 8).float(), rtol=1e-5, atol=1e-5)


def test_a_map_without_positive_evidence_is_zero_and_not_nan() -> None:
    model, images, targets = colour_clip(), coloured([{}, {3: 1}, {3: 0}]), torch.zeros(3, dtype=torch.long)
    raw = class_activation_map(Plain(model, COLOUR_PARAMS), images, targets)
    assert [bool((image > 0).any()) for image in raw] == [False, False, True]
    maps = explainer("grad_cam", model).attribute(images, targets)
    assert [bool((image > 0).any()) for image in maps] == [False, False, True]
    assert maps.isfinite().all()


def test_no_hook_stays_behind_when_it_fails() -> None:
    model = classifier()
    with pytest.raises(IndexError) as caught:
        explainer("grad_cam", model).attribute(pictures(2), torch.tensor([0, 99]))
    assert caught.traceback, "it holds what would take its hooks along when it is forgotten"
    assert not any(module._forward_hooks for module in model.modules())


def test_no_graph_is_built_below_the_layer() -> None:
    model, images = classifier().requires_grad_(True), pictures(2).requires_grad_()
    seen: list[bool] = []
    model.visual.transformer.resblocks[0].register_forward_hook(lambda m, i, output: seen.append(output.requires_grad))
    explainer("grad_cam", model).attribute(images, TARGETS[:2])
    assert seen == [False]
    assert images.grad is None


def test_half_precision_and_mixed_precision_give_maps_in_float32() -> None:
    images = pictures(6)
    expected = explainer("grad_cam", classifier()).attribute(images, TARGETS)
    half = explainer("grad_cam", classifier().bfloat16()).attribute(images.bfloat16(), TARGETS)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = explainer("grad_cam", classifier().float()).attribute(images.float(), TARGETS)
    for maps in (half, mixed):
        assert maps.dtype == torch.float32
        torch.testing.assert_close(maps, expected, rtol=0, atol=0.15)


def activations(model: SelfExplainingClip, images: Tensor) -> np.ndarray:
    """What the first layer norm of the last block returns for patches: [B, h w, D]."""
    seen: list[Tensor] = []
    with model.visual.transformer.resblocks[-1].ln_1.register_forward_hook(lambda m, i, output: seen.append(output)):
        model.explain(images)
    return seen[0][:, 1:].detach().numpy()


def component(patches: np.ndarray) -> np.ndarray:
    """Projections [h w] of centred activations [h w, D] on their first principal component, by an eigenvector."""
    centred = patches - patches.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return centred @ vectors[:, -1]


def component_by_hand(projection: np.ndarray) -> Tensor:
    """The map [h, w] of one image."""
    return by_hand(torch.from_numpy(projection).reshape(1, 4, 4))[0].float()


def test_it_is_the_first_principal_component_with_the_largest_deviation_positive() -> None:
    model, images = classifier(), pictures(6)
    found = explainer("eigen_cam", model).attribute(images, TARGETS)
    assert found.dtype == torch.float32
    for patches, ours in zip(activations(model, images), found, strict=True):
        projection = component(patches)
        projection *= np.sign(projection[np.abs(projection).argmax()])
        torch.testing.assert_close(ours, component_by_hand(projection), rtol=1e-4, atol=1e-4)


def test_the_librarys_sign_is_that_of_numpys_decomposition() -> None:
    model, images = classifier().float(), pictures(6).float()
    found = explainer("eigen_cam", model, sign="library").attribute(images, TARGETS)
    turned = []
    for patches, ours in zip(activations(model, images), found, strict=True):
        centred = patches - patches.mean(0)
        projection = centred @ np.linalg.svd(centred)[2][0]
        turned.append(bool(projection.max() < -projection.min()))
        torch.testing.assert_close(ours, component_by_hand(projection), rtol=1e-3, atol=1e-3)
    assert set(turned) == {False, True}, "images of both signs are needed, or nothing is told from sign=largest"


def test_with_the_librarys_sign_it_is_the_library_on_a_painted_network() -> None:
    torch.manual_seed(0)
    stage = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
    network = nn.Sequential(stage, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()
    model = PaintedClassifier(network, (2, 2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    images = pictures(6).float()
    with EigenCAM(network, [stage]) as cam:
        pixels = torch.from_numpy(cam(images, []))
    found = explainer("eigen_cam", model, sign="library").attribute(images, TARGETS)
    torch.testing.assert_close(found, pixels.reshape(6, 2, 8, 2, 8).mean((2, 4)), rtol=1e-4, atol=1e-5)


def test_no_graph_is_built() -> None:
    model, seen = classifier().requires_grad_(True), []
    hook = model.visual.ln_post.register_forward_hook(lambda m, i, output: seen.append(output.requires_grad))
    explainer("eigen_cam", model).attribute(pictures(2), TARGETS[:2])
    hook.remove()
    assert seen == [False]


def test_patches_that_are_all_alike_make_a_map_of_zeros() -> None:
    model = classifier()
    model.visual.transformer.resblocks[-1].ln_1.weight.data.zero_()
    assert torch.equal(explainer("eigen_cam", model).attribute(pictures(2), TARGETS[:2]), torch.zeros(2, 4, 4))
