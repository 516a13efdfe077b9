"""How alpha and lambda2 are chosen on validation images.

The paper tunes both and does not say by what rule. The smallest error among those accurate enough is one that falls
over: single images move candidates across the floor, neighbours on the grid differ by less than they are known to,
and training from nothing turns rounding into another choice on another processor. So nothing is decided here by a
difference smaller than its standard error. Both are paired, candidate and rival seeing the same images.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

Candidate = tuple[float, float]
"""Alpha and lambda2."""


@dataclass(frozen=True)
class Choice:
    """An alpha and a lambda2, and what they were chosen by.

    Args:
        alpha: Balance of equation 4.
        lambda2: Factor of the explainability vector.
        images: On how many validation images; 0 where both were asked for.
        alike: The candidates that cannot be told from the best.
        gained: Mean accuracy less that of ft target, and its standard error.
    """

    alpha: float
    lambda2: float
    images: int = 0
    alike: tuple[Candidate, ...] = ()
    gained: tuple[float, float] = (0.0, 0.0)


def choose(candidates: Sequence[Candidate], error: Values, right: Values, before: Values, tolerance: float) -> Choice:
    """The one-standard-error rule (Breiman et al. 1984), for the error and for the accuracy.

    Kept are candidates whose accuracy is not below (1 - tolerance) times that of ft target by more than a standard
    error; where none is, those within one of the most accurate. Of these, candidates within one of the smallest error
    are alike, and of those alike the smallest lambda2 is taken, then the largest alpha: what changes the least.

    Args:
        candidates: K of them.
        error: Squared E-RMSE [N, K] on N validation images.
        right: Whether predictions are right, [N, K] in {0, 1}.
        before: The same of ft target, [N].
        tolerance: The share of ft target's accuracy that may be lost.
    """
    kept = _near_zero((1 - tolerance) * before[:, None] - right)
    if not kept.any():
        kept = _near_zero(right[:, [right.mean(0).argmax()]] - right)
    least = np.where(kept, error.mean(0), np.inf).argmin()
    near = kept & _near_zero(error - error[:, [least]])
    alike = sorted((candidates[int(each)] for each in near.nonzero()[0]), key=lambda each: (each[1], -each[0]))
    alpha, lambda2 = alike[0]
    gained = right[:, candidates.index(alike[0])] - before
    return Choice(alpha, lambda2, len(error), tuple(alike), (float(gained.mean()), float(_standard_error(gained))))


def _near_zero(differences: Values) -> NDArray[np.bool_]:
    """Which columns of [N, K] have a mean that is not above 0 by more than its standard error."""
    near: NDArray[np.bool_] = differences.mean(0) <= _standard_error(differences)
    return near


def _standard_error(values: Values) -> Values:
    """Of the mean over the first axis; 0 where there is but one value."""
    error: Values = values.std(0, ddof=min(1, len(values) - 1)) / len(values) ** 0.5
    return error
