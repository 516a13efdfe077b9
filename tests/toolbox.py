"""What tests of every package share: seeded numbers, what a refusal says, and a pickle that nobody may load."""

from collections.abc import Callable
from pathlib import Path
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


class Trap:
    """A pickle of this writes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return (Path.write_text, (self.marker, "executed"))
