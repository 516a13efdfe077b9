"""Contenders measured side by side: each in a process of its own, one working at a time, in turns.

A machine that others use too is faster in one minute than in the next. So all contenders do one round after another,
what is compared is seconds of the same round, and the order rotates so that nobody always follows the same one. Each
contender lives in a fresh interpreter: its peak memory is its own, and nothing it imports or patches reaches another.
"""

import itertools
import multiprocessing
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from benchmarks.host import Prepare, serve
from benchmarks.machine import matmul_rate
from benchmarks.setup import Setup, small_pools

T = TypeVar("T")


@dataclass(frozen=True)
class Contender:
    """A way of doing the work.

    Args:
        name: What it is called in the tables.
        prepare: Loads what the work needs.
        rounds: It takes part in so many rounds at most; None in all.
    """

    name: str
    prepare: Prepare
    rounds: int | None = None


@dataclass
class Measurement:
    """What was seen of one contender.

    Args:
        name: The contender.
        images: Images done in one round.
        seconds: Of each round it took part in, by the number of the round.
        peak: Bytes above the level before its warm-up.
        flops: Of one round, where they were counted.
        answer: What its last round came to.
        failure: One line where it failed; nothing else counts then.
    """

    name: str
    images: int = 0
    seconds: dict[int, float] = field(default_factory=dict)
    peak: int = 0
    flops: int | None = None
    answer: Tensor | None = None
    failure: str | None = None

    def ratios(self, reference: "Measurement") -> list[float]:
        """Seconds as multiples of the reference's in the same round, where both took part."""
        shared = self.seconds.keys() & reference.seconds.keys()
        return [self.seconds[number] / reference.seconds[number] for number in sorted(shared)]

    @property
    def median(self) -> float:
        """Seconds of the median round."""
        return statistics.median(self.seconds.values())


@dataclass(frozen=True)
class Report:
    """What came of a measurement.

    Args:
        text: Markdown.
        faults: What went wrong, one line each; a goal that is missed is none.
    """

    text: str
    faults: tuple[str, ...] = ()


class FailedError(Exception):
    """A contender could not do what it was asked; the message is one line."""


class Process:
    """A `Host` in a fresh interpreter."""

    def __init__(self, prepare: Prepare) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, end = context.Pipe()
        self._process = context.Process(target=serve, args=(end, prepare), daemon=True)
        self._process.start()
        end.close()

    def ask(self, verb: str, *args: Any) -> Any:
        """Result of a method of `Host`; raises `FailedError`, also where the process has died."""
        try:
            self._pipe.send((verb, args))
            done, answer = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise FailedError(f"its process ended with exit code {self._process.exitcode}") from None
        if not done:
            raise FailedError(answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(timeout=5)
        if self._process.is_alive():
            self._process.kill()


def in_child(setup: Setup, function: Callable[..., T], *args: Any) -> T:
    """Result of a function of a module, called in a fresh interpreter."""
    with small_pools(setup.threads), ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args).result()


Group = list[tuple[Any, list[Measurement]]]
"""Cases of one table, each with a measurement of every contender, in their order."""


@dataclass(frozen=True)
class Benchmark:
    """Contenders, what they are measured on, and the tables that come of it.

    Args:
        contenders: Everybody; what the others are compared with comes first.
        cases: The settings of a device; `small` ones are done in a moment and show that everything runs. Each has a
            number of `rounds`.
        report: Of the cases of one table, the setup, and the FLOP/s of large matrix products where there is a card.
        together: Cases that follow one another and agree in this share a table; None gives each its own.
    """

    contenders: Sequence[Contender]
    cases: Callable[[Setup, bool], Sequence[Any]]
    report: Callable[[Group, Setup, float | None], Report]
    together: Callable[[Any], Any] = id

    def run(
        self,
        setup: Setup,
        rounds: int | None,
        small: bool,
        say: Callable[[str], None],
        start: Callable[[Prepare], Process] | None = None,
    ) -> Iterator[Report]:
        """Measure.

        Args:
            setup: The device, its precision, and threads.
            rounds: Rounds of every case; None leaves it to the settings.
            small: The settings that show that everything runs.
            say: Told what is going on.
            start: Starts a contender; None in a process of its own.

        Yields:
            A report for each table, as soon as it is there.
        """
        chosen = self.cases(setup, small)
        peak = in_child(setup, matmul_rate, setup) if setup.device == "cuda" else None
        counts = [rounds or case.rounds for case in chosen]
        found = measure(self.contenders, chosen, setup, counts, say, start or Process)
        pairs = zip(chosen, found, strict=True)
        for _, group in itertools.groupby(pairs, key=lambda pair: self.together(pair[0])):
            yield self.report(list(group), setup, peak)


def measure(
    contenders: Sequence[Contender],
    cases: Sequence[Any],
    setup: Setup,
    rounds: Sequence[int],
    say: Callable[[str], None],
    start: Callable[[Prepare], Process] = Process,
) -> Iterator[list[Measurement]]:
    """Measure contenders on one case after another.

    Args:
        contenders: Who takes part.
        cases: What is to be done; each is handed to `Contender.prepare`.
        setup: The device, its precision, and threads.
        rounds: How many rounds each case has.
        say: Told what is going on, one line at a time.
        start: Starts a contender.

    Yields:
        For each case one measurement a contender, in the order given.
    """
    with ExitStack() as stack:
        with small_pools(setup.threads):
            children = [stack.enter_context(closing(start(contender.prepare))) for contender in contenders]
        for case, count in zip(cases, rounds, strict=True):
            yield _measure_case(contenders, children, case, setup, count, say)


def _measure_case(
    contenders: Sequence[Contender],
    children: Sequence[Process],
    case: Any,
    setup: Setup,
    rounds: int,
    say: Callable[[str], None],
) -> list[Measurement]:
    found = [Measurement(contender.name) for contender in contenders]

    def ask(index: int, verb: str, *args: Any) -> Any:
        row = found[index]
        if row.failure is not None:
            return None
        try:
            return children[index].ask(verb, *args)
        except FailedError as failed:
            row.failure = str(failed)
            say(f"{row.name} failed: {failed}")
            return None

    for index, row in enumerate(found):
        say(f"{row.name}: warming up")
        row.images = ask(index, "prepare", case, setup) or 0
    for number in range(rounds):
        for turn in range(len(contenders)):
            index = (number + turn) % len(contenders)
            limit = contenders[index].rounds
            if limit is not None and number >= limit:
                continue
            seconds = ask(index, "round")
            if seconds is not None:
                found[index].seconds[number] = seconds
                say(f"round {number + 1} of {rounds}: {found[index].name} {seconds:.2f} s")
    for index, row in enumerate(found):
        row.peak, row.answer = ask(index, "result") or (0, None)
        if setup.device == "cuda":
            row.flops = ask(index, "flops")
    return found
