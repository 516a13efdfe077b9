"""Kernel SHAP from a guess, against its statistical model written out with whole covariance matrices."""

import pytest
import torch
from scipy.linalg import null_space
from torch import Tensor

from tests.shapley.tables import TableGame, all_rows, random_table, shapley_by_dividends, smooth_table
from tests.toolbox import randn, seeded
from xai.shapley.coalitions import sample
from xai.shapley.kernel_shap import kernel_shap
from xai.shapley.proxy import kernel_shap_with_proxy, likely, odd_part

PLAYERS = 9


def literal(rows: Tensor, answer: Tensor, guess: Tensor, ridges: Tensor) -> Tensor:
    """One game: for every ridge the generalised least squares scale, the likelihood of all contrasts that the scale
    does not touch, and the mean of the deviations given the answers; then their mean over ridges."""
    gram, along = rows @ rows.T, rows @ guess
    sizes = torch.linalg.eigvalsh(gram)
    mean = sizes.sum() / (sizes > 1e-9 * sizes[-1]).sum()
    contrasts = torch.from_numpy(null_space(along[None].numpy()))
    found, likelihoods = [], []
    for ridge in (ridges * mean).tolist():
        covariance = torch.eye(len(rows), dtype=torch.float64) + gram / ridge
        inverse = covariance.inverse()
        scale = (along @ inverse @ answer / (along @ inverse @ along)).clamp(min=0)
        found.append(scale * guess + rows.T @ inverse @ (answer - scale * along) / ridge)
        seen, within = contrasts.T @ answer, contrasts.T @ covariance @ contrasts
        quadratic = seen @ within.inverse() @ seen
        likelihoods.append(-0.5 * (len(seen) * quadratic.log() + within.logdet()))
    return torch.stack(likelihoods).softmax(0) @ torch.stack(found)


@pytest.mark.parametrize("coalitions", [6, 12, 40])
def test_it_is_the_mean_of_the_deviations_under_the_model(coalitions: int) -> None:
    table = smooth_table(PLAYERS)
    design = sample("leverage", PLAYERS, coalitions, seeded(1))
    values = TableGame(table).value(design.coalitions)
    share = (table[:, -1] - table[:, 0])[:, None] / PLAYERS
    guess = shapley_by_dividends(table) + 0.05 * randn(3, PLAYERS)
    guess = 7 * (guess - guess.mean(1, keepdim=True))
    rows, answers = odd_part(design, values, share)
    ridges = torch.logspace(-3, 3, 13, dtype=torch.float64)
    expected = [literal(rows, answer, each, ridges) for answer, each in zip(answers, guess, strict=True)]
    torch.testing.assert_close(likely(rows, answers, guess, ridges), torch.stack(expected), rtol=1e-7, atol=1e-9)


def test_the_odd_part_is_what_an_additive_game_explains() -> None:
    worth = randn(2, PLAYERS)
    table = 3 + worth @ all_rows(PLAYERS).double().T
    design = sample("leverage", PLAYERS, 20, seeded(2))
    share = worth.mean(1, keepdim=True)
    rows, answers = odd_part(design, TableGame(table).value(design.coalitions), share)
    torch.testing.assert_close(answers, (worth - share) @ rows.T)


@pytest.mark.parametrize("coalitions", [2, 8, 60])
@pytest.mark.parametrize("scale", [0.01, 1.0, 40.0])
def test_a_guess_that_is_right_but_for_its_scale_and_sum_is_kept(coalitions: int, scale: float) -> None:
    worth = randn(2, PLAYERS)
    game = TableGame(7 + worth @ all_rows(PLAYERS).double().T)
    found = kernel_shap_with_proxy(game, coalitions, seeded(), scale * worth + 3)
    torch.testing.assert_close(found, worth, rtol=1e-6, atol=1e-6)


def test_where_every_coalition_is_asked_no_guess_matters() -> None:
    table = random_table(6)
    found = kernel_shap_with_proxy(TableGame(table), 62, seeded(), randn(3, 6))
    torch.testing.assert_close(found, shapley_by_dividends(table))


def error(table: Tensor, coalitions: int, proxy: Tensor | None, draws: int = 40) -> float:
    exact, game = shapley_by_dividends(table), TableGame(table)
    found = []
    for seed in range(draws):
        if proxy is None:
            found.append(kernel_shap(game, coalitions, seeded(seed)))
        else:
            found.append(kernel_shap_with_proxy(game, coalitions, seeded(seed), proxy))
    return float((torch.stack(found) - exact).square().mean().sqrt())


@pytest.mark.parametrize("coalitions", [6, 12, 24])
def test_a_good_guess_helps_and_none_or_a_wrong_one_hardly_hurts(coalitions: int) -> None:
    table = smooth_table(PLAYERS)
    exact = shapley_by_dividends(table)
    alone, flat = error(table, coalitions, None), error(table, coalitions, torch.zeros(3, PLAYERS))
    good = error(table, coalitions, 5 * exact + 0.2 * exact.std() * randn(3, PLAYERS))
    wrong = error(table, coalitions, -exact)
    assert good < 0.8 * min(alone, flat)
    assert flat < 1.1 * alone
    assert wrong < 1.2 * alone


@pytest.mark.parametrize("coalitions", [2, 30])
def test_it_adds_up_and_keeps_the_type(coalitions: int) -> None:
    table = random_table(PLAYERS).float()
    found = kernel_shap_with_proxy(TableGame(table), coalitions, seeded(), randn(3, PLAYERS))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.sum(1), table[:, -1] - table[:, 0])


def test_what_does_not_fit_is_refused() -> None:
    game = TableGame(random_table(5))
    for proxy, sampler in ((randn(3, 4), "leverage"), (randn(3, 5), "shapley_kernel")):
        with pytest.raises(ValueError, match="pairs of complements and a guess"):
            kernel_shap_with_proxy(game, 8, seeded(), proxy, sampler=sampler)
