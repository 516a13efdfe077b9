"""What tests of every package share: seeded numbers, and what a refusal says."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from xai.core.errors import UserError


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def randn(*shape: int, seed: int = 0) -> Tensor:
    """Normal deviates in float64."""
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def refusal(call: Callable[..., Any], *args: Any, **settings: Any) -> str:
    """What a `UserError` of the call says: one line that a terminal shows as it is."""
    with pytest.raises(UserError) as caught:
        call(*args, **settings)
    line = str(caught.value)
    assert line.isprintable()
    assert len(line) < 400
    return line
