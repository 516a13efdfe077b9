"""Kernel SHAP (Lundberg and Lee 2017) for a whole batch of games at once."""

import torch
from torch import Tensor

from xai.shapley.coalitions import sample
from xai.shapley.design import Design, Game
from xai.shapley.distinct import all_coalitions
from xai.shapley.regression import Estimate, Regression, check_solver
from xai.shapley.selection import Select, solve_selected


def kernel_shap(
    game: Game,
    coalitions: int,
    generator: torch.Generator,
    *,
    sampler: str = "leverage",
    solver: str = "least_squares",
    proxy: Tensor | None = None,
    select: Select = "all",
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
        select: `all` patches take part, or those that the shap package would select, see `xai.shapley.selection`; the
            latter only with least squares and without a proxy.

    Returns:
        [B, M, C], or [B, M] where the game has targets. Their sum over patches is v(N) - v(empty), exactly.

    Raises:
        ValueError: Where sampler or solver is unknown, or P, the proxy or the selection cannot be used.
    """
    if select == "all":
        check_solver(solver)
        return Regression(*asked(game, coalitions, generator, sampler), solver=solver, proxy=proxy).values()
    if solver != "least_squares" or proxy is not None:
        raise ValueError(f"select={select!r} needs the least squares solver, and no proxy")
    return solve_selected(*asked(game, coalitions, generator, sampler), select)


def kernel_shap_with_error(
    game: Game,
    coalitions: int,
    generator: torch.Generator,
    *,
    sampler: str = "leverage",
    solver: str = "least_squares",
    proxy: Tensor | None = None,
) -> Estimate:
    """The values of `kernel_shap` and their standard errors, [B, M, C] or [B, M] each, from the same coalitions.

    The error is how far the values spread over designs, the game being what it is; `Regression.standard_error` says
    how it is estimated, and where it is infinite or zero.
    """
    check_solver(solver)
    regression = Regression(*asked(game, coalitions, generator, sampler), solver=solver, proxy=proxy)
    return Estimate(regression.values(), regression.standard_error())


def asked(
    game: Game, coalitions: int, generator: torch.Generator, sampler: str
) -> tuple[Design, Tensor, Tensor, Tensor]:
    """A design, the game's answers to it, and what it says of no patch and of all."""
    players = game.players
    design = sample(sampler, players, coalitions, generator)
    if coalitions >= 2**players - 2:
        # Draws with replacement would cost as much and be wrong.
        design = all_coalitions(players)
    ends = torch.tensor([[False], [True]]).expand(-1, players)
    values = game.value(torch.cat([ends, design.coalitions]))
    return design, values[:, 2:], values[:, 0], values[:, 1]
