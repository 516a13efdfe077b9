"""One text for one meaning: what keys of the store are made of."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any


def canonical(spec: Any) -> str:
    """One JSON text for each meaning of `spec`: keys sorted, tuples as lists, paths as strings, 1.0 as 1.

    Raises TypeError, naming the place, for NaN, infinity, keys that are not strings, and sets, tensors and the like.
    """
    return json.dumps(_plain(spec, ""), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any, where: str) -> Any:
    """`value` as JSON types only; `where` is the dotted path to it, for the TypeError."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str | os.PathLike):
        return str(value)
    if isinstance(value, int) or (isinstance(value, float) and math.isfinite(value)):
        return int(value) if value == int(value) else float(value)
    if isinstance(value, Mapping):
        if odd := [key for key in value if not isinstance(key, str)]:
            raise TypeError(f"{where or 'spec'}: key {odd[0]!r} is not a string")
        return {str(key): _plain(item, f"{where}.{key}".lstrip(".")) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    shown = value if isinstance(value, float) else type(value).__name__
    raise TypeError(f"{where or 'spec'}: {shown} is not JSON; use numbers, strings, lists and dicts")
