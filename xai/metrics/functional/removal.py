"""How well maps foretell what a classifier says with patches removed: MIF, LIF, SRG and their relative forms.

Naouar et al. 2025 (SALVAGE), appendix A.1. LIF and MIF are the insertion and deletion curves of Petsiuk et al. 2018,
and SRG is their difference (Blücher et al. 2024). R-LIF and R-MIF draw patches with the attributions as weights where
those two sort them, so that differences between attributions count, and not their ranks alone. Every score is the mean
of a curve: the value of the target class with 1, 2, ..., M patches present.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from xai.core.errors import UserError, check_finite
from xai.rounding import is_constant
from xai.sampling import importance_weights, ranks_with_random_ties, weighted_ranks

Value = Callable[[Tensor], Tensor]
"""A game with a target class: coalitions, Bool [B, S, M], to values [B, S]; `PatchGame.value` is one."""

_COALITION_BUDGET = 2**26
"""Entries of the coalitions [B, R, sizes, M] held at once, a byte each; one size is held whatever it takes."""


class RemovalCurves(NamedTuple):
    """Values of the target class, each float64 [B, M]; entry i - 1 is the one with i patches present.

    The last entry is v(N) in all four, and the empty image is in none.
    """

    lif: Tensor
    mif: Tensor
    r_lif: Tensor
    r_mif: Tensor


def ranked_curves(
    value: Value, attributions: Tensor, generator: torch.Generator, constant: str = "refuse"
) -> tuple[Tensor, Tensor]:
    """LIF and MIF curves (Algorithm 1): the patches enter in the order of their attributions.

    LIF removes the least important patches first, so the most important ones are the first to be present; MIF is the
    other way round. Patches of equal attribution enter in random order, because an order by position would earn points.

    Args:
        value: The game.
        attributions: [B, M]; higher is more important.
        generator: Orders the ties; all draws are made on its device.
        constant: What to do with a constant map: `refuse` it, or score it as a `random` order.

    Returns:
        LIF and MIF, each float64 [B, M].

    Raises:
        UserError: Maps are not [B, M], not finite, or constant where that is refused.
        ValueError: The game does not answer with [B, S].
    """
    phi = _usable(attributions, constant, generator)
    ranks = _ranks(phi, generator)
    lif, mif = _curves(value, phi.shape[1], lambda: ranks).unbind(1)
    return lif, mif


def removal_curves(
    value: Value, attributions: Tensor, masks: int, generator: torch.Generator, constant: str = "refuse"
) -> RemovalCurves:
    """All four curves. Coalitions that several of them ask for are answered once, the full image above all.

    LIF and MIF are those of `ranked_curves` with the same generator. For R-LIF and R-MIF (Algorithm 2) the patches
    present are drawn, with the attributions as weights. Line 14 draws i patches one after the other, without
    replacement. Going on until no patch is left changes nothing about the first i, so an order of all patches, cut off
    after i of them, has exactly that distribution for every i; `xai.sampling.weighted_ranks` draws such orders for all
    images and masks at once. Each size gets orders of its own, as in lines 11 to 17: cutting one order at every size
    would have the same expectation, but neighbouring sizes would then err in the same direction, and the mean over
    sizes would be less exact for the same number of passes.

    Arguments and errors are those of `ranked_curves`; `masks` is n_masks, 128 in the paper: the coalitions drawn for
    each size and each curve, over which R-LIF and R-MIF are means.
    """
    phi = _usable(attributions, constant, generator)
    weights = _weights(phi, masks)
    ranks = _ranks(phi, generator)
    curves = _curves(value, phi.shape[1], lambda: torch.cat([ranks, weighted_ranks(weights, generator)], dim=1))
    r_lif, r_mif = curves[:, 2:].unflatten(1, (2, -1)).mean(2).unbind(1)
    return RemovalCurves(curves[:, 0], curves[:, 1], r_lif, r_mif)


def scores(curves: RemovalCurves) -> dict[str, Tensor]:
    """The six scores: means of the curves [..., M] over sizes, and the differences SRG (eq. 7) and R-SRG (eq. 8).

    Returns:
        lif, mif, srg, r_lif, r_mif and r_srg, each [...]; mif and r_mif are better when lower, the others when higher.
    """
    lif, mif, r_lif, r_mif = (curve.mean(-1) for curve in curves)
    return {"lif": lif, "mif": mif, "srg": lif - mif, "r_lif": r_lif, "r_mif": r_mif, "r_srg": r_lif - r_mif}


def passes(players: int, masks: int) -> int:
    """How many masked images one image costs `removal_curves` at most; fewer where coalitions happen to be the same.

    Of the coalitions of a size no more than C(M, size) differ, and the full image is one for all. Without masks it is
    what `ranked_curves` costs.
    """
    return 1 + sum(min(2 * masks + 2, math.comb(players, size)) for size in range(1, players))


def check_players(attributions: Tensor, players: int) -> None:
    """Raise UserError unless the maps [B, h, w] or [B, M] have as many patches as the game has players."""
    patches = attributions.shape[1:].numel()
    if patches != players:
        shape = tuple(attributions.shape)
        raise UserError(f"attributions of shape {shape} belong to another grid: the game has {players} patches")


def _usable(attributions: Tensor, constant: str, generator: torch.Generator) -> Tensor:
    """Maps [B, M] in float64 where draws are made, all zeros where they are constant."""
    if attributions.ndim != 2 or not attributions.numel():
        raise UserError(
            f"attributions are {tuple(attributions.shape)}; they have to be [B, M], M patches of B >= 1 images"
        )
    if constant not in ("refuse", "random"):
        raise UserError(f"constant={constant} is unknown: use refuse or random")
    check_finite(attributions, "the attributions", "all values must be finite", torch.arange(len(attributions)))
    flat = is_constant(attributions)
    if constant == "refuse" and flat.any():
        image = int(flat.nonzero()[0])
        raise UserError(
            f"the attributions of image {image} of the batch (counted from 0) are constant and rank no patch; "
            "use constant=random to score them as a random order"
        )
    return attributions.detach().double().masked_fill(flat[:, None], 0).to(generator.device)


def _ranks(phi: Tensor, generator: torch.Generator) -> Tensor:
    """[B, 2, M]: when each patch enters, most important first and least important first."""
    ranks = ranks_with_random_ties(phi, generator)
    return torch.stack([ranks, phi.shape[1] - 1 - ranks], dim=1)


def _weights(phi: Tensor, masks: int) -> Tensor:
    """[B, 2 masks, M]: what R-LIF draws with, and then what R-MIF draws with (Algorithm 2, lines 3 to 10)."""
    if masks < 1:
        raise UserError(f"masks={masks}; R-LIF and R-MIF draw at least 1 mask of each size")
    important = importance_weights(phi)
    return torch.stack([important, 1 - important], dim=1).repeat_interleave(masks, dim=1)


def _curves(value: Value, players: int, draw: Callable[[], Tensor]) -> Tensor:
    """[B, R, M]: for each size, the values of the patches that come first in orders that `draw` gives as ranks."""
    curves: list[Tensor] = []
    waiting: list[Tensor] = []
    for size in range(1, players + 1):
        waiting.append(draw() < size)
        if size == players or (len(waiting) + 1) * waiting[0].numel() > _COALITION_BUDGET:
            curves.append(_ask(value, torch.stack(waiting, dim=2)))
            waiting = []
    return torch.cat(curves, dim=2)


def _ask(value: Value, coalitions: Tensor) -> Tensor:
    """Values [B, R, sizes] of coalitions [B, R, sizes, M], small ones first; equal ones of an image are asked once."""
    asked, place = _distinct(coalitions.flatten(1, 2))
    values = value(asked)
    if values.shape != asked.shape[:2]:
        raise ValueError(
            f"the game answers {list(asked.shape)} with {list(values.shape)}, not with {list(asked.shape[:2])}: "
            "it has to be one with targets"
        )
    return values.double().gather(1, place.to(values.device)).unflatten(1, coalitions.shape[1:3])


def _distinct(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows of each image, and where each row went.

    Where weights are far apart most draws of very few or nearly all patches are the same, and on small grids most draws
    of any size: asking once saves about half of the tokens on 4 x 4 patches, and 3 in a hundred on 14 x 14.

    Args:
        rows: Bool [B, S, M].

    Returns:
        Bool [B, S', M] and indices [B, S] into it. S' is the largest number of different rows of an image; the others
        are filled up with their row 0, which should be the cheapest.
    """
    bits = F.pad(rows, (0, -rows.shape[-1] % 64)).to(torch.uint8).unflatten(-1, (-1, 8))
    codes = (
        (bits << torch.arange(8, dtype=torch.uint8, device=rows.device)).sum(-1, dtype=torch.uint8).view(torch.int64)
    )
    places = torch.arange(rows.shape[1], device=rows.device)
    kept, found = [], []
    for own in codes:
        different, place = torch.unique(own, dim=0, return_inverse=True)
        first = places.new_full((len(different),), len(places)).scatter_reduce(0, place, places, "amin")
        kept.append(first)
        found.append(place)
    # Filled up with row 0.
    return rows.gather(1, pad_sequence(kept, True)[..., None].expand(-1, -1, rows.shape[2])), torch.stack(found)
