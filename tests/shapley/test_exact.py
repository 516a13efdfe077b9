import pytest
import torch

from tests.shapley.tables import TableGame, codes, random_table, shapley_by_dividends, shapley_by_permutations
from xai.shapley.exact import exact_shapley


@pytest.mark.parametrize("players", [1, 2, 3, 6, 8])
@pytest.mark.parametrize("classes", [None, 3])
def test_exact_values_are_the_mean_over_all_orders(players: int, classes: int | None) -> None:
    table = random_table(players, games=2, classes=classes)
    phi = exact_shapley(TableGame(table))
    torch.testing.assert_close(phi, shapley_by_permutations(table), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("players", [10, 12])
def test_exact_values_of_larger_games_are_the_shared_dividends(players: int) -> None:
    table = random_table(players, classes=2)
    torch.testing.assert_close(exact_shapley(TableGame(table)), shapley_by_dividends(table), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("chunk", [1, 37, 255, 256, 1000])
def test_every_coalition_is_asked_once_however_it_is_cut(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("xai.shapley.exact._AT_ONCE", chunk)
    game = TableGame(random_table(8))
    phi = exact_shapley(game)
    assert max(len(asked) for asked in game.asked) == min(chunk, 256)
    assert torch.equal(codes(torch.cat(game.asked)).sort().values, torch.arange(256))
    torch.testing.assert_close(phi, shapley_by_permutations(game.table), rtol=1e-12, atol=1e-13)


def test_exact_values_add_up_to_the_whole_to_rounding() -> None:
    table = random_table(12, classes=4)
    phi = exact_shapley(TableGame(table))
    torch.testing.assert_close(phi.sum(1), table[:, -1] - table[:, 0], rtol=0, atol=1e-13)


def test_single_precision_values_are_added_up_in_double() -> None:
    table = 1000 + random_table(10)
    phi = exact_shapley(TableGame(table.float()))
    assert phi.dtype == torch.float32
    expected = shapley_by_dividends(table.float().double()).float()
    torch.testing.assert_close(phi, expected, rtol=1e-6, atol=1e-7)


def test_games_that_are_too_large_are_refused() -> None:
    game = TableGame(torch.zeros(1, 2**17))
    with pytest.raises(ValueError, match=r"1 to 16 players, the game has 17: estimate with kernel_shap"):
        exact_shapley(game)
    assert not game.asked
