"""Kernel SHAP (Lundberg and Lee 2017) for a whole batch of games at once."""

import torch
from torch import Tensor

from xai.shapley.coalitions import sample
from xai.shapley.design import Design
from xai.shapley.distinct import all_coalitions
from xai.shapley.game import Game
from xai.shapley.regression import Estimate, Regression, check_solver


def kernel_shap(
    game: Game,
    coalitions: int,
    generator: torch.Generator,
    *,
    sampler: str = "leverage",
    solver: str = "least_squares",
    proxy: Tensor | None = None,
) -> Tensor:
    """Estimate the Shapley values of all patches.

    All images share one design of coalitions, so that the constrained least squares is one factorisation and one matrix
    product for the whole batch and every class. Where P allows every coalition, every coalition is asked once,
    whatever the sampler, and the values are exact.

    Args:
        game: The patches of B images.
        coalitions: P, the number of perturbed images evaluated; the empty and the full image come on top.
        generator: Source of all randomness.
        sampler: Where the coalitions come from, see `xai.shapley.coalitions.sample`.
        solver: `least_squares` or `unbiased`, see `xai.shapley.regression`.
        proxy: A guess of the Shapley values, [B, M, C] or [B, M], such as an amortised explainer's. Only what it does
            not explain is estimated.

    Returns:
        [B, M, C], or [B, M] where the game has targets. Their sum over patches is v(N) - v(empty), exactly.

    Raises:
        ValueError: Where sampler or solver is unknown, or P or the proxy cannot be used.
    """
    return _regression(game, coalitions, generator, sampler, solver, proxy).values()


def kernel_shap_with_error(
    game: Game,
    coalitions: int,
    generator: torch.Generator,
    *,
    sampler: str = "leverage",
    solver: str = "least_squares",
    proxy: Tensor | None = None,
) -> Estimate:
    """Estimate the Shapley values of all patches and their standard errors, from the same coalitions.

    The arguments are those of `kernel_shap`, and so are the values.

    Returns:
        Values and standard errors, each [B, M, C] or [B, M]. The error is how far the values spread over designs, the
        game being what it is; `Regression.standard_error` says how it is estimated, and where it is infinite or zero.

    Raises:
        ValueError: As `kernel_shap`.
    """
    regression = _regression(game, coalitions, generator, sampler, solver, proxy)
    return Estimate(regression.values(), regression.standard_error())


def solve_kernel_shap(
    design: Design,
    values: Tensor,
    empty: Tensor,
    full: Tensor,
    *,
    solver: str = "least_squares",
    proxy: Tensor | None = None,
) -> Tensor:
    """Shapley values from the answers to a design; arguments are those of `xai.shapley.regression.Regression`.

    Returns:
        phi [B, M] or [B, M, C] in the dtype of `values`; computed in float64.
    """
    return Regression(design, values, empty, full, solver=solver, proxy=proxy).values()


def _regression(
    game: Game, coalitions: int, generator: torch.Generator, sampler: str, solver: str, proxy: Tensor | None
) -> Regression:
    check_solver(solver)
    players = game.players
    design = sample(sampler, players, coalitions, generator)
    if coalitions >= 2**players - 2:
        # Draws with replacement would cost as much and be wrong.
        design = all_coalitions(players)
    ends = torch.tensor([[False], [True]]).expand(-1, players)
    values = game.value(torch.cat([ends, design.coalitions]))
    return Regression(design, values[:, 2:], values[:, 0], values[:, 1], solver=solver, proxy=proxy)
