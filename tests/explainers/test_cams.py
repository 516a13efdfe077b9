"""Class activation maps, against the library's image by image, or the paper's formula."""

from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import xai
from tests.api.networks import Plain as Theirs
from tests.explainers.settings import explainer
from tests.explainers.test_grad_cam import Plain, by_hand
from tests.models.tiny_clip import PARAMS, classifier, pictures
from tests.models.tiny_vit import MEAN, STD, maskable, network, normalised
from tests.toolbox import randn, refusal, seeded
from xai.explainers.posthoc import asking_cams, gradients
from xai.models.clip import SelfExplainingClip
from xai.models.maskable import MaskableClassifier, PaintedClassifier

GRADIENTS = {
    "grad_cam": pytorch_grad_cam.GradCAM,
    "grad_cam_plusplus": pytorch_grad_cam.GradCAMPlusPlus,
    "layer_cam": pytorch_grad_cam.LayerCAM,
    "hires_cam": pytorch_grad_cam.HiResCAM,
    "xgrad_cam": pytorch_grad_cam.XGradCAM,
}
TARGETS = torch.tensor([0, 1, 2, 3])


class Found(NamedTuple):
    """A classifier, and the same as a network of normalised images with the layer and the reshape that it needs."""

    model: MaskableClassifier
    plain: nn.Module
    layer: nn.Module
    to_grid: Any = None
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD


def tokens_to_grid(tokens: Tensor) -> Tensor:
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (4, 4))


def convolutional() -> Found:
    """Evidence for every class, and no channel that is dead."""
    stage = nn.Sequential(nn.Conv2d(3, 8, 4, stride=4), nn.ReLU())
    plain = nn.Sequential(stage, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).double()
    for value in plain.parameters():
        value.data = torch.randn(value.shape, generator=seeded(value.numel())) / 3 + 0.1
    return Found(PaintedClassifier(plain.eval(), (2, 2), MEAN, STD).double(), plain, stage)


def vit() -> Found:
    built = network()
    return Found(maskable(built), built, built.blocks[-1].norm1, tokens_to_grid)


class Tower(nn.Module):
    def __init__(self, model: SelfExplainingClip) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        features = self.model._project(self.model.visual.transformer(self.model.visual._embeds(images)))
        return self.model._logits(features[:, 0])


def clip() -> Found:
    model = classifier().requires_grad_(True)
    last = model.visual.transformer.resblocks[-1].ln_1
    return Found(model, Tower(model), last, tokens_to_grid, PARAMS.mean, PARAMS.std)


FAMILIES: dict[str, Callable[[], Found]] = {"cnn": convolutional, "vit": vit, "clip": clip}


def by_library(kind: Any, found: Found, images: Tensor, **changes: Any) -> Tensor:
    """The library's maps [B, H, W] of one image at a time, averaged within patches."""
    mean, std = (torch.tensor(each).reshape(3, 1, 1) for each in (found.mean, found.std))
    parts = []
    for image, target in zip((images - mean) / std, TARGETS.tolist(), strict=True):
        with kind(found.plain, [found.layer], found.to_grid, **changes) as cam:
            parts.append(torch.from_numpy(cam(image[None], [ClassifierOutputTarget(target)])))
    down, across = found.model.grid
    return torch.cat(parts).unflatten(1, (down, -1)).unflatten(3, (across, -1)).mean((2, 4))


@pytest.mark.parametrize("name", GRADIENTS)
@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_what_the_library_gives_one_image_at_a_time(name: str, family: str) -> None:
    found, images = FAMILIES[family](), pictures(4)
    expected = by_library(GRADIENTS[name], found, images)
    maps = explainer(name, found.model).attribute(images, TARGETS)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_score_cam_is_the_librarys_one_image_at_a_time(family: str, capfd: pytest.CaptureFixture[str]) -> None:
    found, images = FAMILIES[family](), pictures(4)
    expected = by_library(pytorch_grad_cam.ScoreCAM, found, images)
    assert capfd.readouterr().err, "the library shows a bar"
    maps = explainer("score_cam", found.model).attribute(images, TARGETS)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5)
    assert capfd.readouterr() == ("", "")


def test_ablation_cam_is_the_librarys_one_image_at_a_time() -> None:
    found, images = convolutional(), pictures(4)
    assert found.plain(normalised(images)).gather(1, TARGETS[:, None]).gt(0).all(), "it divides by the logit"
    assert (found.layer(normalised(images)).flatten(1).amin(1) == 0).all(), "or a channel is not set to zero by it"
    # One channel in a pass: of several, it takes the minimum of what it has changed already.
    expected = by_library(pytorch_grad_cam.AblationCAM, found, images, batch_size=1)
    maps = explainer("ablation_cam", found.model).attribute(images, TARGETS)
    torch.testing.assert_close(maps, expected, rtol=1e-5, atol=1e-5)


def channels_of(plain: Plain, images: Tensor) -> Tensor:
    kept: list[Tensor] = []
    with plain.spot.register_forward_hook(lambda module, inputs, output: kept.append(output)):
        plain(images)
    return kept[0]


@pytest.mark.parametrize("at_once", [16 * 16 * 3, 1 << 24])
def test_ablation_cam_is_its_papers_formula(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking_cams, "_VALUES_AT_ONCE", at_once)
    model, images = classifier(), pictures(4)
    plain = Plain(model)
    maps = []
    for image, target, cells in zip(images, TARGETS.tolist(), channels_of(plain, images), strict=True):
        whole, total = float(plain(image[None])[0, target]), torch.zeros(4, 4, dtype=torch.float64)
        for number, channel in enumerate(cells):

            def without(module: nn.Module, inputs: Any, output: Tensor, number: int = number) -> Tensor:
                output = output.clone()
                output[:, number] = 0
                return output

            with plain.spot.register_forward_hook(without):
                total += (whole - float(plain(image[None])[0, target])) / abs(whole) * channel
        maps.append(total)
    found = explainer("ablation_cam", model).attribute(images, TARGETS)
    # A map without anything positive is 0 / 0 by hand.
    torch.testing.assert_close(found, by_hand(torch.stack(maps)).nan_to_num().float(), rtol=1e-5, atol=1e-5)
    assert found.flatten(1).amax(1).gt(0).sum() >= 3


def test_what_lies_before_the_layer_runs_once_for_all_its_channels() -> None:
    model = classifier()
    rows: list[tuple[int, int]] = []
    first, last = model.visual.conv1, model.visual.ln_post
    first.register_forward_hook(lambda module, inputs, output: rows.append((0, len(output))))
    last.register_forward_hook(lambda module, inputs, output: rows.append((1, len(output))))
    explainer("ablation_cam", model).attribute(pictures(2), TARGETS[:2])
    assert rows == [(0, 2), (1, 2), (0, 1), (1, 17), (0, 1), (1, 17)]


def test_a_network_that_counts_its_images_itself_is_refused_in_one_line() -> None:
    class Counts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells, self.head = nn.Conv2d(3, 4, 8, stride=8), nn.Linear(4, 5)

        def forward(self, images: Tensor) -> Tensor:
            return self.head(self.cells(images)[: len(images)].mean((2, 3)))

    model = PaintedClassifier(Counts(), (2, 2), MEAN, STD).double()
    line = refusal(explainer("ablation_cam", model).attribute, pictures(2), TARGETS[:2])
    assert line.startswith("ablation_cam: what comes after Conv2d does not take more rows than there are images")
    assert explainer("score_cam", model).attribute(pictures(2), TARGETS[:2]).shape == (2, 2, 2)


def test_a_network_of_somebody_else_is_asked_about_all_channels_at_once() -> None:
    model = xai.wrap(Theirs(), mean=MEAN, std=STD, image_size=16, grid=(2, 2))
    found = xai.explain(model, pictures(2).float(), "ablation_cam", targets=[0, 1])
    ours = PaintedClassifier(Theirs().eval(), (2, 2), MEAN, STD)
    expected = explainer("ablation_cam", ours).attribute(pictures(2).float(), TARGETS[:2])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["score_cam", "ablation_cam"])
def test_what_a_network_without_parameters_costs_is_known(name: str) -> None:
    class Means(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cells = nn.AvgPool2d(8)

        def forward(self, images: Tensor) -> Tensor:
            return self.cells(images).mean((2, 3))

    asked = explainer(name, PaintedClassifier(Means(), (2, 2), MEAN, STD))
    assert asked.passes(16) == 1 + 3, "a channel each of red, green and blue"
    assert asked.attribute(pictures(2).float(), TARGETS[:2]).shape == (2, 2, 2)


@pytest.mark.parametrize("images", [1, 5])
def test_how_many_masked_images_pass_at_once_changes_nothing(images: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = explainer("score_cam", classifier()).attribute(pictures(4), TARGETS)
    monkeypatch.setitem(gradients._PIXELS_AT_ONCE, "cpu", images * 256)
    torch.testing.assert_close(explainer("score_cam", classifier()).attribute(pictures(4), TARGETS), expected)


@pytest.mark.parametrize("name", [*GRADIENTS, "score_cam", "ablation_cam"])
def test_half_precision_gives_maps_in_float32(name: str) -> None:
    half = explainer(name, classifier().bfloat16()).attribute(pictures(4).bfloat16(), TARGETS)
    assert half.dtype == torch.float32
    assert half.isfinite().all()


def test_channels_are_added_up_as_exactly_under_mixed_precision() -> None:
    ours, cells, images = explainer("score_cam", classifier()), randn(2, 5, 4, 4).float(), torch.zeros(2, 3, 16, 16)
    ours._seen, ours.weights = lambda *_: cells, lambda *_: cells.mean((2, 3))
    expected = ours.pixels(None, None, images, None)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours.pixels(None, None, images, None), expected)
