"""`task=plan`: what a run or a sweep needs, before anything starts."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from xai.app import check
from xai.core.common import TrainerParams, for_elsewhere
from xai.core.errors import UserError
from xai.core.overrides import overrides, typed_keys
from xai.core.progress import bar, console, print_table
from xai.core.settings import Positive, settings
from xai.papers.plans import Stage, passes_a_second, stages_of
from xai.study.study import StudySettings
from xai.sweeps.jobs import axes_of, composed, typed_here, without_hydra
from xai.tasks.registry import Task

_OWN = ("task", "rate", "name", "sweeps")
_ROOM_FOR_NEEDS = 100
"""Columns that a terminal has where it is told what each stage needs."""


@settings
class PlanSettings:
    """Settings of task=plan, which passes on those of what it plans.

    Args:
        task: `plan`.
        rate: Forward passes a second; `measured` measures those of each model here for some seconds, with random
            weights; None says nothing of hours.
        sweeps: Several sweeps, one after the other: what one has made is there for those after it.
        trainer: Where passes are measured.
        checkpoint: Passed on.
        explainers: Passed on.
        metric: Passed on.
    """

    task: str
    rate: Positive | Literal["measured"] | None
    sweeps: tuple[str, ...]
    trainer: TrainerParams
    checkpoint: Any
    explainers: Any
    metric: Any


def run(asked: PlanSettings, output: Path) -> None:
    """A line for each stage, or for each of several sweeps, and what it comes to."""
    typed, clock = typed_here(*_OWN), _Clock(asked)
    if not asked.sweeps:
        return say([stages_of(each) for each in planned_settings(typed)], clock)
    if any(each.startswith("sweep=") for each in typed):
        raise UserError("sweep=... plans one sweep and sweeps=[...] several: give one of the two")
    known: dict[tuple[str, ...], StudySettings] = {}
    plans = {}
    with bar("plans", len(asked.sweeps), "sweeps", least_seconds=float("inf")) as advance:
        for number, name in enumerate(asked.sweeps, start=1):
            plans[name] = [stages_of(each) for each in planned_settings([f"sweep={name}", *typed], known)]
            advance(number)
    say_sweeps(plans, clock)


def planned_settings(
    typed: Sequence[str], known: dict[tuple[str, ...], StudySettings] | None = None
) -> list[StudySettings]:
    """The settings of every job that -m would make of what is typed, checked as they will be.

    Args:
        typed: What -m is given.
        known: Settings of jobs that another sweep has as well, by what they are asked for; grows.

    Raises:
        UserError: One is wrong, or no study.
    """
    known = {} if known is None else known
    found = []
    for chosen in product(*axes_of(overrides(typed, many=True), (), "config")):
        asked = tuple(each for each in chosen if not each.startswith("sweep="))  # that says what is shown of them
        if asked not in known:
            known[asked] = _settings_of(chosen)
        found.append(known[asked])
    return found


def _settings_of(chosen: Sequence[str]) -> StudySettings:
    with composed(chosen) as whole:
        config = without_hydra(whole)
        for_elsewhere(config)  # nor need the data be here
        _, asked = check(config, typed_keys(chosen), here=False)
    if not isinstance(asked, StudySettings):
        raise UserError("task=plan is for studies: name a sweep as sweep=..., an experiment=... or a study=...")
    return asked


class _Clock:
    """Hours of stages, by the forward passes that a card does in a second of the model of each."""

    def __init__(self, asked: PlanSettings) -> None:
        self._asked = asked
        self._measured: dict[str, float] = {}

    @property
    def is_asked(self) -> bool:
        """Whether anybody wants to know."""
        return self._asked.rate is not None

    def hours(self, stages: Iterable[Stage]) -> float:
        """Of one card."""
        return sum(each.passes / self._rate(each.model) for each in stages) / 3600

    @property
    def rates(self) -> str:
        """Those that hours were told of."""
        if self._asked.rate != "measured":
            return f"{self._asked.rate:,.0f}"
        return " to ".join(dict.fromkeys(f"{each(self._measured.values()):,.0f}" for each in (min, max)))

    def _rate(self, model: Any) -> float:
        rate, key = self._asked.rate, repr(model)
        if rate is not None and rate != "measured":
            return rate
        if key not in self._measured:
            with self._asked.trainer.autocast():
                self._measured[key] = passes_a_second(model, self._asked.trainer.device)
        return self._measured[key]


def say(jobs: Sequence[Sequence[Stage]], clock: _Clock) -> None:
    """Print the graph: stages of the same name together, each made once however many jobs need it."""
    unique = _unique(jobs)
    named: dict[str, list[Stage]] = {}
    for stage in unique.values():
        named.setdefault(stage.name, []).append(stage)
    is_told = not console.is_terminal or console.width >= _ROOM_FOR_NEEDS
    table = _table("stage", "times", clock)
    if is_told:
        table.add_column("needs")
    for name, stages in named.items():
        needs = [_few(dict.fromkeys(need.name for need in stages[0].needs))] if is_told else []
        table.add_row(*map(escape, [name, str(len(stages)), *_numbers(stages, clock), *needs]))
    print_table(table)
    _say_total(jobs, unique, clock)


def say_sweeps(plans: Mapping[str, Sequence[Sequence[Stage]]], clock: _Clock) -> None:
    """Print a line for each sweep: what those above it have not made already; and what all come to."""
    table = _table("sweep", "jobs", clock)
    table.add_column("stages, new", justify="right")
    known: dict[str, Stage] = {}
    for name, jobs in plans.items():
        unique = _unique(jobs)
        new = [stage for identity, stage in unique.items() if identity not in known]
        known |= unique
        counts = f"{len(unique)}, {len(new)}"
        table.add_row(*map(escape, [name, str(len(jobs)), *_numbers(new, clock), counts]))
    print_table(table)
    _say_total([stages for jobs in plans.values() for stages in jobs], known, clock)
    told = "Each line is what those above it leave to do; the stages of one: task=plan sweep=NAME"
    console.print(told, style="dim", highlight=False, soft_wrap=not console.is_terminal)


def _unique(jobs: Sequence[Sequence[Stage]]) -> dict[str, Stage]:
    return {stage.identity: stage for stages in jobs for stage in stages}


def _table(what: str, count: str, clock: _Clock) -> Table:
    table = Table(what, count, "passes", "kept", box=None, pad_edge=False)
    if clock.is_asked:
        table.add_column("hours")
    table.columns[0].no_wrap = True
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _numbers(stages: Sequence[Stage], clock: _Clock) -> list[str]:
    passes, kept = sum(each.passes for each in stages), sum(each.kept for each in stages)
    return [short(passes), f"{short(kept)}B", *([f"{clock.hours(stages):,.2f}"] if clock.is_asked else [])]


def short(number: float) -> str:
    """Three digits of a number that is not below zero, and k, M, G, T, P or E for a thousand, a million and so on."""
    for unit in ("", "k", "M", "G", "T", "P"):
        if number < 999.5:
            digits = 0 if not unit or number >= 99.95 else 1 if number >= 9.995 else 2
            return f"{number:.{digits}f} {unit}"
        number /= 1000
    return f"{number:,.0f} E"


def _say_total(jobs: Sequence[Sequence[Stage]], unique: Mapping[str, Stage], clock: _Clock) -> None:
    passes, kept = sum(each.passes for each in unique.values()), sum(each.kept for each in unique.values())
    again = sum(len(stages) for stages in jobs) - len(unique)
    most = max(each.meanwhile for each in unique.values())
    time = ""
    if clock.is_asked:
        time = f", {clock.hours(unique.values()):,.2f} device hours at {clock.rates} passes a second"
    console.print(
        f"{len(jobs)} jobs, {len(unique)} stages ({again} more shared): {passes:,.0f} forward passes at most{time}; "
        f"{short(kept)}B in the store, and {short(most)}B a job while it trains",
        highlight=False,
        soft_wrap=not console.is_terminal,
    )
    if not clock.is_asked:
        told = "Hours: rate=PASSES_A_SECOND, as make bench prints them, or rate=measured beside the card"
        console.print(told, style="dim", soft_wrap=not console.is_terminal)


def _few(names: Mapping[str, Any]) -> str:
    listed = list(names)
    return ", ".join(listed) if len(listed) <= 3 else f"{listed[0]} and {len(listed) - 1} more"


TASK = Task("task=plan", PlanSettings, run, writes=False)
