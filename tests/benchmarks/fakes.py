"""Stand-ins for contenders and for the processes they live in."""

import gc
import os
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import FailedError, Report
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


def cells(line: str) -> list[str]:
    """What stands in a line of a markdown table."""
    return [cell.strip() for cell in line.split("|")][1:-1]


def row(text: str, name: str) -> list[str]:
    """The cells of the line that begins with a name."""
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {name} "))
    return cells(line)


def small(run: Any, rounds: int | None = None) -> list[Report]:
    """The tables of a small run on one processor, everybody in this very process."""
    return list(run(Setup(), rounds, True, lambda line: None, Here))
