"""`task=plan`: what a run or a sweep needs, before anything starts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from rich.markup import escape
from rich.table import Table

from xai.app import check
from xai.core.errors import UserError
from xai.core.overrides import overrides, typed_keys
from xai.core.progress import console
from xai.core.settings import Positive, settings
from xai.papers.plans import Stage, stages_of
from xai.study.params import StudySettings
from xai.sweeps.jobs import jobs_of, without_hydra
from xai.tasks.registry import Task

_OWN = ("task", "rate", "name")


@settings
class PlanSettings:
    """Settings of task=plan, which passes on those of what it plans.

    Args:
        task: `plan`.
        rate: Forward passes a second; None says nothing of hours.
        checkpoint: Passed on.
        explainers: Passed on.
        metric: Passed on.
    """

    task: str
    rate: Positive | None
    checkpoint: Any
    explainers: Any
    metric: Any


def task(values: Mapping[str, Any]) -> Task:
    """`task=plan`."""
    return Task("task=plan", PlanSettings, run, writes=False)


def run(asked: PlanSettings, output: Path) -> None:
    """A line for each stage, and what it comes to."""
    typed = [each.lstrip("+") for each in HydraConfig.get().overrides.task]
    typed = [each for each in typed if each.partition("=")[0] not in _OWN]
    jobs = [stages_of(each) for each in planned_settings(typed)]
    say(jobs, asked.rate)


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
        console.print("Hours: rate=PASSES_A_SECOND, as make bench measures them on your card", style="dim")


def _few(names: Mapping[str, Any]) -> str:
    listed = list(names)
    return ", ".join(listed) if len(listed) <= 3 else f"{listed[0]} and {len(listed) - 1} more"
