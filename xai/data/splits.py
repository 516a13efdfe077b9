"""Stratified splits and draws that are the same every time they are asked for."""

from collections.abc import Sequence

import torch
from torch import Tensor

SPLIT_SEED = 0


def stratified_parts(labels: Tensor, shares: Sequence[float], groups: Tensor | None = None) -> tuple[Tensor, ...]:
    """Cut rows into the rest and one part per share, each class in proportion.

    Of a class with n rows, share s gets floor(s n), and at least one row where n exceeds the number of shares; what is
    left is the rest, never empty for a class that has rows.

    Args:
        labels: class of each row, [N] int64, at least 0.
        shares: size of each part, in (0, 1), one or two of them, at most 0.5 in all.
        groups: [N] int64; rows of one group (frames of one film, pictures of one patient) stay in the same part, n then
            counts groups, and a group is of the highest class of its rows. None: every row by itself.

    Returns:
        len(shares) + 1 tensors of row numbers, each sorted; the rest first. Together they are every row once.
    """
    if groups is None:
        unit_labels, unit_of_row = labels, torch.arange(len(labels))
    else:
        units, unit_of_row = torch.unique(groups, return_inverse=True)
        unit_labels = torch.zeros(len(units), dtype=torch.long).scatter_reduce(0, unit_of_row, labels, "amax")
    rank = rank_in_class(unit_labels, SPLIT_SEED)
    counts = torch.bincount(unit_labels)
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
    # Evenly spaced within each class, and in a random order where classes tie: of more classes than rows not the first.
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    place = ((rank_in_class(labels, seed) + 0.5) / torch.bincount(labels)[labels])[shuffled]
    return shuffled[place.argsort(stable=True)[:count]].sort().values


def rank_in_class(labels: Tensor, seed: int) -> Tensor:
    """Each row's place [N], from 0, in a random order of its class: the first k of each class are a fair draw."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    order = shuffled[torch.argsort(labels[shuffled], stable=True)]
    starts = torch.bincount(labels).cumsum(0) - torch.bincount(labels)
    rank = torch.empty(len(labels), dtype=torch.long)
    rank[order] = torch.arange(len(labels)) - starts[labels[order]]
    return rank
