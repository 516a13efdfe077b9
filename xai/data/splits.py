"""Stratified splits that are the same every time they are asked for."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.data.registry import SPLITS

SPLIT_SEED = 0


def check_split(split: str) -> str:
    """`split` itself, "val" read as "validation".

    Raises:
        UserError: no split of that name.
    """
    split = "validation" if split == "val" else split
    if split not in SPLITS:
        raise UserError(f"split={split!r} is unknown; give one of {', '.join(SPLITS)}")
    return split


def stratified_parts(
    labels: Tensor, shares: Sequence[float], *, seed: int = SPLIT_SEED, groups: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Cut rows into the rest and one part per share, each class in proportion.

    Of a class with n rows, share s gets floor(s n), and at least one row where n exceeds the number of shares; what is
    left is the rest, never empty for a class that has rows.

    Args:
        labels: class of each row, [N] int64, at least 0.
        shares: size of each part, in (0, 1), one or two of them, at most 0.5 in all.
        seed: of the draw.
        groups: [N] int64; rows of one class and group (frames of one film, say) stay in the same part, and n then
            counts groups. None: every row by itself.

    Returns:
        len(shares) + 1 tensors of row numbers, each sorted; the rest first. Together they are every row once.

    Raises:
        ValueError: shares outside their range.
    """
    if not 1 <= len(shares) <= 2 or min(shares) <= 0 or sum(shares) > 0.5:
        raise ValueError(f"shares={tuple(shares)} must be one or two positive numbers, at most 0.5 in all")
    if groups is None:
        unit_labels, unit_of_row = labels, torch.arange(len(labels))
    else:
        units, unit_of_row = torch.unique(torch.stack([labels, groups]), dim=1, return_inverse=True)
        unit_labels = units[0]
    rank, counts = _rank_in_class(unit_labels, seed)
    part = torch.zeros(len(unit_labels), dtype=torch.long)
    taken = torch.zeros_like(counts)
    for number, share in enumerate(shares, start=1):
        # The millionth keeps 0.29 x 100 from falling to 28 by rounding.
        quota = (share * counts.double() + 1e-6).floor().long()
        quota = torch.where(counts > len(shares), quota.clamp(min=1), quota)
        first, last = taken[unit_labels], (taken + quota)[unit_labels]
        part[(rank >= first) & (rank < last)] = number
        taken = taken + quota
    part_of_row = part[unit_of_row]
    return tuple((part_of_row == number).nonzero().flatten() for number in range(len(shares) + 1))


def stratified_sample(labels: Tensor, count: int, seed: int) -> Tensor:
    """Row numbers of a random sample, sorted, of each class about in proportion.

    Args:
        labels: class of each row, [N] int64, at least 0.
        count: rows that are wanted; more than there are takes all.
        seed: of the draw.
    """
    rank, counts = _rank_in_class(labels, seed)
    # Evenly spaced within each class, and in a random order where classes tie: of more classes than rows not the first.
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    place = ((rank + 0.5) / counts[labels])[shuffled]
    return shuffled[place.argsort(stable=True)[:count]].sort().values


def _rank_in_class(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Each row's place in a random order of its class, and the size of each class."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    counts = torch.bincount(labels)
    starts = torch.tensor([0, *itertools.accumulate(counts.tolist())][:-1] or [0], dtype=torch.long)
    rank = torch.empty(len(labels), dtype=torch.long)
    rank[order] = torch.arange(len(labels)) - starts[labels[order]]
    return rank, counts
