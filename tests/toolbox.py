"""What tests of every package share: seeded numbers, cases in text files, settings that are changed, refusals, and a
pickle nobody may load."""

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch
import yaml
from torch import Tensor

from xai.core.errors import UserError

T = TypeVar("T")


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


def there(value: T | None) -> T:
    """What must not be missing."""
    assert value is not None
    return value


def cases(test: str, name: str) -> list[tuple[Any, ...]]:
    """Those in a text file beside a test: one a line, its columns apart by ` | `; the last is text, the others YAML.

    Lines that begin with # say what the columns are, or why a case is one.
    """
    lines = Path(test).with_name(name).read_text(encoding="utf-8").splitlines()
    columns = [line.split(" | ") for line in lines if line and not line.startswith("#")]
    assert columns, f"{name} has no cases"  # of none pytest would skip the test
    assert all(text.strip() for *_, text in columns), f"{name} has a case of which nothing is expected"
    return [(*map(yaml.safe_load, values), text) for *values, text in columns]


def changed(values: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of settings in groups, one of them, by its dotted path with `[0]` for the first of a list, another."""
    made = inner = copy.deepcopy(values)
    *groups, last = path.replace("[", ".[").split(".")
    for group in groups:
        inner = inner[group]
    inner[int(last[1:-1]) if last.startswith("[") else last] = value  # type: ignore[index]
    return made


class Trap:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = str(marker)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (self.marker,)
