"""Shapley values by random orders, against every order there is, and against the shap package on the same orders."""

import itertools

import numpy as np
import pytest
import shap
import torch
from torch import Tensor

from tests.shapley.tables import TableGame, all_rows, random_table, shapley_by_dividends, shapley_by_permutations
from tests.toolbox import randn, seeded
from xai.shapley.permutation import antithetic_orders, permutation_shapley


@pytest.mark.parametrize("classes", [None, 2])
def test_all_orders_give_the_values_themselves(classes: int | None) -> None:
    table = random_table(5, classes=classes)
    orders = torch.tensor(list(itertools.permutations(range(5))))
    torch.testing.assert_close(permutation_shapley(TableGame(table), orders), shapley_by_permutations(table))


def test_it_agrees_with_the_shap_package_on_the_same_orders(monkeypatch: pytest.MonkeyPatch) -> None:
    """shap lets players in by an order and out again by the same: the order, and the order backwards."""
    table, players = random_table(6, games=1), 6
    # To compile them takes a quarter of a minute, and to run them as they are no time.
    for module in (shap.utils._masked_model, shap.maskers._tabular):
        for name, compiled in vars(module).copy().items():
            if hasattr(compiled, "py_func"):
                monkeypatch.setattr(module, name, compiled.py_func)

    def model(rows: np.ndarray) -> np.ndarray:
        codes = (rows.astype(int) * 2 ** np.arange(players)[::-1]).sum(1)
        return table[0].numpy()[codes]

    explainer = shap.explainers.Permutation(model, np.zeros((1, players)))
    np.random.seed(7)
    theirs = explainer(np.ones((1, players)), max_evals=4 * (2 * players + 1), silent=True).values[0]
    np.random.seed(7)
    order, orders = np.arange(players), []
    for _ in range(4):
        np.random.shuffle(order)
        orders += [order.copy(), order[::-1].copy()]
    ours = permutation_shapley(TableGame(table), torch.tensor(np.array(orders)))
    torch.testing.assert_close(ours[0], torch.from_numpy(theirs), rtol=1e-10, atol=1e-10)


def test_one_pair_is_exact_where_players_interact_in_pairs_only() -> None:
    rows = all_rows(6).double()
    table = (rows @ randn(6) + ((rows @ randn(6, 6, seed=1)) * rows).sum(1))[None]
    orders = antithetic_orders(6, 1, seeded(3))
    assert torch.equal(orders[1], orders[0].flip(0))
    torch.testing.assert_close(permutation_shapley(TableGame(table), orders), shapley_by_dividends(table))


def test_its_mean_over_draws_is_the_value_and_pairs_are_less_noisy_than_single_orders() -> None:
    table = random_table(6, games=1)
    exact = shapley_by_dividends(table)

    def errors(paired: bool) -> Tensor:
        found = []
        for seed in range(400):
            orders = antithetic_orders(6, 2, seeded(seed))
            if not paired:
                orders = torch.cat([orders[::2], antithetic_orders(6, 2, seeded(10_000 + seed))[::2]])
            found.append(permutation_shapley(TableGame(table), orders) - exact)
        return torch.stack(found)

    paired, single = errors(True), errors(False)
    # 6 standard normal numbers: one of them beyond 4 has a chance of 1 in 2,600.
    assert (paired.mean(0) / (paired.std(0) / 400**0.5)).abs().max() < 4
    assert paired.square().mean() < single.square().mean()


def test_it_adds_up_and_asks_for_nothing_twice() -> None:
    game = TableGame(random_table(5))
    phi = permutation_shapley(game, antithetic_orders(5, 3, seeded()))
    torch.testing.assert_close(phi.sum(1), game.table[:, -1] - game.table[:, 0])
    (asked,) = game.asked
    assert len(asked) == 6 * 4 + 2


@pytest.mark.parametrize("orders", [torch.zeros(2, 5, dtype=torch.long), torch.arange(4)[None], torch.empty(0, 5)])
def test_what_is_no_order_is_refused(orders: Tensor) -> None:
    with pytest.raises(ValueError, match=r"every row has to hold each of 0 \.\.\. 4 once"):
        permutation_shapley(TableGame(random_table(5)), orders)
