"""Progress a person can read: bars with the time left on a terminal, one line a stage everywhere else."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.segment import Segment

from xai.core.errors import visible


class _Console(Console):
    """A console whose text cannot steer the terminal: names of classes and files come from anywhere."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterator[Segment]:
        for text, style, control in super().render(renderable, options):
            yield Segment(text if control else visible(text), style, control)


console = _Console()
"""Where people read: standard output."""


@contextmanager
def bar(title: str, total: int, unit: str, least_seconds: float = 0.0) -> Iterator[Callable[[int], None]]:
    """Show a bar while the body runs; yields a function to call with the number of units that are done.

    Without a terminal nothing moves: one line is printed at the end, of what took `least_seconds` at least.
    """
    start = time.perf_counter()
    done = 0

    if not console.is_terminal:

        def count(now: int) -> None:
            nonlocal done
            done = now

        yield count
    else:
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        with Progress(*columns, *times, console=console, transient=True) as progress:
            task = progress.add_task(title, total=total)
            yield lambda now: progress.update(task, completed=now)
    seconds = time.perf_counter() - start
    if seconds < least_seconds:
        return
    cost = f"({total} {unit}, {seconds:.0f} s)"
    console.print(f"  [green]made[/] {escape(title)} [dim]{cost}[/]", highlight=False)
