"""A job: from what Hydra composed to the task that is asked for, its settings, and its run.

What computes is imported where a task needs it: others only look at what there is, and answer at once.
"""

import dataclasses
import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from xai.core import plugins
from xai.core.composing import choices, first_keys, stem
from xai.core.entries import over_removals
from xai.core.errors import UserError
from xai.core.folders import run_folder
from xai.core.overrides import command, settings_hash
from xai.core.runtime import provenance
from xai.core.settings import build, shown, unknown
from xai.tasks.registry import Task, choose

log = logging.getLogger(__name__)

_OF_EVERY_TASK = ("checkpoint", "explainers", "metric")
"""What stands at the root, and nothing in it is what a task that knows nothing of it wants."""
_FINE_TUNING = ("study=salvage", "method=surrogate", "method=salvage", "method=vit_shapley")
"""What trains networks with settings that come with the model (conf/training)."""


def run(config: DictConfig, output: Path, typed: Sequence[str] = ()) -> None:
    """Run one job.

    Args:
        config: As Hydra composed it.
        output: The folder of this run.
        typed: Keys that the user typed, such as `model` or `model.image_size`; the others are defaults.

    Raises:
        UserError: For whatever the user can mend.
    """
    task, settings = check(config, typed, output)
    if not task.writes:
        return task.run(settings, output)

    def work() -> None:
        with closing_logger(), run_folder(output, adds=task.adds) as folder:
            _record(config, folder / ".hydra")
            with _log_file(folder / "run.log"):
                # What a sweep has for all of its jobs need not concern each.
                common = OmegaConf.select(config, "sweep.axes") or {}
                _warn_of_unasked(settings, _typed_rows([key for key in typed if key not in common]))
                task.run(settings, folder)

    over_removals(work)


def check(
    config: DictConfig, typed: Sequence[str] = (), output: Path | None = None, *, here: bool = True
) -> tuple[Task, Any]:
    """What is asked for and its settings; arguments and errors as of `run`.

    Data and files that it names have to be `here`, unless it is only planned; what is written to `output` must not lie
    among them.
    """
    values = _plain(config)
    plugins.load(_module_names(values["plugins"]))
    _check_names(values)
    task = choose(values)
    values = _plain(_settled(config, task, values, typed))
    if task.settle is not None:
        values = task.settle(values, typed)
    settings = settings_of(task, values, typed)
    if rows := _typed_rows(typed):
        from xai.explainers.rows import load_row

        for row in rows:
            load_row(row, values["explainers"])  # also one that nothing here asks for
    if here and hasattr(settings, "trainer"):
        from xai.tasks.checks import check_apart, check_named

        check_named(settings)
        if task.writes and output is not None:
            check_apart(settings, output)
    return task, settings


def _typed_rows(typed: Sequence[str]) -> list[str]:
    """The rows that settings were typed for."""
    return list(dict.fromkeys(key.split(".")[1] for key in typed if key.startswith("explainers.")))


def _warn_of_unasked(settings: Any, rows: Sequence[str]) -> None:
    if rows and hasattr(settings, "explainers"):
        from xai.tasks.checks import unasked

        for row in unasked(settings, rows):
            log.warning("explainers.%s was typed and changes nothing: %s is none of the rows here", row, row)


def _record(config: DictConfig, folder: Path) -> None:
    """What the run was asked for, as Hydra writes it; not by Hydra, which knows nothing of the last good run.

    And beside it what made it: the command, the commit, the versions, and a hash that tells its settings from others.
    """
    folder.mkdir()
    (folder / "config.yaml").write_text(OmegaConf.to_yaml(config), encoding="utf-8")
    made = {"command": command(), "settings": settings_hash(config), **provenance()}
    (folder / "made.yaml").write_text(OmegaConf.to_yaml(made), encoding="utf-8")
    if HydraConfig.initialized():
        job = HydraConfig.get()
        (folder / "overrides.yaml").write_text(OmegaConf.to_yaml(job.overrides.task), encoding="utf-8")
        (folder / "hydra.yaml").write_text(OmegaConf.to_yaml({"hydra": job}), encoding="utf-8")


@contextmanager
def _log_file(path: Path) -> Iterator[None]:
    """Whatever is logged goes into a file as well."""
    handler = logging.FileHandler(path, encoding="utf-8", errors="backslashreplace")
    handler.setFormatter(logging.Formatter("[%(asctime)s] %(levelname)s %(name)s: %(message)s"))
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        handler.close()


def settings_of(task: Task, values: Mapping[str, Any], typed: Sequence[str] = ()) -> Any:
    """The settings of a task from a whole configuration, of which each task needs a part; `typed` as in `run`.

    Raises:
        UserError: For what stands at the root and this task cannot use, or a wrong value.
    """
    wanted = {field.name for field in dataclasses.fields(task.settings)}
    values = _with_checkpoint(values, wanted)
    for key in _OF_EVERY_TASK:
        # Settings of rows also come with a pre-trained model (conf/training), and both with the experiment of a sweep.
        asked = key == "checkpoint" or any(re.match(rf"\+*{key}[.=]", each) for each in typed)
        if key not in wanted and values[key] and asked:
            given = key if isinstance(values[key], dict) else f"{key}={shown(values[key])}"
            raise UserError(f"{given} is nothing that {task.asked} can use: leave it out")
    values = _with_model(task, values)
    return build(task.settings, {key: value for key, value in values.items() if key in wanted})


def _check_names(values: Mapping[str, Any]) -> None:
    """Refuse what no task and no row is called, before anything is imported that takes its time."""
    known = first_keys()
    for key in values:
        if key not in known:
            raise UserError(unknown(key, key, known))
    for key in _OF_EVERY_TASK[1:]:
        if not isinstance(values[key], dict):
            raise UserError(
                f"{key}={shown(values[key])} must be a group of settings: give one as {key}.<name>.<setting>=..."
            )
    for row in values["explainers"]:
        if stem(row) not in (rows := choices("explainer")):
            raise UserError(unknown(f"explainers.{row}", row, rows, "explainer", "choose from"))


def _with_checkpoint(values: Mapping[str, Any], wanted: set[str]) -> dict[str, Any]:
    """A classifier that would be trained comes from the file instead, where there is one: both stand in one place."""
    classifier = values.get("classifier")
    if "checkpoint" in wanted or "classifier" not in wanted or not isinstance(classifier, dict):
        return dict(values)
    return {**values, "classifier": {**classifier, "checkpoint": values["checkpoint"]}, "checkpoint": None}


def _settled(config: DictConfig, task: Task, values: Mapping[str, Any], typed: Sequence[str]) -> DictConfig:
    """The configuration with the model that the file of a checkpoint says it is of, where one is given."""
    checkpoint, given = values.get("checkpoint"), values.get("model")
    wanted = {field.name for field in dataclasses.fields(task.settings)}
    if not isinstance(given, dict) or not wanted & {"checkpoint", "classifier", "classes"}:
        return config
    from xai.models.families import family_of
    from xai.papers.families import about, family, settle, settle_named

    if "classes" in wanted:
        file = Path(checkpoint) if isinstance(checkpoint, str) else None
        if named := settle_named(given, file, typed):
            return OmegaConf.create({**OmegaConf.to_container(config), "model": named})  # type: ignore[dict-item]
    if not isinstance(checkpoint, str) or not wanted & {"checkpoint", "classifier"}:
        return config
    said = settle(given, Path(checkpoint), [key for key in typed if key.partition(".")[0] == "model"])
    held, kind = family_of(said or given), get_type_hints(task.settings)["model"]
    if held is not family_of(given) and not issubclass(family(said), kind):
        raise UserError(
            f"{checkpoint} holds {held.about}, and {task.asked} needs {about(kind)}: give such a checkpoint"
        )
    if said and task.asked in _FINE_TUNING and said["name"] in choices("training") and "model" not in typed:
        raise UserError(f"{checkpoint} is of model={said['name']}, which has training settings of its own: add that")
    # What refers to the model, such as the size of images, is to see this one.
    whole: Any = OmegaConf.to_container(config)
    own = whole["model"] if said and said["name"] == given.get("name") else {}
    return OmegaConf.create({**whole, "model": {**own, **said}}) if said else config


def _with_model(task: Task, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Refuse a model of a family that a task is not made for; where it is made for one alone, that need not be said."""
    kind, model = get_type_hints(task.settings).get("model"), values.get("model")
    if kind is None or not isinstance(model, dict):
        return values
    from xai.papers.families import check_family, family

    check_family(kind, model, task.asked)
    said = {"family"} if kind is family(model) else set()
    return {**values, "model": {key: value for key, value in model.items() if key not in said}}


def _module_names(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(f"plugins={shown(value)} must be a list of modules, as in plugins=[my_package.my_module]")
    return value


@contextmanager
def closing_logger() -> Iterator[None]:
    """Finish the W&B run of a job when the job ends, however it ends.

    Raises:
        UserError: In place of W&B's own errors (no network, a key that is refused).
    """
    done = False
    try:
        try:
            yield
            done = True
        finally:
            # A process has one at a time, and the next job of a sweep would share it.
            wandb = sys.modules.get("wandb")
            if wandb is not None and wandb.run is not None:
                wandb.finish(exit_code=0 if done else 1)
    except Exception as error:
        if wandb is None or not isinstance(error, wandb.errors.Error):
            raise
        raise UserError(f"W&B refuses ({error}): use WANDB_MODE=offline or logger=csv") from error


def _plain(config: DictConfig) -> dict[str, Any]:
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise UserError(f"{missing[0]} is not set: give it as {missing[0]}=...")
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}
