"""Guided backpropagation and FullGrad: what is done to rectifiers and biases, and where neither means anything."""

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from pytorch_grad_cam import FullGrad
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from timm.layers import BatchNormAct2d
from torch import Tensor, nn

from tests.explainers.networks import CASES, TARGETS, Answers, check_maps, check_patches
from tests.explainers.settings import explainer
from tests.models.tiny_vit import MEAN, STD, SmallCnn, normalised, small_cnn
from tests.toolbox import refusal, seeded
from xai.explainers.posthoc.full_grad import Biases
from xai.explainers.posthoc.rectifiers import Guided
from xai.models.maskable import PaintedClassifier

SIX = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(6 * 36, 5))


def painted(network: nn.Module) -> PaintedClassifier:
    return PaintedClassifier(network.requires_grad_(False), (2, 2), MEAN, STD).double()


def pictures(count: int = 2, side: int = 8) -> Tensor:
    return torch.rand(count, 3, side, side, generator=seeded(), dtype=torch.float64)


@pytest.mark.parametrize("output", ["logit", "probability"])
def test_guided_backpropagation_is_captums(output: str) -> None:
    case = CASES["cnn"]()
    answers = Answers(case, output)
    answers.network = case.model.network  # where captum looks for rectifiers
    with pytest.warns(UserWarning, match="backward hooks"):
        expected = captum.attr.GuidedBackprop(answers).attribute(case.images.clone().requires_grad_(), TARGETS)
    expected = expected.abs().amax(1)
    plain = explainer("saliency", case.model, output=output, resolution="pixel").attribute(case.images, TARGETS)
    assert not torch.allclose(expected, plain)
    check_maps(case, "guided_backprop", expected, "mean", output=output)


@pytest.mark.parametrize(
    ("rectify", "open_"),
    [
        (F.relu, lambda x: x > 0),
        (torch.relu, lambda x: x > 0),
        (lambda x: torch.relu(input=x), lambda x: x > 0),
        (lambda x: F.relu(x, inplace=True), lambda x: x > 0),
        (lambda x: x.relu_(), lambda x: x > 0),
        (lambda x: (x.relu_(), x)[1], lambda x: x > 0),
        (nn.ReLU6(), lambda x: (x > 0) & (x < 6)),
        (nn.ReLU6(inplace=True), lambda x: (x > 0) & (x < 6)),
        (lambda x: F.hardtanh(x, -1, 1), None),
    ],
)
def test_a_negative_gradient_passes_no_rectifier_however_it_is_written(rectify: object, open_: object) -> None:
    values = (4 * torch.randn(3, 50, generator=seeded())).requires_grad_()
    slopes = torch.randn(3, 50, generator=seeded(1))
    with Guided():
        (found,) = torch.autograd.grad((slopes * rectify(1.0 * values)).sum(), values)  # type: ignore[operator]
    if open_ is None:
        assert (found < 0).any(), "that one is no rectifier"
    else:
        torch.testing.assert_close(found, slopes.clamp(min=0) * open_(values.detach()))  # type: ignore[operator]


@pytest.mark.parametrize("name", ["guided_backprop", "full_grad"])
def test_what_is_not_made_of_rectifiers_is_refused_with_the_reason(name: str) -> None:
    line = f"{name} is for convolutional networks whose activations are all ReLU, and %s: use smoothgrad"
    assert refusal(explainer, name, CASES["registers"]().model).startswith(line % "VisionTransformer is a transformer")
    bare = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten())
    assert refusal(explainer, name, painted(bare)).startswith(line % "Sequential has no layer nn.ReLU or nn.ReLU6")
    mixed = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.ReLU(), nn.GELU(), nn.Flatten())
    assert refusal(explainer, name, painted(mixed)).startswith(line % "Sequential has GELU, SiLU")
    assert explainer(name, painted(SIX)).attribute(pictures(), TARGETS[:2]).shape == (2, 2, 2)


def test_full_grad_is_the_librarys_image_by_image() -> None:
    case = CASES["cnn"]()
    plain, images = small_cnn().float(), case.images.float()
    parts = []
    for image, target in zip(normalised(images), TARGETS.tolist(), strict=True):
        with FullGrad(plain, []) as cam:
            parts.append(torch.from_numpy(cam(image[None], [ClassifierOutputTarget(target)])))
    expected = torch.cat(parts)
    assert expected.flatten(1).std(1).gt(0.01).all()
    pixels, maps = (
        explainer("full_grad", case.model.float(), resolution=resolution).attribute(images, TARGETS)
        for resolution in ("pixel", "patch")
    )
    torch.testing.assert_close(pixels, expected, rtol=1e-5, atol=1e-5)
    check_patches(case, maps.double(), expected, "mean", 1e-5, 1e-5)


class TwoHeads(nn.Module):
    """What its second head says is nobody's business."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = small_cnn(), nn.Conv2d(3, 2, 3)

    def forward(self, images: Tensor) -> Tensor:
        self.other(images)
        return self.one(images)


def test_the_biases_of_another_head_are_no_part_of_the_answer() -> None:
    networks = (small_cnn(), TwoHeads())
    alone, beside = (explainer("full_grad", painted(each)).attribute(pictures(), TARGETS[:2]) for each in networks)
    torch.testing.assert_close(beside, alone)


class Fused(nn.Module):
    """A norm with its activation in it, a rectifier in place, a gate, and convolutions: by keywords, and run twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.relu = BatchNormAct2d(6, act_layer=nn.ReLU6, inplace=True), nn.ReLU(inplace=True)
        self.head = nn.Linear(6, 5)
        for value in [*self.parameters(), self.norm.running_mean]:
            value.data = torch.randn(value.shape, generator=seeded(value.numel())) / 2

    def forward(self, images: Tensor) -> Tensor:
        first = F.conv2d(input=images, weight=self.first.weight, bias=self.first.bias, padding=1)
        cells = self.relu(self.again(self.norm(first)))
        return self.head(self.relu(self.again(cells)).mean((2, 3)))


@pytest.mark.parametrize("build", [SmallCnn, Fused])
def test_input_and_biases_times_their_gradients_are_the_answer(build: type[nn.Module]) -> None:
    """Equation 2 of the paper, for which no bias may be missing, twice there, or taken behind its activation."""
    network, images = build().double().eval(), normalised(pictures()).requires_grad_()
    with Biases() as biases:
        answers = network(images)[:, 1]
    of_input, *of_biases = torch.autograd.grad(answers.sum(), [images, *biases.outputs()])
    assert len(of_biases) == (3 if build is SmallCnn else 4)
    total = (of_input * images).sum((1, 2, 3)) + network.head.bias[1]
    for gradient, bias in zip(of_biases, biases.values, strict=True):
        total = total + (gradient * bias[:, None, None]).sum((1, 2, 3))
    if build is SmallCnn:
        torch.testing.assert_close(total, answers)
    else:
        # A rectifier that is full at 6 answers with 6, which is neither of an input nor of a bias.
        full = 6 * _gradient_where_full(network, images.detach())
        torch.testing.assert_close(total + full, answers)


def _gradient_where_full(network: nn.Module, images: Tensor) -> Tensor:
    """What the answers gain for each unit that the cells gain at which ReLU6 is full, [B]."""
    norm = network.norm
    cells = F.batch_norm(
        network.first(images), norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
    )
    cut = cells.clamp(0, 6).detach().requires_grad_()
    found = network.again(network.again(cut).relu()).relu().mean((2, 3))
    (gradient,) = torch.autograd.grad(network.head(found)[:, 1].sum(), cut)
    return (gradient * (cells > 6)).sum((1, 2, 3))
