"""The side of a measurement that does the work: a contender's process, with its clock and its memory meter."""

import contextlib
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.memory import PeakMemory
from benchmarks.setup import Setup


class Work(ABC):
    """A contender that has everything it needs in memory and can be timed."""

    images: int
    """Images done in one round: what images/s counts."""

    @abstractmethod
    def round(self) -> None:
        """Do the work once, all of it."""

    def warm_up(self) -> None:
        """Do what is paid for only once; a small piece of the work where a round takes long."""
        self.round()

    def part(self) -> int:
        """Do a part of a round that all others are like; how many of them a round is made of."""
        self.round()
        return 1

    def answer(self) -> Tensor | None:
        """What the last round came to, on the CPU, to compare with what others came to; None where there is nothing."""
        return None


Prepare = Callable[[Any, Setup], Work]
"""Loads what the work on a case needs. A function or class of a module: a fresh interpreter finds it by its name."""


class Host:
    """Does what the parent asks of a contender.

    Args:
        prepare: The contender.
    """

    def __init__(self, prepare: Prepare) -> None:
        self._load = prepare
        self._setup = Setup()
        self._work: Work | None = None
        self._memory: PeakMemory | None = None

    def prepare(self, case: Any, setup: Setup) -> int:
        """Load the work, mark the level of memory, and warm up; the number of images in a round."""
        # The work on the last case makes room first, or the level would be too high by what it held.
        self._work = self._memory = None
        setup.confine()
        self._setup, self._work = setup, self._load(case, setup)
        self._memory = PeakMemory(setup.device)
        self._work.warm_up()
        return self._work.images

    def round(self) -> float:
        """Seconds that one round takes."""
        work = self._loaded()
        self._setup.synchronise()
        start = time.perf_counter()
        work.round()
        self._setup.synchronise()
        return time.perf_counter() - start

    def result(self) -> tuple[int, Tensor | None]:
        """Peak memory in bytes above the level before the warm-up, and what the last round came to."""
        work = self._loaded()
        assert self._memory is not None
        return self._memory.above(), work.answer()

    def flops(self) -> int:
        """Floating-point operations of one round: those of a part, times the parts."""
        # The fused encoder layer hides its operations from the counter; without it the same ones show.
        fused = torch.backends.mha.get_fastpath_enabled()
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            with FlopCounterMode(display=False) as counter:
                parts = self._loaded().part()
        finally:
            torch.backends.mha.set_fastpath_enabled(fused)
        return parts * int(counter.get_total_flops())

    def _loaded(self) -> Work:
        if self._work is None:
            raise ValueError("asked for a round before any work was prepared")
        return self._work


def serve(pipe: Any, prepare: Prepare) -> None:
    """Do what is asked through a pipe until its other end closes.

    A question is the name of a method of `Host` with its arguments; an answer is True and the result, or False and one
    line that says what went wrong.
    """
    # Ctrl-C reaches every process of a terminal; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    host = Host(prepare)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            verb, args = pipe.recv()
            try:
                answer = True, getattr(host, verb)(*args)
            except Exception as error:
                answer = False, one_line(error)
            pipe.send(answer)


def one_line(error: BaseException) -> str:
    """An error as one line: its type and what it says first."""
    text = next(iter(str(error).strip().splitlines()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
