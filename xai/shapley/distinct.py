"""Paired designs without repeats: every coalition at most once, and all of one size where there are so few."""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from xai.sampling import random_masks
from xai.shapley.design import Design, check_pairs, shapley_kernel_sizes, with_complements

_MANY = 1 << 1000
"""Stands for any larger number of coalitions: still a float, and no design comes near it."""


@dataclass(frozen=True)
class _Class:
    """The pairs of complements whose smaller half has `size` players; both halves may have M / 2."""

    players: int
    size: int

    @property
    def halved(self) -> bool:
        return 2 * self.size == self.players

    @property
    def pairs(self) -> int:
        return min(math.comb(self.players, self.size) // (2 if self.halved else 1), _MANY)

    def share(self, sizes: Tensor) -> float:
        """What the one or two sizes of the class have together, of the shares [M - 1] of all sizes."""
        return float(sizes[self.size - 1]) + (0 if self.halved else float(sizes[self.players - self.size - 1]))

    def all(self) -> Tensor:
        """Bool [pairs, M]: the smaller half of every pair, the one with player 0 where both have M / 2."""
        members = itertools.combinations(range(self.players), self.size)
        rows = torch.tensor(list(itertools.islice(members, self.pairs)))
        return torch.zeros(len(rows), self.players, dtype=torch.bool).scatter_(1, rows, True)


def distinct_pairs(players: int, coalitions: int, sizes: Tensor, generator: torch.Generator) -> Design:
    """A stratified sample of pairs of complements, in which no coalition occurs twice.

    The pairs of a size s and M - s are a class. Each class is expected to give pairs in proportion to its share; one
    that would give all it has or more is taken whole, and what is left over goes to the others in proportion. The
    numbers are rounded at random such that the expectations hold and the total is exact (systematic sampling), and
    within a class every set of pairs is equally likely.

    Args:
        players: M, at least 2.
        coalitions: S, even. From 2^M - 2 on, every coalition occurs once and nothing is left to chance.
        sizes: [M - 1], the share of each size 1 ... M - 1 in the design; positive, s and M - s alike.
        generator: Source of all randomness.

    Returns:
        min(S, 2^M - 2) rows, paired, by ascending size of the smaller half.

    Raises:
        ValueError: Where so many coalitions cannot be drawn in pairs.
    """
    check_pairs(players, coalitions)
    classes = [_Class(players, size) for size in range(1, players // 2 + 1)]
    pairs = [c.pairs for c in classes]
    expected = _expected_numbers(pairs, [c.share(sizes) for c in classes], coalitions // 2)
    numbers = _round(expected, pairs, generator)
    rows = with_complements(_choose(classes, numbers, generator))
    kernel = shapley_kernel_sizes(players)
    # Kernel over inclusion, with the number of pairs, which may be astronomical, cancelled.
    weights = [c.share(kernel) / (2 * mean) for c, mean in zip(classes, expected, strict=True)]
    inclusion = [mean / there for mean, there in zip(expected, pairs, strict=True)]
    repeats = 2 * torch.tensor(numbers)
    return Design(
        rows,
        torch.tensor(weights, dtype=torch.float64).repeat_interleave(repeats),
        torch.tensor(inclusion, dtype=torch.float64).repeat_interleave(repeats),
        paired=True,
    )


def all_coalitions(players: int) -> Design:
    """The design of every coalition but the empty and the full, weighed by the Shapley kernel: nothing is estimated."""
    return distinct_pairs(players, 2**players - 2, shapley_kernel_sizes(players), torch.Generator())


def _expected_numbers(pairs: Sequence[int], shares: Sequence[float], total: int) -> list[float]:
    """How many pairs each class is expected to give: in proportion to its share, and none more than it has."""
    if total >= sum(pairs):
        return [float(there) for there in pairs]
    whole: set[int] = set()
    while True:
        rest = total - sum(pairs[i] for i in whole)
        unit = rest / sum(share for i, share in enumerate(shares) if i not in whole)
        full = {i for i, share in enumerate(shares) if i not in whole and share * unit >= pairs[i]}
        if not full:
            return [float(pairs[i]) if i in whole else share * unit for i, share in enumerate(shares)]
        whole |= full


def _round(expected: Sequence[float], pairs: Sequence[int], generator: torch.Generator) -> list[int]:
    """Whole numbers with these expectations, each next to its own, and the sum of all as it is."""
    numbers = [int(mean) for mean in expected]
    sampled = [i for i, (mean, there) in enumerate(zip(expected, pairs, strict=True)) if mean < there]
    if not sampled:
        return numbers
    start = float(torch.rand((), generator=generator, dtype=torch.float64))
    marks = [start + mark for mark in itertools.accumulate(expected[i] for i in sampled)]
    # The sum is whole but for rounding errors, which must not cost a pair.
    marks[-1] = start + round(marks[-1] - start)
    for i, (before, after) in zip(sampled, itertools.pairwise([0, *map(math.floor, marks)]), strict=True):
        numbers[i] = after - before
    return numbers


def _choose(classes: Sequence[_Class], numbers: Sequence[int], generator: torch.Generator) -> Tensor:
    """Bool [sum of numbers, M]: one half of each chosen pair, class after class."""
    found: dict[int, Tensor] = {}
    drawn: dict[int, int] = {}
    for c, number in zip(classes, numbers, strict=True):
        if c.pairs > 2 * number:
            drawn[c.size] = number
        else:
            # Drawing most of a class would find repeats more often than not.
            rows = c.all()
            found[c.size] = rows if number == c.pairs else rows[torch.randperm(c.pairs, generator=generator)[:number]]
    found |= _draw_distinct(classes[0].players, drawn, generator)
    return torch.cat([found[c.size] for c in classes])


def _draw_distinct(players: int, numbers: dict[int, int], generator: torch.Generator) -> dict[int, Tensor]:
    """That many different pairs of each size: a repeat is drawn anew."""
    found: dict[int, dict[bytes, None]] = {size: {} for size in numbers}
    missing = Counter(numbers)
    while missing.total():
        sizes = torch.tensor(list(missing.elements()))
        (rows,) = random_masks(1, players, sizes, generator)
        # A pair of two halves is known by the one with player 0.
        rows = torch.where((2 * sizes == players)[:, None] & ~rows[:, :1], ~rows, rows)
        for size, code in zip(sizes.tolist(), np.packbits(rows.numpy(), axis=1), strict=True):
            found[size][code.tobytes()] = None
        missing = Counter({size: number - len(found[size]) for size, number in numbers.items()})
    return {size: _unpack(codes, players) for size, codes in found.items()}


def _unpack(codes: Iterable[bytes], players: int) -> Tensor:
    packed = np.frombuffer(b"".join(codes), dtype=np.uint8).reshape(-1, (players + 7) // 8)
    return torch.from_numpy(np.unpackbits(packed, axis=1, count=players).astype(bool))
