"""A job: from what Hydra composed to the task that is asked for, its settings, and its run."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from omegaconf import DictConfig, OmegaConf

from xai.core import plugins
from xai.core.composing import choices, first_keys
from xai.core.errors import UserError
from xai.core.files import explain_disk_errors
from xai.core.settings import build, unknown
from xai.tasks.registry import Task, choose

_OF_EVERY_TASK = ("checkpoint", "explainers", "metric")
"""What stands at the root, and nothing in it is what a task that knows nothing of it wants."""


def run(config: DictConfig, output: Path) -> None:
    """Run one job.

    Args:
        config: As Hydra composed it.
        output: The folder of this run.

    Raises:
        UserError: For whatever the user can mend.
    """
    values = _plain(config)
    plugins.load(_module_names(values["plugins"]))
    _check_names(values)
    task = choose(values)
    settings = settings_of(task, values)
    from xai.core.loggers import closing_logger  # with Lightning

    with closing_logger(), explain_disk_errors(output, "choose another folder with name=..."):
        output.mkdir(parents=True, exist_ok=True)
        task.run(settings, output)


def settings_of(task: Task, values: Mapping[str, Any]) -> Any:
    """The settings of a task from a whole configuration, of which each task needs a part.

    Raises:
        UserError: For what stands at the root and this task cannot use, or a wrong value.
    """
    wanted = {field.name for field in dataclasses.fields(task.settings)}
    values = _with_checkpoint(values, wanted)
    for key in _OF_EVERY_TASK:
        if key not in wanted and values[key]:
            raise UserError(f"{key}={values[key]} is nothing that {task.asked} can use: leave it out")
    _check_family(task, values)
    return build(task.settings, {key: value for key, value in values.items() if key in wanted})


def _check_names(values: Mapping[str, Any]) -> None:
    """Refuse what no task and no row is called, before anything is imported that takes its time."""
    known = first_keys()
    for key in values:
        if key not in known:
            raise UserError(unknown(key, key, known))
    for row in values["explainers"]:
        if row not in (rows := choices("explainer")):
            raise UserError(unknown(f"explainers.{row}", row, rows, "explainer", "choose from"))


def _with_checkpoint(values: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    """A classifier that would be trained comes from the file instead, where there is one: both stand in one place."""
    classifier = values.get("classifier")
    if "checkpoint" in wanted or "classifier" not in wanted or not isinstance(classifier, dict):
        return dict(values)
    return {**values, "classifier": {**classifier, "checkpoint": values["checkpoint"]}, "checkpoint": None}


def _check_family(task: Task, values: Mapping[str, Any]) -> None:
    """Refuse a model of a family that a task is not made for."""
    from xai.stages.families import check_family  # with all the networks, which take seconds to import

    wanted = get_type_hints(task.settings).get("model")
    if wanted is not None and isinstance(values.get("model"), dict):
        check_family(get_args(wanted) or (wanted,), values["model"], task.asked)


def _module_names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(f"plugins={value} must be a list of modules, as in plugins=[my_package.my_module]")
    return value


def _plain(config: DictConfig) -> dict[str, Any]:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} is not set: give it as {missing[0]}=...")
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
