"""Work cut into blocks that any number of processes share, started at any time and killed at any time.

There is no coordinator. A block is claimed by a lock on a small file, computed, and written whole as a shard; whoever
meets a shard or a claim passes on, and in the end waits for the blocks that others have claimed. Locks are `flock(2)`
locks, which the kernel frees when their holder dies, so a kill costs the block that was being computed and no other.
What a block holds must depend on its number alone, never on who computes it.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import safe_open
from torch import Tensor

from xai.core import locks
from xai.core.errors import Busy
from xai.core.files import write_atomically

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 2.0

_KEY = "xai.shard"
_SECONDS_BETWEEN_COUNTS = 1.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.01, 1.0
_FAULTS = {"origin": "belongs to other work", "rows": "is of other rows", "tensors": "has changed since it was written"}


@dataclass(frozen=True)
class _Shard:
    tensors: dict[str, Tensor]
    seconds: float


class _UnfitError(Exception):
    """A shard is there and is not the one that is wanted; the message says why."""


class Shards:
    """The blocks of one piece of work.

    Args:
        folder: Where shards and claims lie. It exists, until the work is done and the folder vanishes in one step.
        origin: What determines the numbers: the key of the artifact that they become a part of.
        blocks: The row numbers [B] of each block.
        patient: Whether to wait for the blocks that others have claimed.
    """

    def __init__(self, folder: Path, origin: str, blocks: Sequence[Tensor], *, patient: bool = True) -> None:
        self._folder, self._origin, self._blocks, self._patient = folder, origin, blocks, patient

    def fill(
        self,
        compute: Callable[[int], Mapping[str, Tensor]],
        advance: Callable[[int], None],
        after: Callable[[int], object] = lambda _: None,
        before: Callable[[int], object] = lambda _: None,
    ) -> None:
        """Compute what is missing, and wait for what others compute, until every block is there.

        A shard that is torn, or of other work or rows, is computed anew, with one line of warning. Where the folder
        has vanished nothing is left to do: another process has put the shards together.

        Args:
            compute: Makes the tensors of a block, [B, ...] each, from its number. What it raises passes.
            advance: Is told about once a second how many rows are done, by whomever.
            after: Is told of each block that was computed here, once it is written.
            before: Is told of each block that is to be computed here; what it does takes none of the block's seconds.

        Raises:
            Busy: Where it is not patient, and others have claimed all blocks that are left.
        """
        rank, world = place(os.environ)
        # Only a beginning: claims decide, so wrong ranks cost a few looks at another's blocks and nothing else.
        first = rank * len(self._blocks) // world
        missing = [*range(first, len(self._blocks)), *range(first)]
        counted, patience, pause = -math.inf, time.monotonic() + PATIENCE_SECONDS, _SHORTEST_PAUSE

        def settled(block: int) -> bool:
            nonlocal counted
            if time.monotonic() - counted >= _SECONDS_BETWEEN_COUNTS:
                counted = time.monotonic()
                advance(self._rows_done())
            return self._settle(block, compute, after, before)

        while self._folder.is_dir() and (left := [block for block in missing if not settled(block)]):
            if len(left) == len(missing) and not self._patient:
                raise Busy(f"{len(left)} blocks in {self._folder}")
            if len(left) < len(missing):
                pause, patience = _SHORTEST_PAUSE, time.monotonic() + PATIENCE_SECONDS
            if time.monotonic() > patience:
                who = locks.holder(self._path(left[0]).with_suffix(".lock"))
                by = f" ({who})" * bool(who)
                log.log(locks.NOTE, "waiting for other processes; blocks left: %d%s", len(left), by)
                patience = math.inf
            time.sleep(pause)
            missing, pause = left, min(2 * pause, _LONGEST_PAUSE)
        advance(sum(map(len, self._blocks)))

    def collect(self) -> tuple[dict[str, Tensor], float]:
        """The tensors of all blocks, one after the other, and the seconds they took in all processes together.

        `fill` comes first. What a kill threw away is not counted.
        """
        shards = [self._read(block) for block in range(len(self._blocks))]
        names = shards[0].tensors
        whole = {name: torch.cat([shard.tensors[name] for shard in shards]) for name in names}
        return whole, sum(shard.seconds for shard in shards)

    def put(self, block: int, compute: Callable[[int], Mapping[str, Tensor]]) -> None:
        """Compute a block now if it is missing and nobody has claimed it: where other work has nearly made it."""
        self._settle(block, compute, lambda _: None, lambda _: None)

    def _settle(
        self,
        block: int,
        compute: Callable[[int], Mapping[str, Tensor]],
        after: Callable[[int], object],
        before: Callable[[int], object],
    ) -> bool:
        """Whether a block is there now; it is not where another process has claimed it, or the folder has vanished."""
        if self._is_there(block, warn=False):
            return True
        with locks.claimed(self._path(block).with_suffix(".lock")) as is_mine:
            # The last holder may have finished between the look and the claim.
            if not is_mine or self._is_there(block, warn=True):
                return is_mine
            if not self._folder.is_dir():
                return False
            before(block)
            start = time.perf_counter()
            tensors = {name: value.contiguous() for name, value in compute(block).items()}
            is_there = self._write(block, _Shard(tensors, time.perf_counter() - start))
        after(block)
        return is_there

    def _is_there(self, block: int, *, warn: bool) -> bool:
        try:
            self._read(block)
        except FileNotFoundError:
            return False
        except _UnfitError as fault:
            if warn:
                log.warning("%s %s; it is computed anew", self._path(block), fault)
            return False
        return True

    def _read(self, block: int) -> _Shard:
        path = self._path(block)
        if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
            raise _UnfitError("is no file")
        try:
            with safe_open(path, framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                told = json.loads((file.metadata() or {})[_KEY])
            shard = _Shard(tensors, float(told["seconds"]))
        except FileNotFoundError:
            raise
        except Exception:  # whatever the parser makes of bytes from anywhere
            raise _UnfitError("is torn") from None
        # What is of all rows together, which are one block then, has a single value.
        lengths = {len(self._blocks[block]), *([1] if len(self._blocks) == 1 else [])}
        if any(value.ndim == 0 or len(value) not in lengths for value in tensors.values()):
            raise _UnfitError("is of another shape")
        for name, value in self._identity(block, tensors).items():
            if told.get(name) != value:
                raise _UnfitError(_FAULTS[name])
        return shard

    def _write(self, block: int, shard: _Shard) -> bool:
        told = {**self._identity(block, shard.tensors), "seconds": shard.seconds}
        content = safetensors.torch.save(shard.tensors, {_KEY: json.dumps(told)})
        path = self._path(block)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        try:
            # A power cut may tear it, which its checksum would tell.
            write_atomically(path, content, lasting=False)
        except FileNotFoundError:
            return False
        return True

    def _identity(self, block: int, tensors: dict[str, Tensor]) -> dict[str, str]:
        """What a shard says of itself: where it belongs, and a checksum of what it holds."""
        rows = {"rows": self._blocks[block]}
        return {"origin": self._origin, "rows": _digest(rows), "tensors": _digest(tensors)}

    def _path(self, block: int) -> Path:
        return self._folder / f"{block:06d}.safetensors"

    def _rows_done(self) -> int:
        names = {path.name for path in self._folder.glob("*.safetensors")}
        return sum(len(rows) for block, rows in enumerate(self._blocks) if self._path(block).name in names)


def place(environment: Mapping[str, str]) -> tuple[int, int]:
    """Which of how many processes this one is, counted from 0, by what torchrun or SLURM say; else 0 of 1.

    Array jobs multiply: with an array of 4 and 8 tasks in each, there are 32 processes.
    """

    def pair(index: str, count: str, first: str = "") -> tuple[int, int] | None:
        try:
            number, total = int(environment[index]) - int(environment.get(first, 0)), int(environment[count])
        except (KeyError, ValueError):
            return None
        return (number, total) if 0 <= number < total else None

    inner = pair("RANK", "WORLD_SIZE") or pair("SLURM_PROCID", "SLURM_NTASKS") or (0, 1)
    outer = pair("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN") or (0, 1)
    return outer[0] * inner[1] + inner[0], outer[1] * inner[1]


def _digest(tensors: dict[str, Tensor]) -> str:
    return hashlib.sha256(safetensors.torch.save(tensors)).hexdigest()[:20]
