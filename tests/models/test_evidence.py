from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from xai.models import evidence
from xai.models.evidence import CHANNELS, NODES, gradient_evidence, path_evidence
from xai.models.maskable import REFERENCES, MaskableClassifier, Removal, reference_image

MEAN = torch.tensor([0.2, 0.5, 0.7])
TARGETS = torch.tensor([1, 0])


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


class Squares(MaskableClassifier):
    """Sums of weighted squares: the gradient is weight times pixel."""

    grid = (1, 1)
    encode = decode = cost = None  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.weights = random(3, 3, 6, 5, seed=1) - 0.4

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        return torch.stack([(images.square() * weight).sum((1, 2, 3)) / 2 for weight in self.weights], dim=1)


def expected() -> Tensor:
    images, rows = random(2, 3, 6, 5).double(), []
    for image, target in zip(images, TARGETS.tolist(), strict=True):
        slope = Squares().weights[target].double() * image
        promise = slope * (image - MEAN.double()[:, None, None])
        parts = [slope, promise, promise.sum(0, keepdim=True), slope.abs().max(0, keepdim=True).values]
        rows.append(torch.cat([part / part.std() for part in parts]))
    return torch.stack(rows)


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e6])
def test_it_is_the_gradient_and_its_promise_in_units_of_each_image(size: float) -> None:
    asked = Squares()
    asked.weights = asked.weights * size
    found = gradient_evidence(asked, random(2, 3, 6, 5), TARGETS, MEAN)
    assert found.shape == (2, CHANNELS, 6, 5)
    torch.testing.assert_close(found.double(), expected(), rtol=1e-4, atol=1e-4)


def test_nothing_is_left_behind_and_nothing_needs_a_gradient() -> None:
    asked = Squares()
    with torch.inference_mode():
        images = random(2, 3, 6, 5)
        found = gradient_evidence(asked, images, TARGETS, MEAN)
    torch.testing.assert_close(found.double(), expected(), rtol=1e-4, atol=1e-4)
    assert not found.requires_grad
    assert images.grad is None


def test_a_class_without_gradient_has_no_evidence() -> None:
    asked = Squares()
    asked.weights = asked.weights * 0
    assert not gradient_evidence(asked, random(2, 3, 6, 5), TARGETS, MEAN).any()


def test_a_gradient_that_is_the_same_everywhere_tells_no_pixel_from_another() -> None:
    class Means(Squares):
        def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
            return images.mean((1, 2, 3))[:, None] * torch.tensor([0.3, -7.0])

    images = random(2, 3, 6, 5)
    found = gradient_evidence(Means(), images, TARGETS, MEAN)
    assert not found[:, [0, 1, 2, 7]].any()
    promise = (images - MEAN[:, None, None]) * torch.tensor([-1.0, 1.0])[:, None, None, None]
    spread = promise.flatten(1).std(1)[:, None, None, None]
    torch.testing.assert_close(found[:, 3:6], promise / spread, rtol=1e-4, atol=1e-4)


class Cubes(Squares):
    """Sums of weighted cubes: the gradient on the way differs from that at the end."""

    passes = 0

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        self.passes += len(images)
        return torch.stack([(images**3 * weight).sum((1, 2, 3)) / 3 for weight in self.weights], dim=1)


def test_evidence_of_paths_is_integrated_gradients_by_captum_with_four_midpoints() -> None:
    asked, images = Cubes(), random(2, 3, 16, 15)
    asked.weights = random(3, 3, 16, 15, seed=1) - 0.4
    found = path_evidence(asked, images, TARGETS, MEAN)
    expected = []
    for name in REFERENCES:
        reference = reference_image(images, Removal("pixels", name), MEAN).expand_as(images)
        captum = IntegratedGradients(asked, multiply_by_inputs=True)
        values = captum.attribute(images, baselines=reference, target=TARGETS, n_steps=NODES, method="riemann_middle")
        expected += [
            part / part.flatten(1).std(1)[:, None, None, None] for part in (values, values.sum(1, keepdim=True))
        ]
    torch.testing.assert_close(found, torch.cat(expected, dim=1), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("look", [False, True, "path"])
def test_a_look_has_the_channels_and_the_passes_that_it_says(look: Any) -> None:
    asked, images = Cubes(), random(2, 3, 6, 5)
    shown = evidence.evidence(look, asked, images, TARGETS, MEAN)
    assert (0 if shown is None else shown.shape[1]) == evidence.channels(look)
    # A forward pass and a backward pass, which counts as two, for each node and image.
    assert 3 * asked.passes == len(images) * evidence.passes(look)
