"""Progress a person can read: bars with the time left on a terminal, lines elsewhere; and what took how long."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment
from rich.table import Table

from xai.core.errors import visible


class _Console(Console):
    """A console whose text cannot steer the terminal: names of classes and files come from anywhere."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)

    def on_broken_pipe(self) -> None:
        """Let whoever ends the job know that nobody reads any more; rich would end it with status 1."""
        raise BrokenPipeError


console = _Console()
"""Where people read: standard output."""

Listener = Callable[[str, int, int], None]
"""Is told what is being made, and how many units of how many are done."""

_listeners: list[Listener] = []
_SECONDS_BETWEEN_LINES = 60.0
_LONGEST_LINE = 2000


def print_table(table: Table) -> None:
    """Print a table, as wide as it is where there is no terminal: in a file, and for grep, a row is a line."""
    if not console.is_terminal:
        table.width = Measurement.get(console, console.options.update(width=_LONGEST_LINE), table).maximum
    console.print(table, crop=console.is_terminal)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Tell a listener of every bar while the body runs."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


@contextmanager
def bar(title: str, total: int, unit: str, least_seconds: float = 0.0) -> Iterator[Callable[[int], None]]:
    """Show a bar while the body runs; yields a function to call with the number of units that are done.

    Without a terminal nothing moves: a line is printed every minute with the time left, and one at the end, of what
    took `least_seconds` at least.
    """
    start = last = time.perf_counter()
    first: tuple[int, float] | None = None

    def tell(now: int) -> None:
        for listener in _listeners:
            listener(title, now, total)

    tell(0)
    if not console.is_terminal:

        def count(now: int) -> None:
            nonlocal last, first
            tell(now)
            # What was done before has taken none of the time since.
            first = first or (now, time.perf_counter())
            if now > first[0] and time.perf_counter() - last >= _SECONDS_BETWEEN_LINES:
                last = time.perf_counter()
                left = (last - first[1]) / (now - first[0]) * (total - now)
                line = f"  {escape(title)}: {now} of {total} {unit}, {left / 60:.0f} min left"
                console.print(line, highlight=False, style="dim", soft_wrap=True)

        yield count
    else:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        with Progress(*columns, *times, console=console, transient=True) as progress:
            task = progress.add_task(title, total=total)

            def move(now: int) -> None:
                tell(now)
                progress.update(task, completed=now)

            yield move
    seconds = time.perf_counter() - start
    if seconds < least_seconds:
        return
    cost = f"({total} {unit}, {seconds:.0f} s)"
    console.print(f"  [green]made[/] {escape(title)} [dim]{cost}[/]", highlight=False)


STARTED = time.perf_counter()
"""When this module was imported: about when the process began, where the command line imports it first."""


class Stopwatch:
    """Seconds by what was done in them, from the beginning of the process on."""

    def __init__(self) -> None:
        self._last = STARTED
        self._laps: dict[str, float] = {}

    def lap(self, what: str) -> None:
        """What was done since the last call."""
        now = time.perf_counter()
        self._laps[what] = self._laps.get(what, 0.0) + now - self._last
        self._last = now

    def tell(self) -> None:
        """One line of all of them."""
        parts = [f"{what} {seconds:.1f} s" for what, seconds in self._laps.items() if seconds >= 0.05]
        whole = sum(self._laps.values())
        console.print(escape(f"time: {', '.join(parts)}; {whole:.0f} s in all"), highlight=False, soft_wrap=True)
