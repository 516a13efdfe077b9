"""Slots of a machine, in each of which one job runs at a time: of one sweep, or of several that one command starts."""

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xai.core import locks
from xai.core.launching import check_not_stopped

SHARED = "XAI_SLOTS"
"""In the environment of a sweep: the folder with a lock for each slot, where others have the same slots."""
SECONDS = 0.1
"""Between two looks whether a slot is free."""


class Slots:
    """Locks of as many slots; whoever dies gives back what he holds.

    Args:
        count: How many.
    """

    def __init__(self, count: int) -> None:
        shared = os.environ.get(SHARED)
        self._own = None if shared else tempfile.TemporaryDirectory(prefix="xai-slots-")
        self._folder, self._count = Path(shared or self._own.name), count  # type: ignore[union-attr]

    @contextmanager
    def one(self) -> Iterator[int]:
        """The number of a slot that is free, once one is; it is taken while the body runs."""
        while (taken := self._free()) is None:
            check_not_stopped()
            time.sleep(SECONDS)
        number, lock = taken
        try:
            yield number
        finally:
            locks.release(lock)

    def all_begun(self) -> None:
        """Say that no job of this sweep waits for a slot any more."""
        mark_of(self._folder, os.getpid()).touch()

    def _free(self) -> tuple[int, int] | None:
        self._folder.mkdir(parents=True, exist_ok=True)  # somebody may tidy up what is temporary
        for number in range(self._count):
            if (lock := locks.acquire(self._folder / f"{number}.lock")) is not None:
                return number, lock
        return None


def mark_of(folder: Path, process: int) -> Path:
    """A file that is there once all jobs of the sweep of a process have begun."""
    return folder / f"{process}.begun"
