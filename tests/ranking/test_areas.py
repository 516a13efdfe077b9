from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.ranking.toys import Toy
from tests.toolbox import randn, seeded
from xai.ranking.areas import confidence, enlarge, path_areas, peak_penalty, perturb, trapezoid_weights

HEIGHT, WIDTH, GRID, STEPS = 9, 12, 4, 5


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy(HEIGHT, WIDTH)


def images(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, HEIGHT, WIDTH, generator=seeded(), dtype=torch.float64)


def masks(batch: int = 2, paths: int = 2, grid: int = GRID) -> Tensor:
    return torch.rand(batch, paths, STEPS, grid, grid, generator=seeded(1), dtype=torch.float64)


def simple_areas(
    classify: Callable[[Tensor], Tensor], x: Tensor, reference: Tensor, soft: Tensor, targets: Tensor, weights: Tensor
) -> Tensor:
    """One image, path and point at a time, everything kept for the way back."""
    areas = []
    for image in range(len(x)):
        for path in soft[image]:
            pixels = enlarge(path[:, None], HEIGHT, WIDTH, 1.0)
            curve = [
                classify(torch.lerp(x[image], reference[image % len(reference)], mask)[None]).softmax(-1)[0]
                for mask in pixels
            ]
            areas.append(sum(w * point[targets[image]].mean() for w, point in zip(weights, curve, strict=True)))
    return torch.stack(areas).reshape(len(x), -1)


def slope(areas: Tensor, leaf: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad((areas * randn(*areas.shape, seed=8).to(areas)).sum(), leaf)
    return gradient


@pytest.mark.parametrize("steps", [2, 5, 16])
def test_weights_are_those_of_the_trapezoid_rule(steps: int) -> None:
    curve = randn(steps)
    expected = np.trapezoid(curve.numpy(), np.linspace(0, 1, steps))
    assert (trapezoid_weights(steps) * curve).sum().item() == pytest.approx(expected, abs=1e-6)


def test_confidences_are_the_probabilities_of_the_targets() -> None:
    logits, targets = randn(3, 4), torch.tensor([[0, 3], [1, 1], [2, 0]])
    found = confidence(logits, targets)
    for image in range(3):
        for column in range(2):
            expected = logits[image].exp()[targets[image, column]] / logits[image].exp().sum()
            torch.testing.assert_close(found[image, column], expected)
    assert confidence(logits.bfloat16(), targets).dtype == torch.float32


@pytest.mark.parametrize("owners", [1, 2])
@pytest.mark.parametrize("classes", [1, 2])
@pytest.mark.parametrize("chunk", [0, 1, 3, 5, 99])
def test_areas_and_gradient_are_those_of_a_computation_that_keeps_all(
    toy: Toy, chunk: int, classes: int, owners: int
) -> None:
    x, leaf, weights = images(), masks().requires_grad_(), trapezoid_weights(STEPS)
    targets = torch.tensor([[0, 3], [2, 1]])[:, :classes]
    reference = torch.rand(owners, 3, HEIGHT, WIDTH, generator=seeded(2), dtype=torch.float64)
    areas, values = path_areas(toy, x, reference, leaf, targets, weights, 1.0, chunk)
    expected = simple_areas(toy, x, reference, leaf, targets, weights)
    torch.testing.assert_close(areas, expected)
    torch.testing.assert_close((values.mean(-1) * weights).sum(-1), areas)
    assert values.shape == (2, 2, STEPS, classes)
    assert not values.requires_grad
    torch.testing.assert_close(slope(areas, leaf), slope(expected, leaf))


def test_no_pass_holds_more_images_than_the_chunk_and_one_serves_all_classes(toy: Toy) -> None:
    sizes: list[int] = []

    def counting(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return toy(x)

    targets = torch.tensor([[0, 1, 2], [1, 2, 3]])
    path_areas(counting, images(), images(), masks().requires_grad_(), targets, trapezoid_weights(STEPS), 1.0, 8)
    assert sizes == [8, 8, 4]


def test_without_a_gradient_none_is_computed(toy: Toy) -> None:
    graphs: list[bool] = []

    def looking(x: Tensor) -> Tensor:
        graphs.append(x.requires_grad)
        return toy(x)

    weights, targets = trapezoid_weights(STEPS), torch.tensor([[0], [1]])
    areas, _ = path_areas(looking, images(), images(), masks(), targets, weights, 1.0, 0)
    assert graphs == [False]
    assert not areas.requires_grad
    torch.testing.assert_close(areas, simple_areas(toy, images(), images(), masks(), targets, weights))


def test_a_grid_beyond_the_image_is_cropped_to_where_the_image_begins(toy: Toy) -> None:
    leaf, weights, targets = masks(grid=5).requires_grad_(), trapezoid_weights(STEPS), torch.tensor([[0], [1]])
    areas, _ = path_areas(toy, images(), images().flip(0), leaf, targets, weights, 1.0, 0, (3, 1, 2))
    pixels = enlarge(leaf, HEIGHT + 3, WIDTH + 3, 1.0)[..., 1 : 1 + HEIGHT, 2 : 2 + WIDTH]
    for image in range(2):
        shown = perturb(
            images()[image : image + 1], images().flip(0)[image : image + 1], pixels[image].flatten(0, 1)[None]
        )
        curves = toy(shown[0]).softmax(-1)[:, targets[image, 0]].reshape(2, STEPS)
        torch.testing.assert_close(areas[image], (curves * weights).sum(1))


def test_the_classifier_collects_no_gradient(toy: Toy) -> None:
    leaf = masks().requires_grad_()
    areas, _ = path_areas(toy, images(), images(), leaf, torch.tensor([[0], [1]]), trapezoid_weights(STEPS), 1.0, 3)
    areas.sum().backward()
    assert leaf.grad is not None
    assert all(parameter.requires_grad and parameter.grad is None for parameter in toy.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_is_the_classifiers_alone(dtype: torch.dtype) -> None:
    toy, seen = Toy(HEIGHT, WIDTH, dtype=torch.float32), []
    network = nn.Sequential(nn.Conv2d(3, 3, 1), toy)

    def looking(x: Tensor) -> Tensor:
        seen.append(x.detach())
        return network(x)

    def both(soft: Tensor) -> tuple[Tensor, Tensor]:
        leaf = soft.float().requires_grad_()
        x, targets = images().float(), torch.tensor([[0, 1], [1, 2]])
        areas, _ = path_areas(looking, x, 0 * x, leaf, targets, trapezoid_weights(STEPS), 1.0, 0)
        return areas, slope(areas, leaf)

    expected, expected_slope = both(masks())
    with torch.autocast("cpu", dtype=dtype):
        found, found_slope = both(masks())
    assert torch.equal(*seen)
    assert found.dtype == found_slope.dtype == torch.float32
    assert not torch.equal(found, expected)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02)
    torch.testing.assert_close(found_slope, expected_slope, rtol=0, atol=0.1 * expected_slope.abs().max().item())


def test_in_float16_small_gradients_do_not_vanish() -> None:
    class Faint(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            level = 1e-5 * x.half().sum((1, 2, 3))
            return torch.stack([level, -level], dim=1)

    leaf, x = masks().float().requires_grad_(), images().float()
    areas, _ = path_areas(Faint(), x, 0 * x, leaf, torch.tensor([[0], [0]]), trapezoid_weights(STEPS), 0.0, 0)
    assert (slope(areas, leaf)[:, :, 1:-1] != 0).all()


def test_a_second_derivative_is_refused_instead_of_wrong(toy: Toy) -> None:
    leaf = masks().requires_grad_()
    areas, _ = path_areas(toy, images(), images(), leaf, torch.tensor([[0], [1]]), trapezoid_weights(STEPS), 1.0, 0)
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad((areas * scale).square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def mirrored(index: int, size: int) -> int:
    return -index if index < 0 else 2 * (size - 1) - index if index >= size else index


def loop_penalty(values: Tensor, window: int) -> Tensor:
    """Pixel by pixel, the neighbourhood mirrored at the border."""
    (height, width), reach, total = values.shape, window // 2, 0.0
    for row in range(height):
        for column in range(width):
            around = [
                values[mirrored(row + down, height), mirrored(column + across, width)]
                for down in range(-reach, reach + 1)
                for across in range(-reach, reach + 1)
            ]
            total = total + (values[row, column] - torch.stack(around).mean()).clamp(min=0) ** 2
    return total / (height * width)


@pytest.mark.parametrize("window", [1, 3, 7])
def test_peaks_are_what_stands_out_of_its_neighbourhood(window: int) -> None:
    maps = randn(2, 5, 7).requires_grad_()
    found, expected = peak_penalty(maps, window), torch.stack([loop_penalty(one, window) for one in maps])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(slope(found, maps), slope(expected, maps))


def test_a_peak_costs_more_than_a_hole_and_a_flat_map_nothing() -> None:
    flat = torch.ones(1, 9, 9, dtype=torch.float64)
    assert peak_penalty(flat, 5).item() == pytest.approx(0, abs=1e-30)
    hill, hole = flat.clone(), flat.clone()
    hill[0, 4, 4], hole[0, 4, 4] = 2, 0
    assert peak_penalty(hill, 3).item() == pytest.approx((8 / 9) ** 2 / 81)
    assert peak_penalty(hole, 3).item() == pytest.approx(8 * (1 / 9) ** 2 / 81)
