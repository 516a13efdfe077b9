"""From the command line to a method: Hydra composes, one line is printed for what is wrong."""

import logging
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.core.settings import unknown


def main() -> int:
    """Run the command line; the exit status is 0, 2 for what the user can mend, 130 when interrupted."""
    # With this Hydra lets its errors through, so that they can be told in one line.
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        return report_errors(hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")(_run))
    except SystemExit as end:
        return int(end.code or 0)


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
    from xai.app import run

    job = HydraConfig.get()
    status = report_errors(lambda: run(config, Path(job.runtime.output_dir), typed_keys(job.overrides.task)))
    if status:
        # Hydra prints a line of its own before it lets an error through, and runs the rest of a sweep first.
        sys.exit(status)


def typed_keys(overrides: Iterable[str]) -> list[str]:
    """The keys in overrides, such as `model` or `model.image_size`, and those of the model that an experiment sets."""
    pairs = [re.split(r"=", override.lstrip("+~"), maxsplit=1) for override in overrides]
    keys = [pair[0] for pair in pairs]
    path = CONF / "experiment" / f"{dict(pair for pair in pairs if len(pair) == 2).get('experiment')}.yaml"
    if path.is_file():
        experiment = OmegaConf.load(path)
        assert isinstance(experiment, DictConfig)
        groups = [
            str(key) for entry in experiment.get("defaults", []) if isinstance(entry, DictConfig) for key in entry
        ]
        keys += ["model"] * ("override /model" in groups)
        keys += [f"model.{key}" for key in experiment.get("model") or {}]
    return keys


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
        choices = sorted(path.stem for path in (CONF / group).glob("*.yaml"))
        return unknown(f"{group}={choice}", choice, choices, group, "choose from:")
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
        if keys[name] == _choices():
            return f"{path} is no setting of what is chosen here: python run.py --help lists the settings"
        return f"{path} belongs to {' or '.join(keys[name])}"
    return f"{text.strip().splitlines()[0]}; python run.py --help lists the settings"


def _choices() -> list[str]:
    """What a run can be about: every method, and every other task."""
    found = [f"{group}={path.stem}" for group in ("method", "task") for path in sorted((CONF / group).glob("*.yaml"))]
    return [choice for choice in found if choice != "task=method"]


def _keys(parent: str) -> dict[str, list[str]]:
    """The settings there are at a dotted path of the default configuration, with the methods and tasks to have them."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        found: dict[str, list[str]] = {}
        for choice in _choices():
            node: Any = hydra.compose("config", overrides=[choice])
            for name in filter(None, parent.split(".")):
                node = node.get(name) if isinstance(node, DictConfig) and name in node else None
            if isinstance(node, DictConfig):
                for key in node:
                    found.setdefault(str(key), []).append(choice)
    return found
