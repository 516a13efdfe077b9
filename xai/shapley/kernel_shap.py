"""Kernel SHAP (Lundberg and Lee 2017) for a whole batch of images at once."""

import torch
from torch import Tensor

from xai.games import PatchGame
from xai.shapley.coalitions import paired_coalitions

_SINGULAR = 1e-9
"""A direction that the design weighs less than this, relative to the heaviest, counts as not sampled at all."""


def kernel_shap(game: PatchGame, coalitions: int, generator: torch.Generator) -> Tensor:
    """Estimate the Shapley values of all patches.

    All images share one design of paired coalitions drawn from the Shapley kernel, so the constrained least squares is
    one factorisation and one matrix product for the whole batch and every class.

    Args:
        game: The patches of B images.
        coalitions: P, the number of perturbed images evaluated (even); the empty and the full image come on top.
        generator: Source of all randomness.

    Returns:
        [B, M, C], or [B, M] where the game has targets. Their sum over patches is v(N) - v(empty), exactly.
    """
    design = paired_coalitions(game.players, coalitions, generator)
    ends = torch.tensor([[False], [True]]).expand(-1, game.players)
    values = game.value(torch.cat([ends, design]))
    return solve_kernel_shap(design, values[:, 2:], values[:, 0], values[:, 1])


def solve_kernel_shap(design: Tensor, values: Tensor, empty: Tensor, full: Tensor) -> Tensor:
    """Minimise the sum over S of (v(S) - v(empty) - sum_{m in S} phi_m)^2 with sum(phi) = v(N) - v(empty).

    The coalitions are drawn from the Shapley kernel, so each counts the same. The constraint is met exactly, by
    substitution, not by a large weight, and no ridge biases the solution. What the design leaves open (two patches that
    are always present together) is settled by the smallest deviations from an even share: such patches get the same.

    Args:
        design: Bool [S, M], shared by all games.
        values: v(S), [B, S] or [B, S, C].
        empty: v of the empty coalition, [B] or [B, C].
        full: v of the full coalition, [B] or [B, C].

    Returns:
        phi [B, M] or [B, M, C] in the dtype of `values`; computed in float64.
    """
    z = design.to(values.device, torch.float64)
    v, v0, v1 = values.double(), empty.double(), full.double()
    squeeze = v.ndim == 2
    if squeeze:
        v, v0, v1 = v[..., None], v0[..., None], v1[..., None]
    share = (v1 - v0)[:, None] / z.shape[1]
    rest = v - v0[:, None] - z.sum(1)[:, None] * share
    # Phi is an even share plus deviations that sum to zero: centred rows leave no other direction to solve for.
    centred = z - z.mean(1, keepdim=True)
    inverse = torch.linalg.pinv(centred.T @ centred, rtol=_SINGULAR, hermitian=True)
    phi = share + torch.einsum("ms,bsc->bmc", inverse @ centred.T, rest)
    return (phi[..., 0] if squeeze else phi).to(values.dtype)
