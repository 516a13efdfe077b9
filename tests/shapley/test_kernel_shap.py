import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
import shap
import torch
from torch import Tensor

from tests.models.tiny_clip import classifier, pictures
from xai.games import PatchGame
from xai.models.maskable import Removal
from xai.shapley.coalitions import paired_coalitions
from xai.shapley.kernel_shap import kernel_shap, solve_kernel_shap


def all_coalitions(players: int) -> Tensor:
    return torch.tensor(list(itertools.product([False, True], repeat=players)))


def codes(design: Tensor) -> Tensor:
    """Row of each coalition in the table of `all_coalitions`."""
    return (design.long() * 2 ** torch.arange(design.shape[1]).flip(0)).sum(1)


def random_game(players: int, seed: int = 0, games: int = 3) -> Tensor:
    """Values [games, 2^M] of every coalition, float64."""
    return torch.randn(games, 2**players, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shapley_by_permutations(table: Tensor, players: int) -> Tensor:
    """The definition: the mean marginal contribution over every order in which the players can enter."""
    phi = np.zeros((len(table), players))
    values, orders = table.numpy(), list(itertools.permutations(range(players)))
    for order in orders:
        code = 0
        for player in order:
            after = code + 2 ** (players - 1 - player)
            phi[:, player] += values[:, after] - values[:, code]
            code = after
    return torch.from_numpy(phi / len(orders))


def proportional_design(players: int) -> Tensor:
    """Every coalition but the empty and the full, repeated in proportion to its kernel weight, exactly."""
    weight = {s: Fraction(players - 1, math.comb(players, s) * s * (players - s)) for s in range(1, players)}
    unit = math.lcm(*(w.denominator for w in weight.values()))
    copies = {s: int(w * unit) for s, w in weight.items()}
    shrink = math.gcd(*copies.values())
    return torch.cat([row.repeat(copies[int(row.sum())] // shrink, 1) for row in all_coalitions(players)[1:-1]])


def solve(table: Tensor, design: Tensor) -> Tensor:
    return solve_kernel_shap(design, table[:, codes(design)], table[:, 0], table[:, -1])


@pytest.mark.parametrize("players", [2, 4, 5, 6, 7])
def test_a_design_in_proportion_to_the_kernel_gives_the_shapley_values(players: int) -> None:
    table = random_game(players)
    phi = solve(table, proportional_design(players))
    torch.testing.assert_close(phi, shapley_by_permutations(table, players), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("players", [3, 6, 8])
def test_the_same_design_gives_what_the_shap_package_gives(players: int) -> None:
    table = random_game(players, seed=players, games=1)

    def values(rows: np.ndarray) -> np.ndarray:
        return table[0, codes(torch.from_numpy(rows > 0.5))].numpy()

    explainer = shap.KernelExplainer(values, np.zeros((1, players)), silent=True)
    expected = explainer.shap_values(np.ones((1, players)), nsamples=2**players, l1_reg=False)
    phi = solve(table, proportional_design(players))
    np.testing.assert_allclose(phi.numpy(), expected, rtol=1e-8, atol=1e-8)


def test_additive_games_are_recovered_exactly_from_few_coalitions() -> None:
    players = 9
    worth = torch.randn(4, players, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    design = paired_coalitions(players, 24, torch.Generator().manual_seed(0))
    assert torch.linalg.matrix_rank(design.double()) == players
    offset = torch.tensor([0.0, 1.0, -3.0, 100.0], dtype=torch.float64)
    values = offset[:, None] + worth @ design.double().T
    phi = solve_kernel_shap(design, values, offset, offset + worth.sum(1))
    torch.testing.assert_close(phi, worth, rtol=1e-9, atol=1e-10)


def test_the_sum_over_patches_is_the_whole_exactly_even_from_two_coalitions() -> None:
    for coalitions in (2, 6, 60):
        table = random_game(8)
        phi = solve(table, paired_coalitions(8, coalitions, torch.Generator().manual_seed(0)))
        torch.testing.assert_close(phi.sum(1), table[:, -1] - table[:, 0], rtol=0, atol=1e-12)
        assert phi.isfinite().all()


def test_patches_that_no_coalition_tells_apart_share_alike() -> None:
    design = paired_coalitions(5, 40, torch.Generator().manual_seed(0))
    design[:, 3] = design[:, 1]
    design = design[~design.all(1) & design.any(1)]
    phi = solve(random_game(5), design)
    torch.testing.assert_close(phi[:, 1], phi[:, 3], rtol=0, atol=1e-10)
    # And what the two have in common is what one player in their place would have.
    joined, table = design[:, [0, 1, 2, 4]].double(), random_game(5)
    rest = table[:, codes(design)] - table[:, :1]
    shares = torch.tensor([1.0, 2.0, 1.0, 1.0], dtype=torch.float64)
    hessian = torch.block_diag(joined.T @ joined, torch.zeros(1, 1))
    hessian[-1, :4] = hessian[:4, -1] = torch.ones(4)
    right = torch.cat([joined.T @ rest.T, (table[:, -1] - table[:, 0])[None]])
    expected = torch.linalg.solve(hessian, right)[:4].T
    torch.testing.assert_close(phi[:, [0, 1, 2, 4]] * shares, expected, rtol=1e-9, atol=1e-9)


def test_the_solution_is_the_constrained_least_squares_one() -> None:
    """Against the Karush-Kuhn-Tucker system of the same design, every class at once."""
    design = paired_coalitions(7, 30, torch.Generator().manual_seed(5))
    generator = torch.Generator().manual_seed(6)
    values, empty, full = (torch.randn(shape, generator=generator).double() for shape in ((2, 30, 4), (2, 4), (2, 4)))
    phi = solve_kernel_shap(design, values, empty, full)
    z = design.double()
    system = torch.zeros(8, 8, dtype=torch.float64)
    system[:7, :7], system[7, :7], system[:7, 7] = z.T @ z, 1, 1
    for game in range(2):
        for c in range(4):
            right = torch.cat([z.T @ (values[game, :, c] - empty[game, c]), (full - empty)[game, c, None]])
            expected = torch.linalg.solve(system, right)[:7]
            torch.testing.assert_close(phi[game, :, c], expected, rtol=1e-9, atol=1e-9)
            alone = solve_kernel_shap(design, values[..., c], empty[:, c], full[:, c])
            torch.testing.assert_close(alone, phi[..., c])


def test_the_error_shrinks_as_one_over_the_root_of_the_number_of_coalitions() -> None:
    players = 7
    table = random_game(players, games=8)
    exact = solve(table, proportional_design(players))
    errors = []
    for coalitions in (100, 400, 1600):
        draws = [
            solve(table, paired_coalitions(players, coalitions, torch.Generator().manual_seed(s))) for s in range(12)
        ]
        errors.append(float(torch.stack([(draw - exact).square().mean() for draw in draws]).mean().sqrt()))
    for larger, smaller in itertools.pairwise(errors):
        assert larger / smaller == pytest.approx(2, rel=0.3)


def test_values_keep_their_type() -> None:
    design = paired_coalitions(4, 12, torch.Generator().manual_seed(0))
    values = torch.rand(1, 12)
    assert solve_kernel_shap(design, values, torch.zeros(1), torch.ones(1)).dtype == torch.float32


def test_kernel_shap_asks_the_game_for_the_design_and_both_ends() -> None:
    images, model = pictures(3), classifier(Removal("tokens"))
    phi = kernel_shap(PatchGame(model, images, output="logit"), 120, torch.Generator().manual_seed(9))
    assert phi.shape == (3, 16, 5)
    design = paired_coalitions(16, 120, torch.Generator().manual_seed(9))
    values = torch.stack([model(images, row.expand(3, -1)) for row in design], dim=1)
    blank = torch.zeros(3, 16, dtype=torch.bool)
    expected = solve_kernel_shap(design, values, model(images, blank), model(images))
    torch.testing.assert_close(phi.double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(phi.sum(1).double(), model(images) - model(images, blank), rtol=1e-4, atol=1e-4)
    targets = torch.tensor([0, 4, 2])
    aimed = kernel_shap(PatchGame(model, images, targets, output="logit"), 120, torch.Generator().manual_seed(9))
    torch.testing.assert_close(aimed, phi[torch.arange(3), :, targets], rtol=1e-5, atol=1e-5)
