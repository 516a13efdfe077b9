"""The tasks there are, by name: what a configuration asks for, its settings and what runs them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from xai.core.errors import UserError
from xai.core.settings import unknown


@dataclass(frozen=True)
class Task:
    """A task as it is asked for.

    Args:
        asked: What asks for it, in the words of the command line: `task=explain`, `study=salvage`.
        settings: What a configuration is built into.
        run: Does it, from its settings and the folder of the run.
        adds: Whether what earlier runs wrote into that folder stays, where this one writes other names.
        writes: Whether it writes anything; what only says something leaves no folder.
        settle: Makes of the whole configuration, and of the keys that the user typed, the one that is meant.
    """

    asked: str
    settings: type[Any]
    run: Callable[[Any, Path], None]
    adds: bool = False
    writes: bool = True
    settle: Callable[[dict[str, Any], Sequence[str]], dict[str, Any]] | None = None


TASKS = {
    "apply_vector": "xai.tasks.apply_vector",
    "compare": "xai.tasks.compare",
    "data": "xai.tasks.data",
    "explain": "xai.tasks.explain",
    "plan": "xai.sweeps.plan",
    "report": "xai.sweeps.report",
    "site": "xai.sweeps.site",
    "status": "xai.sweeps.status",
    "study": "xai.tasks.study",
    "supervise": "xai.tasks.supervise",
    "train": "xai.tasks.train",
    "tune": "xai.sweeps.tune",
}
"""Name of a task -> its module, which has it as `TASK`, or by what a configuration names as `task(values)`."""


def choose(values: Mapping[str, Any]) -> Task:
    """What a configuration asks for; UserError: there is no such task, or none that trains or studies what is named."""
    name = values.get("task")
    if name not in TASKS:
        raise UserError(unknown(f"task={name}", str(name), TASKS, "task", "choose from"))
    module = import_module(TASKS[str(name)])
    found: Task = module.TASK if hasattr(module, "TASK") else module.task(values)
    return found
