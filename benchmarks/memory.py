"""The most memory a piece of work held, above the level at which it began."""

import contextlib
import ctypes
import gc
import sys
from pathlib import Path

import torch

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """Watches this process (CPU) or what it allocates on the card (CUDA) from now on.

    On Linux the kernel's own high-water mark is set back to the present level, so that what was needed to prepare the
    work does not count. Elsewhere the mark only rises: what stayed below the earlier peak is not seen.

    Args:
        device: `cpu` or `cuda`.
    """

    def __init__(self, device: str) -> None:
        self._cuda = device == "cuda"
        gc.collect()
        if self._cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            self._level = torch.cuda.memory_allocated()
            return
        # Freed memory that the allocator keeps would be used again, and the work would seem to need less than it does.
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        self._resettable = True
        try:
            _RESET.write_text("5")
        except OSError:
            self._resettable = False
        self._level = _resident("VmRSS") if self._resettable else _highest()

    def above(self) -> int:
        """Bytes: the highest level since the start less the level at the start."""
        if self._cuda:
            return int(torch.cuda.max_memory_allocated()) - self._level
        return max(0, (_resident("VmHWM") if self._resettable else _highest()) - self._level)


def _resident(field: str) -> int:
    lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


def _highest() -> int:
    try:
        import resource
    except ImportError:  # Windows
        return 0
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
