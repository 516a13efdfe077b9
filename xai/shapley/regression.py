"""The regression behind Kernel SHAP: one linear map from the values of a design to the Shapley values of all games."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from xai.shapley.design import Design

SOLVERS = ("least_squares", "unbiased")

_SINGULAR = 1e-9
"""A direction that the design weighs less than this, relative to the heaviest, counts as not sampled at all."""


class Estimate(NamedTuple):
    """Estimated Shapley values and their standard errors, each [B, M] or [B, M, C]."""

    values: Tensor
    standard_error: Tensor


class Regression:
    """Shapley values as the weighted least squares fit of an additive game (Lundberg and Lee 2017, theorem 2).

    Minimised over phi with sum(phi) = v(N) - v(empty) is the sum over rows of w_S (v(S) - v(empty) - phi(S))^2, where
    phi(S) is the sum of phi over the members of S. The constraint is met exactly, by substitution, not by a large
    weight, and no ridge biases the solution: phi is a start that has the right sum plus deviations that sum to zero,
    delta = K (sum over S of w_S c_S r(S)), with c_S the row of S minus its mean, and r the game minus the start.

    - `least_squares`: K is the pseudo-inverse of the sum of w_S c_S c_S^T. Much less variance, for a bias that
      vanishes as 1 / P. What the design leaves open (two patches that are always present together) is settled by
      the smallest deviations from the start: without a proxy, such patches get the same.
    - `unbiased`: K is the inverse of what that sum is in expectation (Covert and Lee 2021): on the deviations,
      the identity over 2 (1 + 1/2 + ... + 1/(M - 1)). Right in the mean for every P.

    The start is an even share of v(N) - v(empty). With a proxy it is the proxy, plus an even share of what the proxy's
    sum leaves (regression adjustment, Witter et al. 2025, in its additive form): the proxy is an additive game, whose
    Shapley values are known. A least squares fit of full rank absorbs every additive game, so there a proxy changes
    nothing. It replaces the even share where the design is too small to decide, and a good one takes variance from the
    unbiased solver.

    Args:
        design: The coalitions, shared by all games.
        values: v(S), [B, S] or [B, S, C].
        empty: v of the empty coalition, [B] or [B, C].
        full: v of the full coalition, [B] or [B, C].
        solver: `least_squares` or `unbiased`.
        proxy: A guess of phi, [B, M] or [B, M, C]; None is no guess.

    Raises:
        ValueError: Where the solver is unknown or shapes do not fit.
    """

    def __init__(
        self,
        design: Design,
        values: Tensor,
        empty: Tensor,
        full: Tensor,
        *,
        solver: str = "least_squares",
        proxy: Tensor | None = None,
    ) -> None:
        rows, players = design.coalitions.shape
        _check(rows, players, values, empty, full, proxy)
        check_solver(solver)
        self._design, self._dtype, self._single, self._solver = design, values.dtype, values.ndim == 2, solver
        z = design.coalitions.to(values.device, torch.float64)
        v, v0, v1 = (t.double()[..., None] if self._single else t.double() for t in (values, empty, full))
        share = (v1 - v0)[:, None] / players
        rest = v - v0[:, None] - z.sum(1)[:, None] * share
        start = share
        if proxy is not None:
            guess = proxy.to(v)[..., None] if self._single else proxy.to(v)
            # Only where it differs from the even share: the shares of its own sum are in `start` already.
            guess = guess - guess.mean(1, keepdim=True)
            start = share + guess
            rest = rest - torch.einsum("sm,bmc->bsc", z, guess)
        self._start, self._rest = start, rest
        # Centred rows leave no direction but that of deviations which sum to zero.
        self._centred = z - z.mean(1, keepdim=True)
        self._map = self._factorise()
        self._deviations = torch.einsum("ms,bsc->bmc", self._map, self._rest)

    def _factorise(self) -> Tensor:
        """The map [M, S] from r to the deviations: K times the weighted rows."""
        players, weights = self._centred.shape[1], self._design.weights.to(self._centred.device)
        if self._solver == "unbiased":
            harmonic = math.fsum(1 / k for k in range(1, players))
            return 2 * harmonic * (weights[:, None] * self._centred).T
        # Their scale does not matter, and equal weights of 1 round nothing.
        weighted = (weights / weights.max())[:, None] * self._centred
        inverse = torch.linalg.pinv(self._centred.T @ weighted, rtol=_SINGULAR, hermitian=True)
        return inverse @ weighted.T

    def values(self) -> Tensor:
        """Phi [B, M] or [B, M, C] in the dtype of the values; computed in float64."""
        return self._finish(self._start + self._deviations)

    def standard_error(self) -> Tensor:
        """Standard error of each value over designs, given the game: [B, M] or [B, M, C], in the dtype of the values.

        The sandwich estimator. Its unit is what was drawn on its own: a pair of complements, of which only the
        difference bears on phi, or a row of an unpaired design. Units that are included for certain add nothing (finite
        population correction, Horvitz and Thompson 1952).

        - `least_squares`: squared residuals are divided by 1 - leverage (HC2, MacKinnon and White 1985). On random
          games it is within a few per cent of the true spread from four pairs a patch on, and 10 to 15 % too small at
          two; HC1 is smaller still, HC3 larger by as much and more.
        - `unbiased`: the empirical variance of the terms of the sum, within a few per cent from a dozen pairs on.

        That designs without repeats are stratified by size is not made use of: single patches, whose worth depends on
        the size of the coalition, may come out a fifth too large.

        Infinite where there is nothing to estimate from: for all patches where some unit is fitted exactly whatever its
        value, as with no more different pairs than unknowns, or where there is a single unit; for those patches that
        the design does not tell apart. Zero where every coalition was asked.
        """
        step = 2 if self._design.paired else 1
        chance = 1 - self._design.inclusion[::step].to(self._map)
        drawn = int((chance > 0).sum())
        if not drawn:
            return self._finish(torch.zeros_like(self._deviations))
        residual, spare = self._rest, torch.ones_like(chance)
        if self._solver == "least_squares":
            residual = residual - torch.einsum("sm,bmc->bsc", self._centred, self._deviations)
            spare = torch.where(chance > 0, 1 - self._leverage(step), 1)
        if min(drawn - 1, float(spare.min())) < _SINGULAR:
            return self._finish(torch.full_like(self._deviations, torch.inf))
        if step == 2:
            residual = residual[:, 0::2] - residual[:, 1::2]
        map_ = self._map[:, ::step]
        variance = torch.einsum("mp,bpc->bmc", map_.square() * chance / spare, residual.square())
        if self._solver == "unbiased":
            # The terms scatter around their mean; residuals of a least squares fit already do around zero.
            mean = torch.einsum("mp,bpc->bmc", map_ * chance, residual) / chance.sum()
            variance = (variance - chance.sum() * mean.square()).clamp(min=0) * drawn / (drawn - 1)
        else:
            # On the deviations the fitted directions are a projection, and a complete one has the diagonal 1 - 1 / M.
            fitted = (self._map * self._centred.T).sum(1)
            variance[:, fitted < 1 - 1 / len(fitted) - _SINGULAR] = torch.inf
        return self._finish(variance.sqrt())

    def _leverage(self, step: int) -> Tensor:
        """Leverage of each unit; where a unit was drawn again and again, of all its draws together.

        A game answers the same each time: draws of one coalition are fitted exactly together, not each on its own.
        """
        coalitions = self._design.coalitions
        rows = (self._centred * self._map.T).sum(1).reshape(-1, step).sum(1)
        # Complements are one unit, whichever came first: the one without player 0 stands for both.
        units = coalitions[::2] ^ coalitions[::2, :1] if step == 2 else coalitions
        kinds, kind = torch.unique(units, dim=0, return_inverse=True)
        kind = kind.to(rows.device)
        return torch.zeros(len(kinds)).to(rows).index_add(0, kind, rows)[kind]

    def _finish(self, result: Tensor) -> Tensor:
        return (result[..., 0] if self._single else result).to(self._dtype)


def check_solver(solver: str) -> None:
    """Raise ValueError where there is no such solver."""
    if solver not in SOLVERS:
        raise ValueError(f"solver {solver!r} is unknown: use one of {', '.join(SOLVERS)}")


def _check(rows: int, players: int, values: Tensor, empty: Tensor, full: Tensor, proxy: Tensor | None) -> None:
    games, *classes = values.shape[:1] + values.shape[2:]
    fits = values.ndim in (2, 3) and values.shape[1] == rows
    fits &= list(empty.shape) == list(full.shape) == [games, *classes]
    if not fits:
        given = ", ".join(str(list(t.shape)) for t in (values, empty, full))
        raise ValueError(f"values, empty and full are {given}, they must be [B, {rows}(, C)], [B(, C)] and [B(, C)]")
    if proxy is not None and list(proxy.shape) != [games, players, *classes]:
        raise ValueError(f"the proxy is {list(proxy.shape)}, these games need {[games, players, *classes]}")
