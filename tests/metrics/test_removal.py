"""The removal metrics against literal transcriptions of Algorithms 1 and 2 of SALVAGE, in float64."""

import re
from collections import Counter
from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor

from tests.orders import coalition_probabilities, min_max
from tests.shapley.tables import TableGame, all_rows, codes, random_table
from tests.toolbox import randn, refusal, seeded
from xai.core.errors import UserError
from xai.metrics import functional as F
from xai.metrics.functional import removal
from xai.sampling import generator_on


def table_game(images: int, players: int, seed: int = 100) -> TableGame:
    """Random values for every coalition of each image."""
    return TableGame(random_table(players, seed, images))


def one(game: TableGame, image: int) -> Callable[[set[int]], float]:
    """v(S) of one image, S a set of players."""
    return lambda present: game.table[image, sum(2 ** (game.players - 1 - player) for player in present)].item()


def alike(table: Tensor) -> F.Value:
    """The game of any number of images with the same values [2^M]."""
    return lambda coalitions: table[codes(coalitions)]


def algorithm_1(v: Callable[[set[int]], float], phi: list[float], metric: str) -> list[float]:
    """Lines 1 to 12; the mean of the list is the score."""
    sorted_features = sorted(range(len(phi)), key=lambda i: phi[i], reverse=metric == "LIF")
    present: set[int] = set()
    preds = []
    for feature in sorted_features:
        present.add(feature)
        preds.append(v(present))
    return preds


def algorithm_2(table: Tensor, phi: list[float], metric: str) -> tuple[Tensor, Tensor]:
    """Mean and variance [M] of what line 15 appends to subset_preds, over all that line 14 may draw."""
    weights = min_max(phi) if metric == "R-LIF" else [1 - weight for weight in min_max(phi)]
    chances = torch.stack([coalition_probabilities(weights, size) for size in range(1, len(phi) + 1)])
    mean = chances @ table
    return mean, chances @ table.square() - mean.square()


@pytest.mark.parametrize("players", [2, 3, 8, 9])
def test_lif_and_mif_are_algorithm_1(players: int) -> None:
    game, phi = table_game(4, players), randn(4, players)
    lif, mif = F.ranked_curves(game.value, phi, seeded())
    assert lif.dtype == mif.dtype == torch.float64
    for image in range(4):
        assert lif[image].tolist() == algorithm_1(one(game, image), phi[image].tolist(), "LIF")
        assert mif[image].tolist() == algorithm_1(one(game, image), phi[image].tolist(), "MIF")
    assert len(game.asked) == 1


def test_ties_enter_in_every_order_alike() -> None:
    tied, copies = [0.0, 2.0, 0.0, -1.0, 0.0], 4000
    game = table_game(1, 5)
    curves = F.ranked_curves(alike(game.table[0]), torch.tensor([tied]).expand(copies, -1), seeded())
    for metric, curve in zip(("LIF", "MIF"), curves, strict=True):
        orders = [[tied[i] + nudge[i] for i in range(5)] for nudge in permutations([0, 1e-9, 2e-9, 3e-9, 4e-9])]
        every = torch.tensor([algorithm_1(one(game, 0), order, metric) for order in orders], dtype=torch.float64)
        assert set(map(tuple, curve.tolist())) == set(map(tuple, every.tolist()))
        error = every.std(0, correction=0) / copies**0.5
        assert ((curve.mean(0) - every.mean(0)).abs() <= 4 * error + 1e-12).all()
        assert (error > 0).sum() >= 2


@pytest.mark.parametrize(
    "phi",
    [
        [0.1, 0.7, -0.4, 0.3, 0.25],
        [0.0, 3.0, 0.0, 1.0, 0.0],  # a map after a ReLU
        [-5.0, -5.2, -5.1, 20.0, -5.3],  # one patch takes nearly all
    ],
    ids=["spread", "zeros", "peaked"],
)
def test_r_lif_and_r_mif_have_the_expectation_of_algorithm_2(phi: list[float]) -> None:
    table, images, masks = table_game(1, 5).table[0], 50, 200
    curves = F.removal_curves(alike(table), torch.tensor([phi]).expand(images, -1), masks, seeded())[2:]
    for metric, curve in zip(("R-LIF", "R-MIF"), curves, strict=True):
        mean, variance = algorithm_2(table, phi, metric)
        error = (variance.clamp(min=0) / (images * masks)).sqrt()
        # Four standard errors, and what the smallest weight in the place of none adds.
        assert ((curve.mean(0) - mean).abs() <= 4 * error + 1e-3).all()
        assert (error > 1e-3).sum() >= 3
    assert not torch.allclose(*curves, atol=0.1)


def test_every_size_is_drawn_on_its_own() -> None:
    # Values that grow with one patch: one order cut at every size would be right or wrong at many sizes at once.
    phi, masks, images = [0.5, 0.6, 0.4, 0.0, 1.0, 0.55], 4, 3000
    table = all_rows(6)[:, 0].double()
    curves = F.removal_curves(alike(table), torch.tensor([phi]).expand(images, -1), masks, seeded())[2:]
    for metric, curve in zip(("R-LIF", "R-MIF"), curves, strict=True):
        _, variance = algorithm_2(table, phi, metric)
        expected = variance.clamp(min=0).sum() / 6**2 / masks
        assert curve.mean(1).var().item() == pytest.approx(expected.item(), rel=0.15)


def test_curves_are_means_over_the_masks_that_were_drawn() -> None:
    # With a mask for each size and curve, what was asked is all there is to average.
    game, phi = table_game(1, 6), randn(1, 6)
    curves = F.removal_curves(game.value, phi, 1, seeded())
    asked = torch.cat(game.asked, 1)[0]
    for size in range(1, 7):
        values = {game.table[0, code].item() for code in codes(asked[asked.sum(1) == size]).tolist()}
        assert {curve[0, size - 1].item() for curve in curves} == values


def test_of_the_four_curves_two_are_those_of_the_order_and_all_end_with_the_whole() -> None:
    game, phi = table_game(3, 7), randn(3, 7)
    curves = F.removal_curves(game.value, phi, 5, seeded())
    for curve, expected in zip(curves, F.ranked_curves(game.value, phi, seeded()), strict=False):
        torch.testing.assert_close(curve, expected, rtol=1e-12, atol=0)
    full = game.table[:, -1:].expand(-1, 4)
    torch.testing.assert_close(torch.stack([curve[:, -1] for curve in curves], 1), full, rtol=1e-12, atol=0)


def test_scores_are_the_means_and_equations_7_and_8() -> None:
    curves = F.RemovalCurves(*(torch.tensor(c).double() for c in ([[1, 6]], [[2, 3]], [[5, 8]], [[1, 0]])))
    found = {name: value.tolist() for name, value in F.scores(curves).items()}
    assert found == {"lif": [3.5], "mif": [2.5], "srg": [1], "r_lif": [6.5], "r_mif": [0.5], "r_srg": [6]}
    assert list(found) == ["lif", "mif", "srg", "r_lif", "r_mif", "r_srg"]


def asked_of(game: TableGame) -> list[Counter[int]]:
    """How often each coalition of each image was asked for."""
    return [Counter(codes(torch.cat(game.asked, 1)[image]).tolist()) for image in range(len(game.table))]


@pytest.mark.parametrize("players", [1, 2, 3, 6, 9, 17])
def test_ranked_curves_cost_what_is_said(players: int) -> None:
    game = table_game(1, players)
    F.ranked_curves(game.value, randn(1, players), seeded(), "random")
    (asked,) = asked_of(game)
    assert max(asked.values()) == 1
    assert len(asked) <= F.passes(players, 0) <= 2 * players - 1
    assert len(asked) == F.passes(players, 0) or players % 2 == 0


@pytest.mark.parametrize("masks", [1, 3, 40, 1000])
def test_no_coalition_of_an_image_is_asked_twice(masks: int) -> None:
    game = table_game(1, 5)
    F.removal_curves(game.value, randn(1, 5), masks, seeded())
    (asked,) = asked_of(game)
    assert max(asked.values()) == 1
    assert len(asked) <= F.passes(5, masks)
    assert asked[2**5 - 1] == 1


def test_the_most_that_curves_can_cost_is_every_coalition_once() -> None:
    assert (F.passes(4, 0), F.passes(4, 500)) == (7, 15)
    assert F.passes(196, 0) == 2 * 195 + 1
    assert F.passes(196, 128) == 193 * 258 + 2 * 196 + 1
    game = table_game(2, 4)
    F.removal_curves(game.value, torch.zeros(2, 4), 500, seeded(), "random")
    assert [sorted(asked) for asked in asked_of(game)] == [list(range(1, 16))] * 2


def test_an_image_with_few_different_coalitions_goes_with_others_at_no_extra_cost() -> None:
    game = table_game(2, 6)
    phi = torch.tensor([[1, 1, 1, 0, 0, 0], [0.4, 0.1, 0.3, 0.6, 0, 1]]).double()
    curves = F.removal_curves(game.value, phi, 20, seeded())
    few, many = asked_of(game)
    assert len(few) < len(many) == many.total() == few.total()
    # What fills up is a single patch, and costs least.
    assert [code.bit_count() for code, times in few.items() if times > 1] == [1]
    assert curves.r_lif[0, 2].item() == pytest.approx(game.table[0, 0b111000].item(), rel=1e-12)
    assert curves.r_mif[0, 2].item() == pytest.approx(game.table[0, 0b000111].item(), rel=1e-12)
    assert curves.lif[1].tolist() == algorithm_1(one(game, 1), phi[1].tolist(), "LIF")


@pytest.mark.parametrize("budget", [1, 2000])
def test_coalitions_are_held_within_the_budget_and_the_numbers_stay(
    budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    game, phi = table_game(2, 8), randn(2, 8)
    whole = F.removal_curves(game.value, phi, 9, seeded())
    assert len(game.asked) == 1
    monkeypatch.setattr(removal, "_COALITION_BUDGET", budget)
    game.asked.clear()
    parts = F.removal_curves(game.value, phi, 9, seeded())
    for curve, expected in zip(parts, whole, strict=True):
        assert torch.equal(curve, expected)
    one_size = 2 * 20 * 8
    assert all(coalitions.numel() <= max(budget, one_size) for coalitions in game.asked)
    assert len(game.asked) == (8 if budget == 1 else 2)


def test_the_generator_alone_decides() -> None:
    game, phi = table_game(2, 9), randn(2, 9)
    state = torch.random.get_rng_state()
    first = F.removal_curves(game.value, phi, 3, seeded(1))
    again, other = (F.removal_curves(game.value, phi, 3, seeded(seed)) for seed in (1, 2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert torch.equal(first.lif, other.lif)
    assert not torch.equal(first.r_lif, other.r_lif)
    assert not torch.equal(first.r_mif, other.r_mif)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_scale_shift_and_type_of_a_map_change_nothing() -> None:
    game, phi = table_game(2, 6), randn(2, 6).bfloat16()
    expected = F.removal_curves(game.value, phi.double(), 4, seeded())
    for same in (phi, phi.float().requires_grad_(), phi.double() * 4, phi.double() - 8):
        curves = F.removal_curves(game.value, same, 4, seeded())
        assert all(torch.equal(a, b) for a, b in zip(curves, expected, strict=True))


def test_a_constant_map_is_scored_as_a_random_order_where_that_is_asked_for() -> None:
    images = 3000
    table = torch.randn(16, generator=seeded(), dtype=torch.float64)
    flat = torch.full((images, 4), 0.1)
    # Rounding is no order.
    flat[:, 2] = torch.nextafter(flat[0, 2], torch.tensor(1.0))
    curves = F.removal_curves(alike(table), flat, 2, seeded(), constant="random")
    sizes = all_rows(4).sum(1)
    for size in range(1, 5):
        same = table[sizes == size]
        for curve, draws in zip(curves, (1, 1, 2, 2), strict=True):
            error = same.std(correction=0) / (images * draws) ** 0.5
            assert abs(curve[:, size - 1].mean() - same.mean()) <= 4 * error + 1e-12
    lif, _ = F.ranked_curves(alike(table), torch.tensor([[1.0, 1, 1, 1], [4, 3, 2, 1]]), seeded(), "random")
    assert lif[1].tolist() == table[[8, 12, 14, 15]].tolist()


CALLS = {
    "ranked": lambda game, phi, *rest: F.ranked_curves(game.value, phi, seeded(), *rest),
    "all": lambda game, phi, *rest: F.removal_curves(game.value, phi, 2, seeded(), *rest),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_what_cannot_be_scored_is_refused_before_the_game_is_asked(call: Callable[..., object]) -> None:
    game = table_game(3, 4)
    flat, broken = randn(3, 4), randn(3, 4)
    flat[1:], broken[2, 0] = 0.25, torch.nan
    refused = {
        r"image 1 of the batch \(counted from 0\) are constant .* constant=random": (flat,),
        "the attributions of rows 2 hold NaN": (broken,),
        r"have to be \[B, M\]": (randn(3, 4).reshape(3, 2, 2),),
        r"are \(0, 4\)": (randn(3, 4)[:0],),
        "constant=zero is unknown: use refuse or random": (randn(3, 4), "zero"),
    }
    for message, arguments in refused.items():
        assert re.search(message, refusal(call, game, *arguments))
    assert not game.asked


@pytest.mark.parametrize("masks", [0, -1])
def test_fewer_than_one_mask_is_refused(masks: int) -> None:
    with pytest.raises(UserError, match=f"masks={masks}; .* at least 1"):
        F.removal_curves(table_game(1, 4).value, randn(1, 4), masks, seeded())


def test_a_game_without_targets_is_refused() -> None:
    with pytest.raises(ValueError, match=r"with \[2, 7, 5\], not with \[2, 7\]"):
        F.ranked_curves(lambda coalitions: torch.zeros(*coalitions.shape[:2], 5), randn(2, 4), seeded())


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 3), (2, 5)])
def test_maps_of_another_grid_than_the_game_are_refused(shape: tuple[int, ...]) -> None:
    assert "another grid: the game has 4 patches" in refusal(F.check_players, torch.rand(shape), 4)
    F.check_players(torch.rand(2, 2, 2), 4)
    F.check_players(torch.rand(0, 4), 4)
    F.check_players(torch.rand(2, 4), 4)


def test_rows_are_told_apart_whatever_their_length() -> None:
    for players in (3, 63, 64, 65, 256):
        rows = torch.rand(2, 40, players, generator=seeded()) < 0.5
        rows[:, 20:] = rows[:, :20]
        rows[0, 5, -1] ^= True
        asked, place = removal._distinct(rows)
        assert torch.equal(asked.gather(1, place[..., None].expand(-1, -1, players)), rows)
        assert [len(own.unique(dim=0)) for own in asked] == [len(own.unique(dim=0)) for own in rows]
        assert asked.shape[1] == max(len(own.unique(dim=0)) for own in rows)


@pytest.mark.gpu
def test_on_a_gpu_draws_are_made_there() -> None:
    game, phi, asked = table_game(2, 9), randn(2, 9), set()

    def value(coalitions: Tensor) -> Tensor:
        asked.add(coalitions.device.type)
        return game.value(coalitions.cpu()).cuda()

    curves, again = (F.removal_curves(value, phi, 3, generator_on(torch.device("cuda"), seeded())) for _ in range(2))
    assert asked == {"cuda"}
    for curve, expected in zip(curves, F.ranked_curves(game.value, phi, seeded()), strict=False):
        torch.testing.assert_close(curve.cpu(), expected)
    assert torch.equal(curves.r_lif, again.r_lif)
