import math
from dataclasses import replace

import pytest
import torch

from tests.stages.bench import FIT
from xai.papers.vectors.params import TransferParams, choose_lambda2
from xai.results import Result
from xai.stages.controls import ink, other_classes

PARAMS = TransferParams(
    alpha=0.1,
    lambda1=1.0,
    lambda2=None,
    lambda2_grid=(0.4, 0.8),
    accuracy_tolerance=0.02,
    source_images=None,
    target_images=None,
    validation_images=None,
    test_images=None,
    bound=True,
    bound_coalitions=16,
    source_fit=FIT,
    target_fit=FIT,
    bound_fit=FIT,
)


def row(lambda2: float, accuracy: float, e_rmse: float) -> Result:
    metrics = {"accuracy": accuracy, "e_rmse": e_rmse}
    return Result(
        *("transfer", "proposed", "a", "b", "tiny", 0, {"lambda2": lambda2}, metrics, 1, 0.0, 0, "validation")
    )


def test_lambda2_is_the_best_explainer_among_those_that_keep_the_accuracy() -> None:
    rows = [row(0.4, 0.95, 1.2), row(0.7, 0.94, 1.0), row(1.0, 0.93, 0.9), row(1.2, 0.80, 0.8)]
    assert choose_lambda2(rows, 0.93) == 1.0
    assert choose_lambda2(rows[::-1], 0.93) == 1.0
    assert choose_lambda2(rows, 0.0) == 1.2
    assert choose_lambda2(rows, 0.945) == 0.4


def test_where_none_keeps_the_accuracy_the_most_accurate_is_taken() -> None:
    rows = [row(0.4, 0.90, 1.2), row(0.7, 0.91, 1.1), row(1.0, 0.91, 0.9)]
    assert choose_lambda2(rows, 0.95) == 0.7  # of two alike the smaller step
    assert choose_lambda2(rows[:1], 0.95) == 0.4


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_another_class_is_never_the_own_one_and_every_other_is_drawn_alike(classes: int) -> None:
    labels = torch.arange(6000) % classes
    others = other_classes(labels, classes)
    assert (others != labels).all()
    assert others.min() == 0
    assert others.max() == classes - 1
    table = torch.zeros(classes, classes)
    for label, other in zip(labels.tolist(), others.tolist(), strict=True):
        table[label, other] += 1
    expected = 6000 / classes / (classes - 1)
    off_diagonal = table[~torch.eye(classes, dtype=torch.bool)]
    assert (off_diagonal - expected).abs().max() <= 5 * math.sqrt(expected)
    assert torch.equal(others, other_classes(labels, classes))


@pytest.mark.parametrize(("side", "grid"), [(12, (3, 3)), (9, (3, 3)), (8, (2, 4)), (6, (6, 6))])
def test_ink_is_the_mean_distance_from_the_median_brightness(side: int, grid: tuple[int, int]) -> None:
    pixels = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = ink(pixels, grid)
    assert found.shape == (3, *grid)
    down, across = side // grid[0], side // grid[1]
    for image in range(3):
        grey = [[sum(float(pixels[image, c, y, x]) for c in range(3)) / 3 for x in range(side)] for y in range(side)]
        levels = sorted(level for line in grey for level in line)
        median = levels[(len(levels) - 1) // 2]
        for r in range(grid[0]):
            for q in range(grid[1]):
                places = [(r * down + y, q * across + x) for y in range(down) for x in range(across)]
                expected = sum(abs(grey[y][x] - median) for y, x in places) / len(places)
                assert float(found[image, r, q]) == pytest.approx(expected, rel=1e-10)


def test_ink_does_not_care_whether_the_ink_is_light_or_dark() -> None:
    pixels = torch.full((2, 3, 8, 8), 0.5)
    pixels[0, :, :4, :4], pixels[1, :, :4, :4] = 0.9, 0.1
    found = ink(pixels, (2, 2))
    torch.testing.assert_close(found[0], found[1])
    assert found[0].flatten().tolist() == pytest.approx([0.4, 0, 0, 0])


def test_the_ranges_include_their_ends() -> None:
    replace(PARAMS, alpha=0.0, lambda1=0.0, lambda2=10.0, lambda2_grid=(0.0,), accuracy_tolerance=0.0)
