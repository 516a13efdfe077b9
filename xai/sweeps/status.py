"""`task=status`: how far the jobs of a sweep are, and which of them failed."""

import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from xai.core.files import read_text
from xai.core.folders import written_in
from xai.core.launching import in_queue
from xai.core.locks import holder, is_held
from xai.core.overrides import OUTPUTS, apart
from xai.core.progress import console, print_table
from xai.core.records import QUEUED, Record, path_of, read_record
from xai.core.settings import Positive, settings
from xai.sweeps.jobs import Job, asked_jobs
from xai.tasks.registry import Task

_COLOURS = {"done": "green", "failed": "red", "killed": "red", "running": "cyan"}


@settings
class StatusSettings:
    """Settings of task=status.

    Args:
        task: `status`.
        name: The folder of the sweep below outputs/.
        store: Of which the size is told.
        watch: Seconds between looks, until every job has ended; None looks once.
    """

    task: str
    name: str
    store: str
    watch: Positive | None


@dataclass(frozen=True)
class State:
    """How far a job is.

    Args:
        job: The job.
        state: `done`, `running`, `failed` (of itself), `killed`, `waiting` (for its turn in a sweep that runs, or in
            SLURM's queue) or `missing` (nobody is at it).
        record: What it says of itself.
        where: Who runs it.
    """

    job: Job
    state: str
    record: Record | None = None
    where: str = ""

    @property
    def said(self) -> str:
        """How far it is, or why it is no further."""
        if self.record is None or self.state == "done":
            return ""
        if self.state == "failed":
            return self.record.error
        far = (
            f"{self.record.doing}, {self.record.done} of {self.record.total}" if self.record.doing else "its beginning"
        )
        return f"it was at: {far}" if self.state == "killed" else far

    @property
    def took(self) -> str:
        """Since when it runs, or how long it took."""
        if self.record is None or self.state == "killed":
            return ""
        started = datetime.fromtimestamp(self.record.started)
        today = started.date() == datetime.now().date()
        if self.state == "running":
            return started.strftime("since %H:%M" if today else "since %d %b, %H:%M")
        seconds = round(self.record.seconds)
        if seconds < 7200:
            return f"{seconds} s" if seconds < 120 else f"{seconds // 60} min"
        return f"{seconds // 3600}:{seconds // 60 % 60:02d} h"


def run(asked: StatusSettings, output: Path) -> None:
    """Show how far the jobs are, once or until all have ended."""
    folder = OUTPUTS / asked.name
    jobs = asked_jobs(folder)
    states: Sequence[State] = looks(jobs)
    if asked.watch is not None:
        states = watched(jobs, states, asked.watch, lambda: on_disk(asked, folder))
    print_table(table_of(states))
    console.print(on_disk(asked, folder), style="dim", highlight=False)


def watched(jobs: Sequence[Job], states: Sequence[State], seconds: float, note: Callable[[], str]) -> Sequence[State]:
    """Look until every job has ended; without a terminal a line is printed whenever one has begun or ended."""
    with Live(table_of(states, note()), console=console, auto_refresh=False, transient=True) as live:
        said = ""
        while any(state.state in ("running", "waiting") for state in states):
            if not console.is_terminal and said != tally(states):
                said = tally(states)
                console.print(f"{datetime.now():%H:%M:%S}  {said}", highlight=False, soft_wrap=True)
            time.sleep(seconds)
            states = looks(jobs)
            live.update(table_of(states, note()), refresh=True)
    return states


def on_disk(asked: StatusSettings, folder: Path) -> str:
    """How much the store and the runs of a sweep take."""
    sizes = {"store": _bytes(Path(asked.store)), "runs": _bytes(folder)}
    return "on the disk: " + ", ".join(f"{name} {size / 1e6:,.0f} MB" for name, size in sizes.items())


def looks(jobs: Sequence[Job]) -> list[State]:
    """How far jobs are, at this moment."""
    ids = {job.folder: _text(path_of(job.folder, QUEUED)) for job in jobs}
    queue = (in_queue() if any(ids.values()) else None) or set()
    states = [look(job) for job in jobs]
    return [
        replace(state, state="waiting")
        if state.state in ("missing", "killed") and ids[state.job.folder] in queue
        else state
        for state in states
    ]


def _text(path: Path) -> str:
    try:
        return read_text(path).strip()
    except (OSError, ValueError):
        return ""


def look(job: Job) -> State:
    """How far a job is, at this moment, as far as its own files say."""
    record, lock = read_record(job.folder), path_of(job.folder, ".lock")
    if is_held(lock):
        return State(job, "running", record, holder(lock, short=True))
    if record is None:
        # What ran before there were records, or by itself.
        is_done = bool(written_in(job.folder))
        is_next = is_held(path_of(job.folder.parent / "sweep", ".lock"))
        return State(job, "done" if is_done else "waiting" if is_next else "missing")
    if record.state == "running":
        return State(job, "killed", record)
    return State(job, record.state, record)


def table_of(states: Sequence[State], note: str | None = None) -> Table:
    """A line for each job, called by what not all of them are asked for, and a note below them."""
    columns = ("job", "state", "", "at", "where")
    table = Table(*columns, title=tally(states), box=None, title_justify="left", pad_edge=False)
    table.caption, table.caption_justify = note, "left"
    table.min_width = min(console.width, len(tally(states)))
    table.columns[0].overflow = "fold"
    for column in table.columns[1:3]:
        column.no_wrap = True
    for each, name in zip(states, apart([each.job.folder.name for each in states]), strict=True):
        colour = _COLOURS.get(each.state, "dim")
        told = map(escape, (each.took, each.said, each.where))
        table.add_row(escape(name), f"[{colour}]{each.state}[/]", *told)
    return table


def tally(states: Sequence[State]) -> str:
    """How many are in which state."""
    kinds = ("done", "running", "waiting", "failed", "killed", "missing")
    counts = {kind: sum(state.state == kind for state in states) for kind in kinds}
    listed = ", ".join(f"{count} {kind}" for kind, count in counts.items() if count)
    return f"{len(states)} job{'s' * (len(states) != 1)}: {listed}"


def _bytes(folder: Path) -> int:
    """Of all files below a folder; what is removed meanwhile, or may not be looked at, counts nothing."""
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):
                total += os.lstat(os.path.join(place, name)).st_size
    return total


TASK = Task("task=status", StatusSettings, run, writes=False)
