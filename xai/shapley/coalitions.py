"""Samplers of coalitions, by name."""

from collections.abc import Callable

import torch

from xai.sampling import random_masks
from xai.shapley.design import Design, check_pairs, shapley_kernel_sizes
from xai.shapley.distinct import distinct_pairs
from xai.shapley.masks import kernel_sizes, paired_masks


def sample(name: str, players: int, coalitions: int, generator: torch.Generator) -> Design:
    """Sample a design of coalitions.

    Args:
        name: One of `SAMPLERS`: `shapley_kernel` (independent draws), `paired` (each draw and its complement),
            `leverage` (every size alike, no repeats), `without_replacement` (the kernel's sizes, no repeats).
        players: M, at least 2.
        coalitions: S; even, unless the draws are independent.
        generator: Source of all randomness.

    Returns:
        S rows; `leverage` and `without_replacement` have no more than the 2^M - 2 coalitions there are.

    Raises:
        ValueError: Where the name is unknown or the numbers cannot be met.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is unknown: use one of {', '.join(SAMPLERS)}")
    return SAMPLERS[name](players, coalitions, generator)


def shapley_kernel(players: int, coalitions: int, generator: torch.Generator) -> Design:
    """Independent draws from the Shapley kernel, with replacement (Lundberg and Lee 2017)."""
    if players < 2 or coalitions < 1:
        raise ValueError(f"sampling needs 2 or more players and 1 or more coalitions, not {players}, {coalitions}")
    (drawn,) = random_masks(1, players, kernel_sizes(players, coalitions, generator), generator)
    return Design.drawn(drawn)


def paired(players: int, coalitions: int, generator: torch.Generator) -> Design:
    """Draws from the Shapley kernel, each followed by its complement (Covert and Lee 2021): S is even."""
    check_pairs(players, coalitions)
    (drawn,) = paired_masks(1, players, coalitions // 2, generator)
    return Design.drawn(drawn, paired=True)


def leverage(players: int, coalitions: int, generator: torch.Generator) -> Design:
    """Pairs without repeats, included in proportion to their leverage (Leverage SHAP, Musco and Witter 2025).

    The leverage of a coalition in the regression of Kernel SHAP is 1 / C(M, |S|), so that every size has the same
    share. Unlike theirs, the total is exact: numbers by size are rounded, not binomial.
    """
    return distinct_pairs(players, coalitions, torch.ones_like(shapley_kernel_sizes(players)), generator)


def without_replacement(players: int, coalitions: int, generator: torch.Generator) -> Design:
    """Pairs without repeats, included in proportion to the Shapley kernel.

    Sizes whose share covers all coalitions of that size are enumerated, as in the shap package; others are sampled.
    """
    return distinct_pairs(players, coalitions, shapley_kernel_sizes(players), generator)


SAMPLERS: dict[str, Callable[[int, int, torch.Generator], Design]] = {
    sampler.__name__: sampler for sampler in (shapley_kernel, paired, leverage, without_replacement)
}
"""Samplers by name: of M players, S coalitions, with a generator."""
