import math
from collections import Counter

import pytest
import torch
from torch import Tensor

from tests.shapley.tables import all_rows, codes
from xai.shapley.coalitions import sample
from xai.shapley.design import Design, shapley_kernel_sizes
from xai.shapley.distinct import all_coalitions

NAMES = ["leverage", "without_replacement"]


def kernel(players: int) -> Tensor:
    """Probability [2^M] of every coalition under the Shapley kernel, by its formula."""
    sizes = all_rows(players).sum(1).tolist()
    weight = [0 if s in (0, players) else 1 / (math.comb(players, s) * s * (players - s)) for s in sizes]
    return torch.tensor(weight, dtype=torch.float64) / sum(weight)


def leverages(players: int) -> Tensor:
    """Leverage score [2^M] of every row in the regression of Kernel SHAP, from the hat matrix itself."""
    rows = all_rows(players).double()
    a = kernel(players).sqrt()[:, None] * (rows - rows.mean(1, keepdim=True))
    # The one direction that is missing has an eigenvalue of rounding: by default the processor decides if it counts.
    return torch.diagonal(a @ torch.linalg.pinv(a.T @ a, rtol=1e-9, hermitian=True) @ a.T)


def designs(name: str, players: int, coalitions: int, number: int) -> list[Design]:
    return [sample(name, players, coalitions, torch.Generator().manual_seed(seed)) for seed in range(number)]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("players", "coalitions"), [(3, 4), (6, 40), (7, 124), (8, 252), (12, 900), (49, 300), (196, 500), (1369, 60)]
)
def test_no_coalition_occurs_twice(name: str, players: int, coalitions: int) -> None:
    for design in designs(name, players, coalitions, 3):
        assert len(torch.unique(design.coalitions, dim=0)) == coalitions


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("players", [4, 7])
def test_every_even_number_of_coalitions_is_met(name: str, players: int) -> None:
    for coalitions in range(2, 2**players, 2):
        design = sample(name, players, coalitions, torch.Generator().manual_seed(coalitions))
        assert len(torch.unique(design.coalitions, dim=0)) == coalitions
        assert design.inclusion.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_rounding_errors_cost_no_pair(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the random start of the rounding is zero, a sum of 63.99999 would do so."""
    draw = torch.rand
    monkeypatch.setattr(torch, "rand", lambda *size, **how: 0.0 if size == ((),) else draw(*size, **how))
    for coalitions in range(2, 130, 2):
        assert len(sample(name, 49, coalitions, torch.Generator().manual_seed(0)).weights) == coalitions


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("players", "coalitions"), [(4, 6), (5, 12), (5, 26), (6, 20)])
def test_each_coalition_is_included_as_often_as_the_design_says(name: str, players: int, coalitions: int) -> None:
    """No rounding, no half-sized class and no sampling within a class may favour one coalition over another."""
    number, counts, said = 1500, torch.zeros(2**players), torch.full((2**players,), torch.nan).double()
    for design in designs(name, players, coalitions, number):
        chosen = codes(design.coalitions)
        counts[chosen] += 1
        assert torch.equal(said[chosen].nan_to_num(design.inclusion[0]) > 0, torch.ones(coalitions, dtype=torch.bool))
        said[chosen] = design.inclusion
    rate = counts[1:-1] / number
    torch.testing.assert_close(said[1:-1].sum(), torch.tensor(float(coalitions), dtype=torch.float64))
    deviation = (said * (1 - said) / number).sqrt()[1:-1]
    assert ((rate - said[1:-1]).abs() <= 4 * deviation + 1e-12).all()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("players", "coalitions"), [(5, 12), (6, 40), (9, 300), (10, 60)])
def test_weights_are_kernel_over_inclusion(name: str, players: int, coalitions: int) -> None:
    for design in designs(name, players, coalitions, 3):
        expected = kernel(players)[codes(design.coalitions)] / design.inclusion
        torch.testing.assert_close(design.weights, expected, rtol=1e-10, atol=0)


@pytest.mark.parametrize(("players", "coalitions"), [(5, 8), (6, 20), (9, 100), (10, 300)])
def test_leverage_sampling_includes_in_proportion_to_the_leverage(players: int, coalitions: int) -> None:
    design = sample("leverage", players, coalitions, torch.Generator().manual_seed(0))
    ratio = design.inclusion / leverages(players)[codes(design.coalitions)]
    sampled = design.inclusion < 1
    assert sampled.any()
    torch.testing.assert_close(ratio[sampled], ratio.max().expand(int(sampled.sum())), rtol=1e-9, atol=0)


@pytest.mark.parametrize(("players", "coalitions"), [(5, 16), (9, 100), (12, 200)])
def test_without_replacement_includes_in_proportion_to_the_kernel(players: int, coalitions: int) -> None:
    design = sample("without_replacement", players, coalitions, torch.Generator().manual_seed(0))
    ratio = design.inclusion / kernel(players)[codes(design.coalitions)]
    sampled = design.inclusion < 1
    assert sampled.any()
    torch.testing.assert_close(ratio[sampled], ratio.max().expand(int(sampled.sum())), rtol=1e-9, atol=0)
    # And weights of the sampled are then all one, while the design as a whole carries the kernel's mass.
    torch.testing.assert_close(design.weights.sum(), torch.tensor(1.0, dtype=torch.float64))


def test_small_and_large_coalitions_are_enumerated_where_the_draws_cover_them() -> None:
    design = sample("without_replacement", 12, 300, torch.Generator().manual_seed(0))
    sizes = Counter(design.coalitions.sum(1).tolist())
    assert sizes[1] == sizes[11] == 12
    assert sizes[2] == sizes[10] < math.comb(12, 2)
    certain = design.inclusion == 1
    assert Counter(design.coalitions[certain].sum(1).tolist()) == {1: 12, 11: 12}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("players", [49, 196])
def test_numbers_by_size_stay_next_to_their_expectation(name: str, players: int) -> None:
    shares = torch.ones(players - 1) if name == "leverage" else shapley_kernel_sizes(players)
    for design in designs(name, players, 500, 5):
        certain = Counter(design.coalitions[design.inclusion == 1].sum(1).tolist())
        assert not certain or name == "without_replacement"
        drawn = Counter(design.coalitions[design.inclusion < 1].sum(1).tolist())
        left = shares.clone()
        left[[size - 1 for size in certain]] = 0
        expected = (500 - certain.total()) * left / left.sum()
        assert all(abs(drawn[size] - float(expected[size - 1])) < 2 for size in range(1, players))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("players", [2, 3, 6, 9])
@pytest.mark.parametrize("more", [0, 2, 1000])
def test_a_budget_for_every_coalition_takes_each_once_with_its_kernel_weight(
    name: str, players: int, more: int
) -> None:
    design = sample(name, players, 2**players - 2 + more, torch.Generator().manual_seed(0))
    assert torch.equal(codes(design.coalitions).sort().values, torch.arange(1, 2**players - 1))
    torch.testing.assert_close(design.weights, kernel(players)[codes(design.coalitions)], rtol=1e-12, atol=0)
    assert (design.inclusion == 1).all()
    again = all_coalitions(players)
    assert torch.equal(again.coalitions, design.coalitions)
    assert torch.equal(again.weights, design.weights)
