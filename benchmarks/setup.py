"""Where and how precisely a benchmark computes."""

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

import torch

_POOLS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
"""Every thread pool that torch, NumPy or SciPy may start reads one of these when it is imported."""


@dataclass(frozen=True)
class Setup:
    """One way to compute.

    Args:
        device: `cpu` or `cuda`.
        bf16: Autocast to bfloat16; otherwise everything is float32.
        threads: Threads of every contender.
    """

    device: str = "cpu"
    bf16: bool = False
    threads: int = 1

    @property
    def title(self) -> str:
        """What a table is headed by."""
        precision = "bfloat16 autocast" if self.bf16 else "float32"
        if self.device != "cpu":
            return f"GPU, {precision}"
        return f"CPU, {precision}, {self.threads} thread{'s' if self.threads > 1 else ''}"

    def precision(self) -> torch.autocast:
        """A context in which operations have the precision asked for."""
        return torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)

    def confine(self) -> None:
        """Keep this process to its threads, and where the system can do that to as many cores: the same for everybody.

        The last cores are taken, because systems tend to serve their interrupts on the first.
        """
        torch.set_num_threads(self.threads)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-self.threads :])

    def synchronise(self) -> None:
        """Wait until the device has done what it was given."""
        if self.device == "cuda":
            torch.cuda.synchronize()


def setups(device: str, threads: int) -> list[Setup]:
    """What is measured: the CPU, and a GPU in both precisions.

    Args:
        device: `cpu`, `cuda`, or `all` for the CPU and whatever GPU is visible.
        threads: Threads of every contender.
    """
    gpu = [Setup("cuda", bf16, threads) for bf16 in (False, True)]
    if device == "all":
        return [Setup("cpu", threads=threads), *(gpu if torch.cuda.is_available() else [])]
    return gpu if device == "cuda" else [Setup("cpu", threads=threads)]


@contextlib.contextmanager
def small_pools(threads: int) -> Iterator[None]:
    """Let processes that are started in the body have pools of so many threads."""
    kept = {name: os.environ.get(name) for name in _POOLS}
    os.environ.update(dict.fromkeys(_POOLS, str(threads)))
    try:
        yield
    finally:
        for name, value in kept.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
