import numpy as np
import pytest
import shap
import torch
from torch import Tensor

from tests.shapley.tables import codes, random_table, shapley_by_dividends, smooth_table
from xai.shapley.coalitions import SAMPLERS, paired, sample
from xai.shapley.design import Design
from xai.shapley.distinct import all_coalitions
from xai.shapley.regression import SOLVERS, Regression


def solve(table: Tensor, design: Design, solver: str = "least_squares") -> Tensor:
    values = table[:, codes(design.coalitions)]
    return Regression(design, values, table[:, 0], table[:, -1], solver=solver).values()


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("players", [2, 3, 8, 12])
@pytest.mark.parametrize("classes", [None, 3])
def test_every_coalition_once_with_its_weight_gives_the_shapley_values(
    players: int, classes: int | None, solver: str
) -> None:
    table = random_table(players, classes=classes)
    phi = solve(table, all_coalitions(players), solver)
    torch.testing.assert_close(phi, shapley_by_dividends(table), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("players", "coalitions"), [(8, 60), (10, 200), (12, 90), (12, 5000)])
def test_the_coalitions_and_weights_of_the_shap_package_give_its_values(players: int, coalitions: int) -> None:
    """Samples of its own, some sizes enumerated: 5,000 is more than 12 players have."""
    table = smooth_table(players, games=1)

    def values(rows: np.ndarray) -> np.ndarray:
        return table[0, codes(torch.from_numpy(rows > 0.5))].numpy()

    np.random.seed(0)
    explainer = shap.KernelExplainer(values, np.zeros((1, players)), silent=True)
    expected = explainer.shap_values(np.ones((1, players)), nsamples=coalitions, l1_reg=False)
    used = explainer.nsamplesAdded
    weights = torch.from_numpy(explainer.kernelWeights[:used])
    design = Design(torch.from_numpy(explainer.maskMatrix[:used] > 0.5), weights, torch.zeros(used), paired=False)
    assert len(weights.unique()) > 1
    np.testing.assert_allclose(solve(table, design).numpy(), expected, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_sum_over_players_is_the_whole_exactly_even_from_two_coalitions(name: str, solver: str) -> None:
    table = random_table(8, classes=2)
    for coalitions in (2, 6, 60):
        phi = solve(table, sample(name, 8, coalitions, torch.Generator().manual_seed(0)), solver)
        torch.testing.assert_close(phi.sum(1), table[:, -1] - table[:, 0], rtol=0, atol=1e-12)


def test_players_that_no_coalition_tells_apart_share_alike() -> None:
    rows = paired(5, 40, torch.Generator().manual_seed(0)).coalitions
    rows[:, 3] = rows[:, 1]
    rows = rows[~rows.all(1) & rows.any(1)]
    table = random_table(5)
    phi = solve(table, Design.drawn(rows))
    torch.testing.assert_close(phi[:, 1], phi[:, 3], rtol=0, atol=1e-10)
    # And what the two have in common is what one player in their place would have.
    joined = rows[:, [0, 1, 2, 4]].double()
    rest = table[:, codes(rows)] - table[:, :1]
    shares = torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    hessian = torch.block_diag(joined.T @ joined, torch.zeros(1, 1))
    hessian[-1, :4] = hessian[:4, -1] = torch.ones(4)
    right = torch.cat([joined.T @ rest.T, (table[:, -1] - table[:, 0])[None]])
    expected = torch.linalg.solve(hessian, right)[:4].T
    torch.testing.assert_close(phi[:, [0, 1, 2, 4]] * shares, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_solution_is_the_constrained_weighted_least_squares_one(name: str) -> None:
    """Against the Karush-Kuhn-Tucker system of the same design, every class at once."""
    design = sample(name, 7, 30, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(6)
    values, empty, full = (torch.randn(shape, generator=generator).double() for shape in ((2, 30, 4), (2, 4), (2, 4)))
    phi = Regression(design, values, empty, full).values()
    z, w = design.coalitions.double(), design.weights
    system = torch.zeros(8, 8, dtype=torch.float64)
    system[:7, :7], system[7, :7], system[:7, 7] = z.T @ (w[:, None] * z), 1, 1
    for game in range(2):
        for c in range(4):
            right = torch.cat([z.T @ (w * (values[game, :, c] - empty[game, c])), (full - empty)[game, c, None]])
            expected = torch.linalg.solve(system, right)[:7]
            torch.testing.assert_close(phi[game, :, c], expected, rtol=1e-9, atol=1e-9)
            alone = Regression(design, values[..., c], empty[:, c], full[:, c]).values()
            torch.testing.assert_close(alone, phi[..., c])


def test_values_keep_their_type() -> None:
    design = sample("paired", 4, 12, torch.Generator().manual_seed(0))
    regression = Regression(design, torch.rand(1, 12), torch.zeros(1), torch.ones(1), proxy=torch.zeros(1, 4).double())
    assert regression.values().dtype == torch.float32
    assert regression.standard_error().dtype == torch.float32


def test_what_does_not_fit_is_refused() -> None:
    design = sample("paired", 4, 12, torch.Generator().manual_seed(0))
    values, ends = torch.zeros(2, 12, 3), torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"'ridge' is unknown: use one of least_squares, unbiased"):
        Regression(design, values, ends, ends, solver="ridge")
    for wrong in (values[:, :11], values[0], values[..., :2], values[:1]):
        with pytest.raises(ValueError, match=r"must be \[B, 12\(, C\)\], \[B\(, C\)\] and \[B\(, C\)\]"):
            Regression(design, wrong, ends, ends)
    for wrong in (ends[:, :2], ends[:1], ends[..., None]):
        with pytest.raises(ValueError, match=r"values, empty and full are"):
            Regression(design, values, ends, wrong)
        with pytest.raises(ValueError, match=r"values, empty and full are"):
            Regression(design, values, wrong, ends)
    with pytest.raises(ValueError, match=r"the proxy is \[2, 4\], these games need \[2, 4, 3\]"):
        Regression(design, values, ends, ends, proxy=torch.zeros(2, 4))


def fit(table: Tensor, design: Design, solver: str = "least_squares") -> Regression:
    return Regression(design, table[:, codes(design.coalitions)], table[:, 0], table[:, -1], solver=solver)


def over_designs(table: Tensor, name: str, coalitions: int, solver: str, designs: int = 400) -> tuple[Tensor, Tensor]:
    """Values and standard errors, each [designs, B, M]."""
    players = table.shape[1].bit_length() - 1
    fits = [
        fit(table, sample(name, players, coalitions, torch.Generator().manual_seed(seed)), solver)
        for seed in range(designs)
    ]
    return torch.stack([f.values() for f in fits]), torch.stack([f.standard_error() for f in fits])


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_the_standard_error_is_the_spread_over_designs(name: str, solver: str) -> None:
    values, error = over_designs(random_table(9, games=6), name, 120, solver)
    ratio = error.mean(0) / values.std(0)
    assert float(ratio.mean()) == pytest.approx(1, abs=0.06)
    assert ratio.min() > 0.8
    assert ratio.max() < 1.25


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("name", SAMPLERS)
def test_intervals_of_two_standard_errors_hold_the_exact_value(name: str, solver: str) -> None:
    table = smooth_table(10, games=6)
    values, error = over_designs(table, name, 160, solver, designs=200)
    inside = ((values - shapley_by_dividends(table)).abs() <= 1.96 * error).double().mean()
    assert 0.925 < float(inside) < 0.965


@pytest.mark.parametrize("name", ["leverage", "without_replacement"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_what_is_nearly_enumerated_is_nearly_certain(name: str, solver: str) -> None:
    """All but 54 of 510 coalitions: without the correction for a finite population it would be three times as much."""
    values, error = over_designs(smooth_table(9, games=6), name, 456, solver, designs=300)
    assert float((error.mean(0) / values.std(0)).mean()) == pytest.approx(1, abs=0.1)


def test_few_pairs_are_made_up_for_by_their_leverage() -> None:
    """Two pairs a player; the bare residuals of least squares give two thirds of the spread."""
    values, error = over_designs(smooth_table(10, games=6), "leverage", 44, "least_squares")
    ratio = error.mean(0) / values.std(0)
    assert 0.85 < float(ratio.mean()) < 1.05


@pytest.mark.parametrize("name", SAMPLERS)
def test_no_more_units_than_unknowns_leave_nothing_to_estimate_from(name: str) -> None:
    units = 9
    design = sample(name, 10, units if name == "shapley_kernel" else 2 * units, torch.Generator().manual_seed(0))
    assert fit(random_table(10), design).standard_error().isposinf().all()


def test_repeated_draws_are_no_news() -> None:
    """A game answers the same again: seven different pairs of eight players, four times each, fit whatever comes."""
    rows = torch.eye(8, dtype=torch.bool)[:7]
    pairs = torch.stack([rows, ~rows], dim=1).reshape(-1, 8)
    assert fit(random_table(8), Design.drawn(pairs.repeat(4, 1), paired=True)).standard_error().isposinf().all()
    # Nor does it matter which of the two came first.
    turned = torch.cat([pairs, pairs.flip(0)])
    assert fit(random_table(8), Design.drawn(turned, paired=True)).standard_error().isposinf().all()


def test_a_single_pair_says_nothing_of_its_spread() -> None:
    design = sample("paired", 6, 2, torch.Generator().manual_seed(0))
    assert fit(random_table(6), design, "unbiased").standard_error().isposinf().all()


def test_players_that_no_coalition_tells_apart_have_no_error_of_their_own() -> None:
    rows = paired(6, 80, torch.Generator().manual_seed(0)).coalitions
    rows[:, 3] = rows[:, 1]
    kept = ~rows.all(1) & rows.any(1)
    error = fit(random_table(6), Design.drawn(rows[kept], paired=True)).standard_error()
    assert error[:, [1, 3]].isposinf().all()
    assert error[:, [0, 2, 4, 5]].isfinite().all()


def test_a_pair_that_is_there_for_certain_may_decide_alone() -> None:
    """Only the first pair tells players 2 and 3 apart: it is fitted exactly, and it is no accident of the draw."""
    rows = torch.tensor([[0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [1, 1, 0, 0]], dtype=torch.bool)
    pairs = torch.stack([rows, ~rows], dim=1).reshape(-1, 4)
    weights = torch.full((8,), 0.125, dtype=torch.float64)
    chance = torch.tensor([1, 1, *[0.5] * 6], dtype=torch.float64)
    assert fit(random_table(4), Design(pairs, weights, chance, paired=True)).standard_error().isfinite().all()
    assert fit(random_table(4), Design(pairs, weights, chance / 2, paired=True)).standard_error().isposinf().all()


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_class_has_the_error_it_has_alone(solver: str) -> None:
    table = random_table(7, classes=3)
    design = sample("without_replacement", 7, 40, torch.Generator().manual_seed(0))
    together = fit(table, design, solver).standard_error()
    assert together.shape == (3, 7, 3)
    for c in range(3):
        torch.testing.assert_close(together[..., c], fit(table[..., c], design, solver).standard_error())


def test_least_squares_of_unpaired_rows_is_the_textbooks_hc2() -> None:
    """Against the sandwich of the regression on M - 1 free unknowns, row by row; no row comes twice."""
    rows = sample("shapley_kernel", 10, 60, torch.Generator().manual_seed(2)).coalitions.unique(dim=0)
    table = random_table(10, games=1)
    regression = fit(table, Design.drawn(rows))
    z = rows.double()
    x, y = z[:, :-1] - z[:, -1:], table[0, codes(rows)] - table[0, 0] - z[:, -1] * (table[0, -1] - table[0, 0])
    bread = torch.linalg.inv(x.T @ x)
    phi = bread @ x.T @ y
    torch.testing.assert_close(regression.values()[0, :-1], phi)
    leverage = torch.diagonal(x @ bread @ x.T)
    meat = x.T @ (((y - x @ phi).square() / (1 - leverage))[:, None] * x)
    covariance = bread @ meat @ bread
    expected = torch.cat([torch.diagonal(covariance), covariance.sum()[None]]).sqrt()
    torch.testing.assert_close(regression.standard_error()[0], expected)
