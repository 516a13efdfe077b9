"""`task=plan`: what a run or a sweep needs, before anything starts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from rich.markup import escape
from rich.table import Table

from xai.app import check
from xai.core.errors import UserError
from xai.core.overrides import overrides, typed_keys
from xai.core.progress import console
from xai.core.settings import Positive, settings
from xai.core.trainer import TrainerParams
from xai.papers.plans import Stage, passes_a_second, stages_of
from xai.study.params import StudySettings
from xai.sweeps.jobs import jobs_of, typed_here, without_hydra
from xai.tasks.registry import Task

_OWN = ("task", "rate", "name")


@settings
class PlanSettings:
    """Settings of task=plan, which passes on those of what it plans.

    Args:
        task: `plan`.
        rate: Forward passes a second; `measured` measures them here for some seconds, with random weights; None says
            nothing of hours.
        trainer: Where that is.
        checkpoint: Passed on.
        explainers: Passed on.
        metric: Passed on.
    """

    task: str
    rate: Positive | Literal["measured"] | None
    trainer: TrainerParams
    checkpoint: Any
    explainers: Any
    metric: Any


def task(values: Mapping[str, Any]) -> Task:
    """`task=plan`."""
    return Task("task=plan", PlanSettings, run, writes=False)


def run(asked: PlanSettings, output: Path) -> None:
    """A line for each stage, and what it comes to."""
    planned = planned_settings(typed_here(*_OWN))
    rate = asked.rate
    if rate == "measured":
        model: Any = getattr(planned[0], "model")  # noqa: B009 - each study has a model of a family of its own
        with asked.trainer.autocast():
            rate = passes_a_second(model, asked.trainer.device)
    say([stages_of(each) for each in planned], rate)


def planned_settings(typed: Sequence[str]) -> list[StudySettings]:
    """The settings of every job that -m would make of what is typed, checked as they will be.

    Raises:
        UserError: One is wrong, or no study.
    """
    found = []
    for job in jobs_of(overrides(typed, many=True)):
        assert job.config is not None
        config = without_hydra(job.config)
        # What it will run on need not be here, nor the data.
        config.trainer.accelerator, config.trainer.devices = "cpu", 1
        _, asked = check(config, typed_keys(job.overrides), here=False)
        if not isinstance(asked, StudySettings):
            raise UserError("task=plan is for studies: name a sweep as sweep=..., an experiment=... or a study=...")
        found.append(asked)
    return found


def say(jobs: Sequence[Sequence[Stage]], rate: float | None) -> None:
    """Print the graph: stages of the same name together, each made once however many jobs need it."""
    unique = {stage.identity: stage for stages in jobs for stage in stages}
    named: dict[str, list[Stage]] = {}
    for stage in unique.values():
        named.setdefault(stage.name, []).append(stage)
    table = Table("stage", "times", "passes", "GB kept", "needs", box=None)
    for column in table.columns[1:4]:
        column.justify = "right"
    if rate:
        table.add_column("hours", justify="right")
    for name, stages in named.items():
        passes, kept = sum(each.passes for each in stages), sum(each.kept for each in stages)
        needs = _few(dict.fromkeys(need.name for need in stages[0].needs))
        hours = [f"{passes / rate / 3600:,.2f}"] if rate else []
        table.add_row(*map(escape, [name, str(len(stages)), f"{passes:,.0f}", f"{kept / 1e9:,.2f}", needs, *hours]))
    console.print(table)
    passes, kept = sum(each.passes for each in unique.values()), sum(each.kept for each in unique.values())
    again = sum(len(stages) for stages in jobs) - len(unique)
    most = max(each.meanwhile for each in unique.values())
    time = f", {passes / rate / 3600:,.1f} GPU hours at {rate:,.0f} passes a second" if rate else ""
    console.print(
        f"{len(jobs)} jobs, {len(unique)} stages ({again} more shared): {passes:,.0f} forward passes at most{time}; "
        f"{kept / 1e9:,.1f} GB in the store, and {most / 1e9:,.1f} GB a job while it trains",
        highlight=False,
    )
    if not rate:
        console.print(
            "Hours: rate=PASSES_A_SECOND, as make bench prints them, or rate=measured beside the card", style="dim"
        )


def _few(names: Mapping[str, Any]) -> str:
    listed = list(names)
    return ", ".join(listed) if len(listed) <= 3 else f"{listed[0]} and {len(listed) - 1} more"
