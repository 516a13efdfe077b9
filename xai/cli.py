"""From the command line to a task: Hydra composes, one line is printed for what is wrong."""

import logging
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from xai.core.composing import CONF, choices
from xai.core.errors import UserError
from xai.core.settings import unknown

OLD_METHODS = ("transfer", "ranking")
"""Methods that are studies as well, until conf/study has theirs."""


def main() -> int:
    """Run the command line; the exit status is 0, 2 for what the user can mend, 130 when interrupted."""
    # With this Hydra lets its errors through, so that they can be told in one line.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    sys.argv[1:] = overrides(sys.argv[1:])
    try:
        return report_errors(hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_run))
    except SystemExit as end:
        return int(end.code or 0)


def overrides(typed: Sequence[str]) -> list[str]:
    """What was typed as Hydra is to have it: settings of a row or a metric add to what its file has.

    The file of a row is read when the row is made, so that Hydra does not know the settings that it has.
    """
    return [f"++{each}" if re.match(r"(explainers|metric)\.[^=]+=", each) else each for each in typed]


def report_errors(job: Callable[[], None]) -> int:
    """Run a job; print one line for whatever the user can mend, and return the exit status."""
    try:
        job()
    except UserError as error:
        return _fail(str(error))
    except (HydraException, OmegaConfBaseException) as error:
        return _fail(explain_hydra(error))
    except OSError as error:
        if error.filename is None:
            raise
        return _fail(f"cannot use {error.filename}: {error.strerror}; choose another folder with name=... or store=...")
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _run(config: DictConfig) -> None:
    job = HydraConfig.get()

    def work() -> None:
        # Before anything is imported that takes its time.
        _check_places(job.overrides.task, str(job.runtime.choices["task"]))
        from xai.app import run

        run(config, Path(job.runtime.output_dir))

    status = report_errors(work)
    if status:
        # Hydra prints a line of its own before it lets an error through, and runs the rest of a sweep first.
        sys.exit(status)


def _check_places(typed: Sequence[str], task: str) -> None:
    """Refuse what Hydra lets stand, and nothing would read.

    Raises:
        UserError: A setting of a row in the place of the row's name, or a method where nothing is trained by itself.
    """
    for each in typed:
        key, _, value = each.lstrip("+").partition("=")
        if key.startswith("explainer."):
            setting = key.partition(".")[2]
            raise UserError(f"{key} is no setting: give it as explainers.<row>.{setting}={value}")
        if key == "method" and task != "train" and value not in OLD_METHODS:
            raise UserError(f"method={value} says what is trained: add task=train, or choose a study with study=...")


def _fail(message: str) -> int:
    logging.getLogger("xai").debug("the job ends with an error", exc_info=True)
    if "Original Traceback" in message:
        # A worker that reads images hands over its whole traceback as text; what the user can mend stands last.
        message = re.split(r"^[\w.]*(?:UserError|MissingError): ", message, flags=re.MULTILINE)[-1]
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return 2


def explain_hydra(error: Exception) -> str:
    """One line for what Hydra or OmegaConf refuse: what is wrong, and what would be right."""
    text = str(error)
    missing = re.search(r"Could not find '([^'/@]+)/([^']+)'", text) or re.search(
        r"In '[^']*': Could not find '(.+?)/(.+?)'", text
    )
    if missing:
        group, choice = missing.groups()
        return unknown(f"{group}={choice}", choice, choices(group), group, "choose from:")
    key = re.search(r"Could not override '([^']+)'", text)
    if key:
        path = key.group(1)
        parent, _, name = path.rpartition(".")
        while not (keys := _keys(parent)):
            # Not even the group is known: what is wrong is further up, at the latest where everything stands.
            path, (parent, _, name) = parent, parent.rpartition(".")
        if name not in keys:
            return unknown(path, name, keys)
        if path != key.group(1):
            return f"{path} is a single setting, no group of them: give it as {path}=..."
        if keys[name] == list(_choices()):
            return f"{path} is no setting of what is chosen here: python run.py --help lists the settings"
        return f"{path} belongs to {' or '.join(keys[name])}"
    return f"{text.strip().splitlines()[0]}; python run.py --help lists the settings"


def _choices() -> dict[str, list[str]]:
    """What a run can be about, as messages call it, and the overrides that choose it: a task, a method, a study."""
    tasks = [name for name in choices("task") if name not in ("train", "study")]
    return {
        **{f"task={name}": [f"task={name}"] for name in tasks},
        **{f"method={name}": ["task=train", f"method={name}"] for name in choices("method")},
        **{f"study={name}": [f"study={name}"] for name in choices("study")},
    }


def _keys(parent: str) -> dict[str, list[str]]:
    """The settings there are at a dotted path of the default configuration, with the choices that have them."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        found: dict[str, list[str]] = {}
        for choice, chosen in _choices().items():
            node: Any = hydra.compose("config", overrides=chosen)
            for name in filter(None, parent.split(".")):
                node = node.get(name) if isinstance(node, DictConfig) and name in node else None
            if isinstance(node, DictConfig):
                for key in node:
                    found.setdefault(str(key), []).append(choice)
    return found
