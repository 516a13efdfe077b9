"""What is no more than rounding: a map that should be the same everywhere seldom is so to the last bit.

Which way the last bits fall depends on the processor; no decision may rest on them.
"""

import torch
from torch import Tensor

_STEPS = 16
"""What varies by no more than this many machine epsilons of its largest magnitude varies by rounding only."""


def at_least_float32(u: Tensor) -> Tensor:
    """The values in float32 where they are narrower, else as they are."""
    return u if u.dtype in (torch.float32, torch.float64) else u.float()


def tolerance(u: Tensor) -> float:
    """How much of the largest magnitude of values of this dtype is rounding, after some sums."""
    return _STEPS * torch.finfo(torch.float64 if u.dtype == torch.float64 else torch.float32).eps


def is_constant(u: Tensor) -> Tensor:
    """Bool [...]: whether the map u [..., M] varies by no more than the rounding of its own dtype."""
    wide = at_least_float32(u.detach())
    return wide.amax(-1) - wide.amin(-1) <= tolerance(u) * wide.abs().amax(-1)
