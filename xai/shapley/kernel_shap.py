"""Kernel SHAP (Lundberg and Lee 2017) for a whole batch of games at once.

Of all patches, or of a few, as the shap package does by default, so that its numbers can be had here too.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from xai.shapley.coalitions import sample
from xai.shapley.design import Design, Game
from xai.shapley.distinct import all_coalitions
from xai.shapley.regression import Estimate, Regression, check_solver

Select = Literal["all", "aic"] | int
"""Which patches take part: `all` (shap's `l1_reg=False`); those that Akaike's criterion picks along the path of the
lasso (`l1_reg="aic"`, shap's default until 2023 where few coalitions are asked); or the first so many that least angle
regression picks (`l1_reg="num_features(10)"`, its default since)."""


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
        select: `all` patches take part, or those that the shap package would select, see `Select`; the
            latter only with least squares and without a proxy.

    Returns:
        [B, M, C], or [B, M] where the game has targets. Their sum over patches is v(N) - v(empty), exactly.

    Raises:
        ValueError: Where sampler or solver is unknown, or P, the proxy or the selection cannot be used.
    """
    if select == "all":
        return _fitted(game, coalitions, generator, sampler, solver, proxy).values()
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
    regression = _fitted(game, coalitions, generator, sampler, solver, proxy)
    return Estimate(regression.values(), regression.standard_error())


def _fitted(
    game: Game, coalitions: int, generator: torch.Generator, sampler: str, solver: str, proxy: Tensor | None
) -> Regression:
    check_solver(solver)
    return Regression(*asked(game, coalitions, generator, sampler), solver=solver, proxy=proxy)


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


def solve_selected(design: Design, values: Tensor, empty: Tensor, full: Tensor, select: Select) -> Tensor:
    """Least squares over selected patches; the others get exactly zero, and share in nothing.

    Args:
        design: The coalitions, shared by all games.
        values: v(S), [B, S] or [B, S, C].
        empty: v of the empty coalition, [B] or [B, C].
        full: v of the full coalition, [B] or [B, C].
        select: How patches are selected, for each game by itself.

    Returns:
        phi [B, M] or [B, M, C] in the dtype of `values`. It adds up to v(N) - v(empty), but where none was selected.
    """
    if select == "all":
        return Regression(design, values, empty, full).values()
    many = values.ndim == 3
    columns = (t.unsqueeze(-1) if not many else t for t in (values, empty, full))
    answers, nothing, everything = (t.double().cpu().movedim(-1, 1).flatten(0, 1) for t in columns)
    rows = design.coalitions.cpu()
    phi = torch.zeros(len(answers), rows.shape[1], dtype=torch.float64)
    for game, (v, v0, v1) in enumerate(zip(answers, nothing, everything, strict=True)):
        kept = torch.from_numpy(_selected(rows, design.weights.cpu(), v - v0, v1 - v0, select))
        if len(kept):
            few = Design(rows[:, kept], design.weights.cpu(), design.inclusion.cpu(), design.paired)
            phi[game, kept] = Regression(few, v[None], v0[None], v1[None]).values()[0]
    phi = phi.unflatten(0, (len(values), -1)).movedim(1, -1).to(values)
    return phi if many else phi[..., 0]


def _selected(rows: Tensor, weights: Tensor, gain: Tensor, total: Tensor, select: Select) -> np.ndarray:
    """Numbers of the patches that enter, by the two equations of each coalition, of what it gains and what it lacks."""
    from sklearn.linear_model import LassoLarsIC, lars_path
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    present = rows.double()
    sizes, players = present.sum(1), present.shape[1]
    root = torch.cat([weights * (players - sizes), weights * sizes]).sqrt()
    x = (root[:, None] * torch.cat([present, present - 1])).numpy()
    y = (root * torch.cat([gain, gain - total])).numpy()
    if select == "aic":
        model = make_pipeline(StandardScaler(with_mean=False), LassoLarsIC(criterion="aic"))
        return np.flatnonzero(model.fit(x, y)[1].coef_)
    return np.asarray(lars_path(x, y, max_iter=select)[1], dtype=int)
