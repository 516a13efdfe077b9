"""Chances of informed masks against all orders enumerated, and what weighing by them does to a least squares fit."""

import pytest
import torch
from torch import Tensor

from tests.orders import coalition_probabilities, min_max
from tests.shapley.tables import all_rows, codes, random_table, shapley_by_permutations
from tests.toolbox import seeded
from xai.methods.vit_shapley import efficient, fast_shap_loss
from xai.sampling import SMALLEST_WEIGHT, importance_weights
from xai.shapley.importance import draw_chances, informed_chances, kernel_chances, kernel_weights

PHI = [0.7, -0.2, 0.1, 0.4, 0.35]
PLAYERS = len(PHI)
ROWS = all_rows(PLAYERS)


@pytest.mark.parametrize("weights", [[0.2, 0.9, 0.5, 0.05, 0.3], [1.0, 1.0, 1.0, 1.0, 1.0], [0.0, 1.0, 0.3, 0.3, 0.6]])
def test_a_draw_begins_with_a_coalition_as_often_as_its_orders_say(weights: list[float]) -> None:
    some = [max(weight, SMALLEST_WEIGHT) for weight in weights]
    expected = sum(coalition_probabilities(some, size) for size in range(PLAYERS + 1))
    found = draw_chances(torch.tensor([weights], dtype=torch.float64), ROWS[None])[0].exp()
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)


def test_chances_of_a_size_add_up_to_one_whatever_the_weights() -> None:
    players = 12
    rows = all_rows(players)
    weights = 10 ** (-6 * torch.rand(3, players, generator=seeded(), dtype=torch.float64))
    found = draw_chances(weights, rows.expand(3, -1, -1)).exp()
    sums = torch.zeros(3, players + 1, dtype=torch.float64).index_add(1, rows.sum(1), found)
    torch.testing.assert_close(sums, torch.ones_like(sums), rtol=1e-7, atol=0)


def test_informed_chances_are_those_of_both_halves_of_algorithm_3() -> None:
    halves = [min_max(PHI), [1 - weight for weight in min_max(PHI)]]
    expected = torch.zeros(len(ROWS), dtype=torch.float64)
    for half in halves:
        some = [max(weight, SMALLEST_WEIGHT) for weight in half]
        expected += sum(coalition_probabilities(some, size) for size in range(1, PLAYERS + 1)) / (2 * PLAYERS)
    found = informed_chances(torch.tensor([PHI], dtype=torch.float64), ROWS[None, 1:])[0].exp()
    torch.testing.assert_close(found, expected[1:], rtol=1e-7, atol=0)


@pytest.mark.parametrize("informed", [1.0, 0.5])
def test_weighed_draws_count_as_the_shapley_kernel(informed: float) -> None:
    phi = torch.tensor([PHI], dtype=torch.float64)
    kernel = kernel_chances(ROWS).exp()
    assert kernel.sum().item() == pytest.approx(1, rel=1e-12)
    drawn = informed * informed_chances(phi, ROWS[None, 1:])[0].exp() + (1 - informed) * kernel[1:]
    weights = kernel_weights(phi, ROWS[None, 1:], informed)[0]
    torch.testing.assert_close(weights * drawn, kernel[1:], rtol=1e-10, atol=1e-15)
    assert weights[-1] == 0
    # A half of the kernel's own bounds them; without it they are as large as the smallest weight is small.
    assert (weights.max() <= 2) == (informed == 0.5)
    assert (weights.max() > 1e3) == (informed == 1)


def fitted(table: Tensor, counts: Tensor, rows: Tensor) -> Tensor:
    """What minimises the objective where coalition `rows` [S, M] count `counts` [B, S]."""
    grand, null, answers = table[:, -1], table[:, 0], table[:, codes(rows)]
    values = torch.zeros(len(table), PLAYERS, 2, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([values], max_iter=300, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimiser.zero_grad()
        keep = rows.expand(len(table), -1, -1)
        loss = fast_shap_loss(efficient(values, grand, null), keep, answers, null, counts)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    return efficient(values.detach(), grand, null)


@pytest.mark.parametrize("informed", [1.0, 0.5])
def test_weighed_informed_masks_have_the_shapley_values_as_their_fixed_point_and_unweighed_ones_have_not(
    informed: float,
) -> None:
    table, rows = random_table(PLAYERS, games=2, classes=2), ROWS[1:]
    exact = shapley_by_permutations(table)
    # Masks follow the map that is to be found.
    phi = exact[:, :, 0]
    keep = rows.expand(2, -1, -1)
    drawn = informed * informed_chances(phi, keep).exp() + (1 - informed) * kernel_chances(keep).exp()
    weighed = fitted(table, drawn * kernel_weights(phi, keep, informed), rows)
    torch.testing.assert_close(weighed, exact, rtol=0, atol=1e-6)
    assert (fitted(table, drawn, rows) - exact).abs().max() > 0.02


def test_a_map_that_says_nothing_is_drawn_evenly() -> None:
    phi = torch.full((1, PLAYERS), 0.3)
    assert torch.equal(importance_weights(phi), torch.full((1, PLAYERS), 0.5))
    found = informed_chances(phi, ROWS[None, 1:])[0].exp()
    for size in range(1, PLAYERS):
        of_size = found[ROWS[1:].sum(1) == size]
        torch.testing.assert_close(of_size, torch.full_like(of_size, 1 / PLAYERS / len(of_size)), rtol=1e-7, atol=0)
