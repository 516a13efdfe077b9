"""Banzhaf values, against their definition: the mean gain over every coalition of the others."""

import itertools

import pytest
import torch
from torch import Tensor

from tests.shapley.tables import TableGame, all_rows, codes, random_table, smooth_table
from tests.toolbox import seeded
from xai.shapley.banzhaf import banzhaf, by_least_squares, by_reuse

SOLVERS = ["least_squares", "reuse"]


def by_definition(table: Tensor) -> Tensor:
    players = table.shape[1].bit_length() - 1
    found = torch.zeros(len(table), players, *table.shape[2:], dtype=torch.float64)
    for player in range(players):
        for others in itertools.product([False, True], repeat=players - 1):
            without = torch.tensor([*others[:player], False, *others[player:]])
            joined = without.clone()
            joined[player] = True
            found[:, player] += (table[:, codes(joined)] - table[:, codes(without)]) / 2 ** (players - 1)
    return found


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("classes", [None, 2])
def test_from_all_coalitions_both_are_the_values_themselves(solver: str, classes: int | None) -> None:
    table = random_table(6, classes=classes)
    game = TableGame(table)
    torch.testing.assert_close(banzhaf(game, 70, seeded(), solver), by_definition(table))  # type: ignore[arg-type]
    assert sorted(codes(game.asked[0]).tolist()) == list(range(64)), "each once"


@pytest.mark.parametrize("players", [1, 2])
def test_of_the_smallest_games_as_well(players: int) -> None:
    table = random_table(players)
    for solver in SOLVERS:
        torch.testing.assert_close(banzhaf(TableGame(table), 4, seeded(), solver), by_definition(table))  # type: ignore[arg-type]


def estimates(table: Tensor, solver: str, coalitions: int, draws: int) -> Tensor:
    return torch.stack([banzhaf(TableGame(table), coalitions, seeded(seed), solver) for seed in range(draws)])  # type: ignore[arg-type]


def test_reuse_is_unbiased_and_least_squares_far_less_noisy() -> None:
    table = smooth_table(8, games=1)
    exact = by_definition(table)
    reuse, fitted = (estimates(table, solver, 64, 500) - exact for solver in ("reuse", "least_squares"))
    # 8 standard normal numbers: one of them beyond 4 has a chance of 1 in 2,000.
    assert (reuse.mean(0) / (reuse.std(0) / 500**0.5)).abs().max() < 4
    assert fitted.square().mean() < 0.2 * reuse.square().mean()


def test_reuse_is_mean_with_less_mean_without() -> None:
    rows = all_rows(4)[torch.tensor([1, 2, 6, 7, 11])]
    values = random_table(4)[:, codes(rows)]
    found = by_reuse(values, rows)
    for player in range(4):
        inside = rows[:, player]
        torch.testing.assert_close(found[:, player], values[:, inside].mean(1) - values[:, ~inside].mean(1))


def test_a_player_who_is_always_there_gets_nothing() -> None:
    rows = all_rows(4)[8:]
    for solve in (by_reuse, by_least_squares):
        assert solve(random_table(4)[:, codes(rows)], rows)[:, 0].abs().max() < 1e-12


@pytest.mark.parametrize("coalitions", [0, 3])
def test_half_a_pair_is_refused(coalitions: int) -> None:
    with pytest.raises(ValueError, match=f"coalitions={coalitions} must be even and at least 2"):
        banzhaf(TableGame(random_table(4)), coalitions, seeded())
