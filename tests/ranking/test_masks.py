import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.ranking.toys import published_masks
from tests.toolbox import randn, seeded
from xai.ranking import masks as module
from xai.ranking.masks import order_masks, soft_masks
from xai.ranking.sorting import assignment_scores, gumbel_noise, plain_sinkhorn, soft_sort

SHARES = torch.linspace(0, 1, 6)[1:-1]


def permutation(cells: int = 6) -> torch.Tensor:
    return plain_sinkhorn(2 * randn(3, cells, cells), 500)


@pytest.mark.parametrize("steps", [2, 3, 7, 16])
def test_masks_are_cumulative_sums_with_straight_lines_between(steps: int) -> None:
    shares = torch.linspace(0, 1, steps, dtype=torch.float64)
    torch.testing.assert_close(soft_masks(permutation(), shares), published_masks(permutation(), shares))


def test_a_mask_adds_up_to_its_share_of_all_cells() -> None:
    shares = torch.tensor([0.0, 0.1, 0.5, 0.77, 1.0], dtype=torch.float64)
    masks = soft_masks(permutation(), shares)
    torch.testing.assert_close(masks.sum(2), (6 * shares).expand(3, -1))
    assert torch.equal(masks[:, 0], torch.zeros(3, 6).double())
    torch.testing.assert_close(masks[:, -1], torch.ones(3, 6).double())
    assert (masks.diff(dim=1) >= 0).all()


def test_a_hard_order_takes_whole_cells_the_first_first() -> None:
    order = torch.tensor([2, 0, 3, 1])
    hard = torch.nn.functional.one_hot(order, 4)[None].float()
    masks = soft_masks(hard, torch.linspace(0, 1, 5))[0]
    assert masks.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1]]


def test_autocast_rounds_no_mask() -> None:
    shares = torch.linspace(0, 1, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = soft_masks(permutation().float(), shares)
    assert torch.equal(found, soft_masks(permutation().float(), shares))


def by_the_plain_loop(scores: Tensor, noise: Tensor, temperature: float, iterations: int) -> Tensor:
    return soft_masks(plain_sinkhorn(assignment_scores(scores, noise, temperature), iterations), SHARES)


def by_scaling(scores: Tensor, noise: Tensor, temperature: float, iterations: int) -> Tensor:
    return order_masks(scores, noise, SHARES, temperature, iterations)


Masks = Callable[[Tensor, Tensor, float, int], Tensor]


def answers(masks: Masks, scores: Tensor, noise: Tensor, temperature: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Masks, and the gradient of some sum of them."""
    leaf = scores.clone().requires_grad_()
    found = masks(leaf, noise, temperature, iterations)
    (slope,) = torch.autograd.grad((found * randn(*found.shape, seed=9).to(found)).sum(), leaf)
    return found.detach().double(), slope.double()


@pytest.mark.parametrize("iterations", [1, 2, 30])
@pytest.mark.parametrize(("scale", "temperature"), [(0.0, 1.0), (1.0, 0.5), (20.0, 0.3), (5.0, 0.05)])
@pytest.mark.parametrize("bound", [math.inf, -1.0])
def test_values_and_gradients_are_those_of_the_plain_loop(
    monkeypatch: pytest.MonkeyPatch, bound: float, scale: float, temperature: float, iterations: int
) -> None:
    monkeypatch.setattr(module, "_LARGEST_DRIFT", bound)
    given = scale * randn(3, 13), gumbel_noise(3, 13, seeded()).double(), temperature, iterations
    for found, expected in zip(answers(by_scaling, *given), answers(by_the_plain_loop, *given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-9)


def test_the_derivative_is_that_of_finite_differences() -> None:
    noise = gumbel_noise(2, 4, seeded()).double()
    assert torch.autograd.gradcheck(lambda scores: by_scaling(scores, noise, 0.5, 5), randn(2, 4).requires_grad_())


def sharp(scale: float, temperature: float) -> tuple[Tensor, Tensor, float, int]:
    return scale * randn(1, 49).float(), gumbel_noise(1, 49, seeded(1)), temperature, 30


def drift(scores: Tensor, noise: Tensor, temperature: float, iterations: int) -> float:
    return float(module._drift(module._scalings(*module._normalised(scores, noise, temperature), iterations)))


@pytest.mark.parametrize(("scale", "temperature"), [(4, 0.05), (20, 0.3), (20, 0.01), (100, 0.01)])
def test_in_single_precision_no_score_is_too_sharp(scale: float, temperature: float) -> None:
    given = sharp(scale, temperature)
    (found, slope), (expected, expected_slope) = (
        answers(by_scaling, *given),
        answers(by_the_plain_loop, *doubled(given)),
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(slope, expected_slope, rtol=0, atol=1e-3 * float(expected_slope.abs().max()))
    # Of what one kernel does not hold the masks are those of the order itself.
    scores, noise, *rest = given
    assert (drift(*given) <= module._LARGEST_DRIFT) == (temperature > 0.01)
    order = soft_masks(soft_sort(scores, noise, *rest), SHARES)
    assert torch.equal(found, order.double()) == (temperature == 0.01)


def doubled(given: tuple[Tensor, Tensor, float, int]) -> tuple[Tensor, Tensor, float, int]:
    scores, noise, *rest = given
    return scores.double(), noise.double(), *rest


def test_rows_that_nothing_of_the_columns_falls_to_are_normalised_in_logarithms() -> None:
    scores, noise, temperature, _ = sharp(4, 0.05)
    kernel, rows = module._normalised(scores.double(), noise.double(), temperature)
    assert rows.amin() < module._SMALLEST_ROW
    logs = assignment_scores(scores.double(), noise.double(), temperature)
    torch.testing.assert_close(kernel, plain_sinkhorn(logs, 1))


def test_half_precision_scores_are_sorted_in_single() -> None:
    scores, noise = randn(2, 6).bfloat16(), gumbel_noise(2, 6, seeded())
    found = by_scaling(scores, noise, 0.3, 30)
    assert found.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(found, by_scaling(scores.float(), noise, 0.3, 30))


def test_an_iteration_keeps_two_numbers_a_row_and_not_the_matrix() -> None:
    cells = 20
    given = randn(1, cells).requires_grad_(), gumbel_noise(1, cells, seeded()).double(), 0.5

    def kept(iterations: int) -> int:
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda each: sizes.append(each.numel()) or each, lambda each: each
        ):
            by_scaling(*given, iterations)
        return sum(sizes)

    assert kept(40) - kept(10) == 30 * 2 * cells
    assert kept(10) <= 2 * cells**2 + (2 * 10 + 10) * cells


def test_masks_made_a_few_at_a_time_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, noise = randn(7, 9), randn(7, 9, 9, seed=1)
    expected = answers(by_the_plain_loop, scores, noise, 0.3, 5)
    made, some = [], module._masks
    monkeypatch.setattr(module, "_masks", lambda *given: made.append(len(given[0])) or some(*given))
    for cached, groups in ((10**9, [7]), (3 * noise[0].nbytes, [3, 3, 1]), (1, [1] * 7)):
        monkeypatch.setattr(module, "_CACHED", cached)
        made.clear()
        torch.testing.assert_close(answers(by_scaling, scores, noise, 0.3, 5), expected)
        assert made == groups
