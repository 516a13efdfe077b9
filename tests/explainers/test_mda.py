"""MDA, against its published steps written out one image, one patch and one answer at a time."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from tests.explainers.settings import explainer, small_clip, small_pictures
from tests.shapley.tables import TableGame, random_table, smooth_table
from tests.toolbox import randn, there
from xai.explainers.posthoc.mda import by_place, nearest_convex, removed_curve, search
from xai.explainers.registry import entry
from xai.games import PatchGame


def answer(table: Tensor, members: list[int]) -> float:
    players = len(table).bit_length() - 1
    return float(table[sum(2 ** (players - 1 - member) for member in members)])


def literal_search(table: Tensor, start: list[float], candidates: int, cutoff: float) -> list[int]:
    players = len(start)
    empty, full = float(table[0]), float(table[-1])
    by_start = sorted(range(players), key=lambda patch: -start[patch])
    inserted: list[int] = []
    while cutoff > 0 and len(inserted) < players:
        tried = [patch for patch in by_start if patch not in inserted][:candidates]
        answers = [answer(table, [*inserted, patch]) for patch in tried]
        inserted.append(tried[int(np.argmax(answers))])
        if (max(answers) - empty) / abs(full - empty) >= cutoff:
            break
    last: list[int] = []
    while len(inserted) + len(last) < players:
        tried = [patch for patch in reversed(by_start) if patch not in inserted + last][:candidates]
        answers = [answer(table, [*last, patch]) for patch in tried]
        last.append(tried[int(np.argmin(answers))])
    return inserted + last[::-1]


@pytest.mark.parametrize("cutoff", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("candidates", [1, 3, 9])
def test_the_order_is_that_of_the_literal_search(cutoff: float, candidates: int) -> None:
    for table in (random_table(7), smooth_table(7)):
        start = randn(3, 7)
        found = search(TableGame(table), start, table[:, 0], table[:, -1], candidates, cutoff)
        for game in range(3):
            expected = literal_search(table[game], start[game].tolist(), candidates, cutoff)
            assert found[game].tolist() == expected


def test_the_curve_is_the_mean_of_what_insertion_has_not_gained_and_deletion_has_left() -> None:
    table = random_table(5)
    order = randn(3, 5).argsort(1)
    found = removed_curve(TableGame(table), order, table[:, 0], table[:, -1])
    for game in range(3):
        empty, full, places = float(table[game, 0]), float(table[game, -1]), order[game].tolist()
        left, high, low = [], 0.0, 1.0
        for number in range(6):
            shares = [
                min(max((answer(table[game], part) - empty) / abs(full - empty), 0), 1)
                for part in (places[:number], places[number:])
            ]
            high, low = max(high, shares[0]), min(low, shares[1])
            left.append(1 - (high + 1 - low) / 2)
        assert found[game].tolist() == pytest.approx(left)


def test_the_nearest_convex_curve_is_that_of_a_quadratic_programme() -> None:
    curves = randn(4, 9).cumsum(1).flip(1)
    curves[0] = torch.linspace(1, 0, 9) ** 2
    found = nearest_convex(curves)
    torch.testing.assert_close(found[0], curves[0])
    torch.testing.assert_close(found[:, [0, -1]], curves[:, [0, -1]])
    assert found.diff(n=2).min() > -1e-9
    for curve, ours in zip(curves.numpy(), found.numpy(), strict=True):
        bends = [{"type": "ineq", "fun": lambda x, i=i: x[i] - 2 * x[i + 1] + x[i + 2]} for i in range(7)]
        ends = [{"type": "eq", "fun": lambda x, i=i, curve=curve: x[i] - curve[i]} for i in (0, 8)]
        best = minimize(
            lambda x, curve=curve: ((x - curve) ** 2).sum(),
            np.linspace(curve[0], curve[-1], 9),
            constraints=[*bends, *ends],
            options={"ftol": 1e-12, "maxiter": 500},
        )
        np.testing.assert_allclose(ours, best.x, atol=1e-4)


def test_a_place_is_worth_what_it_adds_and_in_the_dense_map_what_comes_after_it() -> None:
    curve = torch.tensor([[1.0, 0.4, 0.1, 0.0]], dtype=torch.float64)
    drops = [0.6, 0.3, 0.1]
    sparse = [drop / 16 + drop * (3 - place) / 3 for place, drop in enumerate(drops, start=1)]
    assert by_place(curve, 16)[0].tolist() == pytest.approx(sparse)
    dense = [2 / 3, 1 / 3, sparse[2]]
    dense = [each / max(dense) * max(sparse) for each in dense]
    assert by_place(curve, 16, gamma=1.0, kappa=0.1)[0].tolist() == pytest.approx(dense)
    half = [(a + b) / 2 for a, b in itertools.zip_longest(sparse, dense)]
    assert by_place(curve, 16, gamma=0.5, kappa=0.1)[0].tolist() == pytest.approx(half)


def test_what_it_costs_is_what_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    value = PatchGame.value

    def counted(self: PatchGame, coalitions: Tensor) -> Tensor:
        asked.append(coalitions.shape[-2])
        return value(self, coalitions)

    monkeypatch.setattr(PatchGame, "value", counted)
    for name, settings in (("mda", {}), ("mda", {"candidates": 3}), ("submodular", {})):
        asked.clear()
        ours = explainer(name, small_clip(), **settings)
        ours.attribute(small_pictures(2), torch.tensor([0, 1]))
        passes = there(entry(name).info.passes)
        assert passes(ours.params, 9) == sum(asked)
