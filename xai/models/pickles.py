"""What a pickle would import, read without running any of it."""

import itertools
import pickletools
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import torch

# A pickle of weights has a few operations a tensor; what has more than this was made to keep a scanner busy.
_MOST_OPERATIONS = 2_000_000
# A legacy torch file is five pickles in a row (magic number, version, platform, the object, storage keys), then bytes.
_LEGACY_PICKLES = 5


def is_textual_pickle(path: Path, head: bytes) -> bool:
    """Tell whether the file is a pickle of protocol 0 or 1, which begins with no mark of its own."""
    if head[:1] not in (b"(", b"c", b"}", b"]"):
        return False
    try:
        with path.open("rb") as file:
            for count, _ in enumerate(pickletools.genops(file)):
                if count > _MOST_OPERATIONS:
                    return False
    except Exception:  # not a pickle, then
        return False
    return True


def foreign_globals(path: Path) -> list[str]:
    """Name what the pickles of a legacy torch file, or a bare pickle, would import beyond the parts of a tensor."""
    found: list[str] = []
    with path.open("rb") as file:
        for _ in range(_LEGACY_PICKLES):
            found += imported(file)
    return foreign(found)


def imported(file: IO[bytes]) -> Iterator[str]:
    """Yield the dotted names that one pickle imports, read as far as it can be; nothing is executed."""
    strings: list[str] = []
    memo: dict[Any, str] = {}
    with suppress(Exception):  # a damaged pickle ends here; the loader tells the rest
        for opcode, argument, _ in itertools.islice(pickletools.genops(file), _MOST_OPERATIONS):
            if opcode.name in ("GLOBAL", "INST"):
                yield ".".join(str(argument).split(" ", 1))
            elif opcode.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif opcode.name in ("GET", "BINGET", "LONG_BINGET"):
                strings.append(memo.get(argument, "?"))
            elif opcode.name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if argument is None else argument] = strings[-1] if strings else "?"
            elif isinstance(argument, str):
                strings.append(argument)


def foreign(names: Iterable[str]) -> list[str]:
    """Keep the names that are no parts of a tensor, each once, in order."""
    return [name for name in dict.fromkeys(names) if not _is_tensor_part(name)]


def _is_tensor_part(name: str) -> bool:
    if name.startswith("torch._utils._rebuild_") or name in ("collections.OrderedDict", "torch.Size", "torch.device"):
        return True
    module, _, leaf = name.rpartition(".")
    is_dtype = module == "torch" and isinstance(getattr(torch, leaf, None), torch.dtype)
    return is_dtype or (module.startswith("torch") and leaf.endswith("Storage"))
