"""Stand-ins for contenders and for the processes they live in."""

import gc
import os
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import FailedError
from benchmarks.host import Host, Prepare, Work, one_line
from benchmarks.setup import Setup


class Here:
    """A `Host` in this very process, reached as one in another is."""

    def __init__(self, prepare: Prepare) -> None:
        self._host = Host(prepare)
        gc.freeze()  # a collection through all that the other tests have imported takes half a second

    def ask(self, verb: str, *args: Any) -> Any:
        try:
            return getattr(self._host, verb)(*args)
        except Exception as error:
            raise FailedError(one_line(error)) from error

    def close(self) -> None:
        gc.unfreeze()


class Echo(Work):
    """Answers with what it was prepared with and how often it worked."""

    images = 7

    def __init__(self, case: float, setup: Setup) -> None:
        self.case, self.rounds = case, 0

    def warm_up(self) -> None:
        pass

    def round(self) -> None:
        self.rounds += 1

    def answer(self) -> Tensor:
        return torch.tensor([self.case, self.rounds])


class Fragile(Echo):
    """Fails at case 4."""

    def round(self) -> None:
        super().round()
        if self.case == 4:
            raise RuntimeError("out of paper\nand of ink")


class Dying(Echo):
    def round(self) -> None:
        os._exit(3)
