"""Deletion and insertion against a float64 transcription with loops, pytorch-grad-cam, and sums done by hand."""

import math
import re
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from pytorch_grad_cam.metrics.perturbation_confidence import (
    PerturbationConfidenceMetric,
    RemoveLeastRelevantFirst,
    RemoveMostRelevantFirst,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from scipy.stats import chisquare
from torch import Tensor, nn

from tests.toolbox import randn, refusal, seeded
from xai.metrics import functional as F

TARGETS = torch.tensor([[4, 1], [0, 0], [2, 3]])


def pictures(count: int = 3, height: int = 5, width: int = 7) -> Tensor:
    return torch.rand(count, 3, height, width, generator=seeded(), dtype=torch.float64)


def maps(count: int = 3, height: int = 5, width: int = 7) -> Tensor:
    return randn(count, height, width, seed=1)


class Network(nn.Module):
    """Five classes, not linear in the pixels, in float64; how many images came each time is written down."""

    def __init__(self, pixels: int = 35) -> None:
        super().__init__()
        weights = [torch.randn(size, generator=seeded(2), dtype=torch.float64) for size in ((3 * pixels, 8), (8, 5))]
        self.into, self.out = (nn.Parameter(weight) for weight in weights)
        self.asked: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.asked.append(len(images))
        return torch.tanh(images.flatten(1) @ self.into) @ self.out


def transcribed(
    network: nn.Module, image: Tensor, importance: Tensor, reference: Tensor, target: int, steps: int
) -> tuple[list[float], list[float]]:
    """Deletion and insertion of one image and class, pixel by pixel."""
    height, width = importance.shape
    places = [(y, x) for y in range(height) for x in range(width)]
    ranked = sorted(places, key=lambda place: -importance[place].item())

    def confidence(pixels: Tensor) -> float:
        exponents = [math.exp(z) for z in network(pixels[None])[0].tolist()]
        return exponents[target] / sum(exponents)

    deletion, insertion = [], []
    for step in range(steps):
        count = round(len(ranked) * step / (steps - 1))
        without, only = image.clone(), reference.clone()
        for y, x in ranked[:count]:
            without[:, y, x] = reference[:, y, x]
            only[:, y, x] = image[:, y, x]
        deletion.append(confidence(without))
        insertion.append(confidence(only))
    return deletion, insertion


@pytest.mark.parametrize("steps", [2, 3, 21, 50])
@pytest.mark.parametrize("references", [1, 3])
def test_curves_are_the_transcription(steps: int, references: int) -> None:
    network, images, phi = Network(36), pictures(width=9, height=4), maps(width=9, height=4)
    reference = torch.rand(references, 3, 4, 9, generator=seeded(3), dtype=torch.float64)
    curves = F.perturbation_curves(network, images, phi, TARGETS, reference, seeded(), steps)
    for image in range(3):
        for column in range(2):
            elsewhere, target = reference[image % references], int(TARGETS[image, column])
            expected = transcribed(network, images[image], phi[image], elsewhere, target, steps)
            for curve, values in zip(curves, expected, strict=True):
                assert curve.shape == (3, steps, 2)
                torch.testing.assert_close(curve[image, :, column], torch.tensor(values).double(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("height", "width", "steps"), [(5, 8, 21), (10, 10, 5)])
def test_points_are_those_of_pytorch_grad_cam(height: int, width: int, steps: int) -> None:
    # Where every share is a whole number of pixels; its percentile 100 removes a pixel, where our share 0 removes none.
    network, images, phi = Network(height * width), pictures(2, height, width), maps(2, height, width)
    curves = F.perturbation_curves(network, images, phi, TARGETS[:2, :1], torch.zeros_like(images), seeded(), steps)
    wanted = [ClassifierOutputSoftmaxTarget(target) for target in TARGETS[:2, 0].tolist()]

    def black(image: Tensor, kept: Tensor) -> Tensor:
        return image * kept

    for step in range(steps):
        share = 100 * step / (steps - 1)
        points = []
        if step:
            points.append((curves.deletion, RemoveMostRelevantFirst(100 - share, black)))
        if step < steps - 1:
            points.append((curves.insertion, RemoveLeastRelevantFirst(share, black)))
        for curve, perturbation in points:
            metric = PerturbationConfidenceMetric(perturbation)
            with torch.no_grad():
                peer = metric(images, phi.numpy(), wanted, network, return_diff=False)
            np.testing.assert_allclose(curve[:, step, 0].numpy(), peer, rtol=1e-6)


@pytest.mark.parametrize("steps", [2, 3, 4, 21, 36, 50])
def test_what_a_map_inserts_its_negative_deletes_read_backwards(steps: int) -> None:
    # 35 pixels: a half of them is no whole number.
    network, images, reference = Network(), pictures(), torch.zeros(1, 3, 5, 7)
    of_map, of_negative = (
        F.perturbation_curves(network, images, phi, TARGETS, reference, seeded(), steps) for phi in (maps(), -maps())
    )
    torch.testing.assert_close(of_negative.deletion.flip(1), of_map.insertion, rtol=1e-12, atol=0)
    torch.testing.assert_close(of_negative.insertion.flip(1), of_map.deletion, rtol=1e-12, atol=0)


@pytest.mark.parametrize("chunk", [1, 7, 40, 119, 256, 0])
def test_chunks_change_nothing_and_no_image_is_asked_twice(chunk: int) -> None:
    network = Network()
    seen: list[Tensor] = []

    def classify(images: Tensor) -> Tensor:
        seen.append(images)
        return network(images)

    reference = torch.rand(3, 3, 5, 7, generator=seeded(3), dtype=torch.float64)
    curves = F.perturbation_curves(classify, pictures(), maps(), TARGETS, reference, seeded(), chunk=chunk)
    assert max(network.asked) <= (chunk or 120)
    assert sum(network.asked) == len(torch.cat(seen).unique(dim=0)) == 3 * 40
    whole = F.perturbation_curves(network, pictures(), maps(), TARGETS, reference, seeded())
    for curve, expected in zip(curves, whole, strict=True):
        torch.testing.assert_close(curve, expected, rtol=1e-12, atol=0)


def test_an_image_is_measured_alone_as_in_company() -> None:
    network, reference = Network(), torch.zeros(1, 3, 5, 7)
    phi = maps().clamp(min=0)
    together = F.perturbation_curves(network, pictures(), phi, TARGETS, reference, seeded())
    generator = seeded()
    alone = [
        F.perturbation_curves(network, image[None], one[None], targets[None], reference, generator)
        for image, one, targets in zip(pictures(), phi, TARGETS, strict=True)
    ]
    for curve, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(curve, torch.cat(parts), rtol=1e-12, atol=0)


def test_all_classes_come_from_one_pass() -> None:
    network, reference, every = Network(), torch.zeros(1, 3, 5, 7), torch.arange(5).expand(3, -1)
    together = F.perturbation_curves(network, pictures(), maps(), every, reference, seeded())
    assert network.asked == [120]
    for target in range(5):
        apart = F.perturbation_curves(network, pictures(), maps(), every[:, [target]], reference, seeded())
        assert torch.equal(together.deletion[..., [target]], apart.deletion)
        assert torch.equal(together.insertion[..., [target]], apart.insertion)


def test_ranks_are_the_places_in_the_order() -> None:
    phi = torch.tensor([[[0.5, -2.0, 3.0], [1.0, 0.0, -1.0]], [[-1.0, 2.0, 0.0], [5.0, 4.0, -3.0]]])
    assert F.pixel_ranks(phi, seeded()).tolist() == [[2, 5, 0, 1, 3, 4], [4, 2, 3, 0, 1, 5]]
    assert torch.equal(F.pixel_ranks(phi.bfloat16().requires_grad_(), seeded()), F.pixel_ranks(phi, seeded(7)))


@pytest.mark.parametrize(
    ("phi", "orders"),
    [
        ([0.0, 2.0, 0.0, 0.0], [[1, *rest] for rest in permutations([0, 2, 3])]),
        ([1.0, 5.0, 1.0, 5.0], [[*a, *b] for a in ([1, 3], [3, 1]) for b in ([0, 2], [2, 0])]),
        # Rounding is no order.
        ([0.1, 0.1, 0.1 + 1e-8, 0.1], [list(order) for order in permutations(range(4))]),
    ],
)
def test_ties_come_in_every_order_alike(phi: list[float], orders: list[list[int]]) -> None:
    copies = 4000
    found = F.pixel_ranks(torch.tensor(phi).reshape(1, 2, 2).expand(copies, -1, -1), seeded())
    seen = Counter(map(tuple, found.argsort(1).tolist()))
    assert set(seen) == set(map(tuple, orders))
    assert chisquare(list(seen.values())).pvalue > 1e-3


def test_the_generator_alone_decides() -> None:
    flat, state = torch.zeros(2, 5, 7), torch.random.get_rng_state()
    first, again, other = (F.pixel_ranks(flat, seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_callers_with_and_without_gradients_get_the_same(context: type) -> None:
    reference = torch.zeros(1, 3, 5, 7)
    expected = F.perturbation_curves(Network(), pictures(), maps(), TARGETS, reference, seeded())
    with context():
        images, phi = pictures().requires_grad_(), maps().requires_grad_()
        curves = F.perturbation_curves(Network(), images, phi, TARGETS, reference, seeded())
    for curve, value in zip(curves, expected, strict=True):
        assert not curve.requires_grad
        assert torch.equal(curve, value)


def test_under_autocast_the_classifier_is_in_half_precision_and_the_softmax_is_not() -> None:
    network, images, reference = Network().float(), pictures().float(), torch.zeros(1, 3, 5, 7)
    every, types = torch.arange(5).expand(3, -1), []

    def classify(pixels: Tensor) -> Tensor:
        types.append((pixels.dtype, (logits := network(pixels)).dtype))
        return logits

    expected = F.perturbation_curves(network, images, maps(), every, reference, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        curves = F.perturbation_curves(classify, images, maps(), every, reference, seeded())
    assert types == [(torch.float32, torch.bfloat16)]
    for curve, value in zip(curves, expected, strict=True):
        assert curve.dtype == torch.float64
        assert (curve.sum(-1) - 1).abs().max() < 1e-12
        assert 0 < (curve - value).abs().mean() < 0.02


def test_areas_are_numpys() -> None:
    curves = torch.rand(2, 3, 21, generator=seeded())
    expected = np.trapezoid(curves.double().numpy(), np.linspace(0, 1, 21))
    np.testing.assert_allclose(F.area(curves).numpy(), expected, rtol=1e-12)
    assert F.area(torch.tensor([1.0, 0.0])).item() == 0.5


@pytest.mark.parametrize("size", [(12, 15), (4, 5), (4, 30), (7, 11)])
def test_maps_are_enlarged_between_the_centres_of_patches(size: tuple[int, int]) -> None:
    phi = maps(2, 4, 5)
    found = F.enlarge_map(phi, size)
    assert found.shape == (2, *size)
    for y in range(size[0]):
        for x in range(size[1]):
            # Where the centre of the pixel lies among the centres of the patches.
            v = min(max((y + 0.5) * 4 / size[0] - 0.5, 0), 3)
            u = min(max((x + 0.5) * 5 / size[1] - 0.5, 0), 4)
            above, left = int(v), int(u)
            below, right = min(above + 1, 3), min(left + 1, 4)
            top = (1 - (u - left)) * phi[:, above, left] + (u - left) * phi[:, above, right]
            bottom = (1 - (u - left)) * phi[:, below, left] + (u - left) * phi[:, below, right]
            torch.testing.assert_close(found[:, y, x], (1 - (v - above)) * top + (v - above) * bottom)
    assert F.enlarge_map(found, size) is found


REFUSED = {
    "enlarge_map": {"maps": maps(height=4)},
    "maps of 7 x 5 do not rank the pixels of images of 5 x 7": {"maps": maps(height=7, width=5)},
    "the batch's maps of rows 1, 2 hold NaN": {"maps": maps().index_fill(0, torch.tensor([1, 2]), torch.nan)},
    "the batch's maps of rows 2 hold NaN": {"maps": maps().index_fill(0, torch.tensor(2), -torch.inf)},
    "class index 5 is out of range: the classifier has 5 classes": {"targets": TARGETS + 1},
    "class index -1 is out of range": {"targets": TARGETS - 1},
    "steps=1: .* use 2 or more": {"steps": 1},
    "chunk=-1 must be 0, .* or more": {"chunk": -1},
}


def ask(**changes: object) -> F.PerturbationCurves:
    given = {"images": pictures(), "maps": maps(), "targets": TARGETS, "reference": torch.zeros(1, 3, 5, 7)} | changes
    return F.perturbation_curves(given.pop("classify", Network()), generator=seeded(), **given)


@pytest.mark.parametrize(("message", "changes"), REFUSED.items(), ids=list(REFUSED))
def test_what_cannot_be_measured_is_refused_in_a_line(message: str, changes: dict[str, object]) -> None:
    assert re.search(message, refusal(ask, **changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"images": pictures()[:2]},
        {"maps": maps()[:, None]},
        {"targets": TARGETS[:, 0]},
        {"targets": TARGETS[:2]},
        {"targets": TARGETS[:, :0]},
        {"reference": torch.zeros(2, 3, 5, 7)},
        {"reference": torch.zeros(3, 5, 7)},
        {"images": pictures()[:0], "maps": maps()[:0], "targets": TARGETS[:0]},
        {"classify": lambda images: images.mean((1, 2, 3))},
    ],
)
def test_other_shapes_are_the_callers_mistake(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"have to be \[B, 3, H, W\]|has to be \[N, C\]"):
        ask(**changes)


def test_maps_and_curves_of_other_shapes_are_refused() -> None:
    assert "a map of 5 x 7 cannot be enlarged to 5 x 6" in refusal(F.enlarge_map, maps(), (5, 6))
    for call in (
        lambda: F.enlarge_map(maps()[0], (9, 9)),
        lambda: F.pixel_ranks(maps()[0], seeded()),
        lambda: F.pixel_ranks(maps()[:0], seeded()),
        lambda: F.area(torch.ones(4, 1)),
    ):
        with pytest.raises(ValueError, match=r"have to be \["):
            call()


@pytest.mark.gpu
@pytest.mark.parametrize("generator", ["cpu", "cuda"])
def test_on_a_gpu_the_curves_are_those_of_the_processor(generator: str) -> None:
    reference, network = torch.zeros(1, 3, 5, 7), Network()
    expected = F.perturbation_curves(network, pictures(), maps(), TARGETS, reference, seeded())
    network, images = network.cuda(), pictures().cuda()
    curves = F.perturbation_curves(network, images, maps(), TARGETS, reference, torch.Generator(generator))
    for curve, value in zip(curves, expected, strict=True):
        assert curve.is_cuda
        torch.testing.assert_close(curve.cpu(), value, rtol=1e-9, atol=1e-12)
