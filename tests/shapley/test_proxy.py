import pytest
import torch
from torch import Tensor

from tests.shapley.tables import TableGame, all_rows, codes, random_table, shapley_by_dividends
from tests.toolbox import randn, seeded
from xai.shapley.coalitions import SAMPLERS, sample
from xai.shapley.design import Design
from xai.shapley.kernel_shap import kernel_shap, kernel_shap_with_error
from xai.shapley.regression import SOLVERS, Regression

PLAYERS = 8


def nearly_additive(seed: int = 0) -> tuple[Tensor, Tensor]:
    """A table [3, 256] and a proxy [3, 8] that leaves a tenth of it unexplained."""
    worth = randn(3, PLAYERS, seed=seed)
    table = worth @ all_rows(PLAYERS).double().T + 0.1 * random_table(PLAYERS, seed + 1)
    return table, worth


def solve(table: Tensor, design: Design, solver: str, proxy: Tensor | None) -> Tensor:
    values = table[:, codes(design.coalitions)]
    return Regression(design, values, table[:, 0], table[:, -1], solver=solver, proxy=proxy).values()


def rmse(values: Tensor, exact: Tensor) -> float:
    return float((values - exact).square().mean().sqrt())


def estimates(table: Tensor, name: str, coalitions: int, solver: str, proxy: Tensor | None, designs: int) -> Tensor:
    draws = [sample(name, PLAYERS, coalitions, torch.Generator().manual_seed(seed)) for seed in range(designs)]
    return torch.stack([solve(table, design, solver, proxy) for design in draws])


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("classes", [None, 2])
def test_no_proxy_changes_a_fit_of_full_rank(name: str, classes: int | None) -> None:
    table = random_table(PLAYERS, classes=classes)
    proxy = 100 * torch.randn((*table.shape[:1], PLAYERS, *table.shape[2:]), generator=torch.Generator().manual_seed(1))
    design = sample(name, PLAYERS, 80, torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        solve(table, design, "least_squares", proxy), solve(table, design, "least_squares", None), rtol=1e-9, atol=1e-10
    )


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_design_too_small_to_decide_falls_back_on_the_proxy(name: str) -> None:
    table, worth = nearly_additive()
    exact = shapley_by_dividends(table)
    alone, helped = (estimates(table, name, 6, "least_squares", proxy, 50) for proxy in (None, worth))
    assert rmse(alone, exact) > 2.5 * rmse(helped, exact)


def test_what_the_design_leaves_open_is_the_proxys_to_say() -> None:
    """Players 1 and 3 are never told apart: their sum is the data's, their difference the proxy's."""
    table, proxy = random_table(PLAYERS), torch.randn(3, PLAYERS, generator=torch.Generator().manual_seed(2)).double()
    rows = sample("shapley_kernel", PLAYERS, 60, torch.Generator().manual_seed(0)).coalitions
    rows[:, 3] = rows[:, 1]
    design = Design.drawn(rows[~rows.all(1) & rows.any(1)])
    alone, helped = (solve(table, design, "least_squares", p) for p in (None, proxy))
    torch.testing.assert_close(helped[:, 1] - helped[:, 3], proxy[:, 1] - proxy[:, 3], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(helped[:, 1] + helped[:, 3], alone[:, 1] + alone[:, 3], rtol=1e-9, atol=1e-9)
    others = [0, 2, 4, 5, 6, 7]
    torch.testing.assert_close(helped[:, others], alone[:, others], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_good_proxy_takes_most_of_the_unbiased_solvers_error(name: str) -> None:
    table, worth = nearly_additive()
    exact = shapley_by_dividends(table)
    alone, helped = (estimates(table, name, 40, "unbiased", proxy, 100) for proxy in (None, worth))
    assert rmse(alone, exact) > 4 * rmse(helped, exact)


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_bad_proxy_costs_variance_but_not_the_mean(name: str) -> None:
    table, worth = nearly_additive()
    designs, exact = 1000, shapley_by_dividends(table)
    misled = estimates(table, name, 20, "unbiased", -worth, designs)
    deviations = (misled.mean(0) - exact) / (misled.std(0) / designs**0.5)
    assert deviations.abs().max() < 4
    assert rmse(misled, exact) > 1.2 * rmse(estimates(table, name, 20, "unbiased", None, 200), exact)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("coalitions", [4, 60])
def test_the_sum_is_the_games_whatever_the_proxys(solver: str, coalitions: int) -> None:
    table = random_table(PLAYERS)
    proxy = 5 + torch.randn(3, PLAYERS, generator=torch.Generator().manual_seed(1))
    phi = kernel_shap(TableGame(table), coalitions, torch.Generator().manual_seed(0), solver=solver, proxy=proxy)
    torch.testing.assert_close(phi.sum(1), table[:, -1] - table[:, 0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("coalitions", [2, 8, 60])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_proxy_that_is_right_about_an_additive_game_is_kept_as_it_is(solver: str, coalitions: int) -> None:
    worth = randn(2, PLAYERS, 3, seed=3)
    table = 7 + torch.einsum("sm,bmc->bsc", all_rows(PLAYERS).double(), worth)
    estimate = kernel_shap_with_error(TableGame(table), coalitions, seeded(), solver=solver, proxy=worth)
    torch.testing.assert_close(estimate.values, worth, rtol=1e-10, atol=1e-10)


def test_the_standard_error_knows_what_the_proxy_saves() -> None:
    table, worth = nearly_additive()
    alone, helped = (
        kernel_shap_with_error(
            TableGame(table), 60, torch.Generator().manual_seed(0), solver="unbiased", proxy=proxy
        ).standard_error
        for proxy in (None, worth)
    )
    assert float(alone.mean()) > 4 * float(helped.mean())
