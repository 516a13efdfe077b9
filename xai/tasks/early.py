"""Wrong values are refused before anything is imported that computes.

A class of settings stands in the file of what it configures, and whoever imports that waits for seconds. What the
classes say of single values and of lists of them is therefore written down once they have been imported, in the user's
cache, for these very sources. What concerns several settings they alone know. They check everything in any case; here
nothing is accepted, and what is refused is what they would refuse, in the same line.
"""

import dataclasses
import hashlib
import json
import os
import platform
import stat
import typing
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import pydantic
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import TypeAdapter

from xai.core.composing import POOLED, choices, compose_choice, stem
from xai.core.errors import UserError
from xai.core.files import cache_folder, read_text, write_atomically
from xai.core.settings import alternatives, unknown, wrong_value

Tree = dict[str, Any]
"""By the name of a setting: a schema of pydantic's core; a tree, of a group; None where its class alone can tell."""

_PACKAGE = Path(__file__).resolve().parents[1]
_SINGLE = ("int", "float", "str", "bool", "literal")
_NOT_SAID = ("metadata", "serialization", "ref")
_DATA = ("data", "source", "probe")
_OF_FILES = ("name", "label", "title", "family", "variant_of")
"""What files of groups say besides settings."""


def check_typed(config: DictConfig, typed: Sequence[str]) -> None:
    """Refuse a value that its setting cannot have, as far as that is known before the setting's class is imported.

    Args:
        config: As Hydra composed it.
        typed: The keys that the user typed.

    Raises:
        UserError: As `xai.app.check` would.
    """
    trees = kept()
    whole = trees and trees["task"].get(_asked(config))
    for path in typed if whole else ():
        keys = path.split(".")
        with suppress(OmegaConfBaseException):
            value = OmegaConf.select(config, path)
            found = _among(trees, whole, config, keys)
            plain = OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
            # What is null is often settled by what is given besides.
            if found and plain is not None and keys[-1] not in _OF_FILES and (why := refusal(*found, plain, path)):
                raise UserError(why)


def _asked(config: DictConfig) -> str:
    """The task, as `Task.asked` says it."""
    own = {"study": "study", "train": "method"}.get(str(config.get("task")), "task")
    return f"{own}={config.get(own)}"


def _among(trees: Mapping[str, Any], whole: Tree, config: DictConfig, keys: list[str]) -> tuple[Tree, list[str]] | None:
    """The settings that one is among, and where; None where that is not known."""
    first, *below = keys
    if first not in whole:
        return None
    if first == "explainers" and len(below) > 1 and not below[0].endswith(POOLED):
        row, *below = below
        kind, name = "explainer", _explainer(stem(row)) if stem(row) in choices("explainer") else None
    elif first == "metric" and len(below) > 1:
        kind, (name, *below) = "metric", below
    elif first in _DATA and below:
        kind, name = "data", OmegaConf.select(config, f"{first}.name")
    elif first == "model" and below:
        kind, name = "family", OmegaConf.select(config, "model.family")
    else:
        return whole, keys
    tree = trees[kind].get(name)
    return tree and (tree, below)


def _explainer(row: str) -> str:
    """The explainer that a row is of."""
    values = compose_choice("explainer", row)
    return str(values["name"]) if "name" in values else _explainer(values.variant_of) if "variant_of" in values else row


def remember() -> None:
    """Write down what all settings of the framework may be, where that has not been done."""
    if not kept():
        keep(collected())


def collected() -> dict[str, dict[str, Tree]]:
    """What all settings of the framework may be; whoever calls this has imported most of it."""
    from xai.data import catalogue
    from xai.data import registry as data
    from xai.explainers import registry as explainers
    from xai.metrics import registry as metrics
    from xai.models.families import families
    from xai.papers.families import family
    from xai.tasks.registry import choose

    asked = [{"task": name} for name in ("apply_vector", "compare", "explain", "supervise")]
    asked += [{"task": "study", "study": name} for name in choices("study")]
    asked += [{"task": "train", "method": name} for name in choices("method")]
    tasks = {}
    for each in asked:
        with suppress(UserError):
            task = choose(each)
            tasks[task.asked] = task.settings
    catalogue.fill()
    groups: dict[str, dict[str, Any]] = {
        "task": tasks,
        "explainer": {name: explainers.entry(name).params for name in explainers.names()},
        "metric": {name: metrics.entry(name).params for name in metrics.names()},
        "data": {name: data.entry(name).params for name in data.names()},
        "family": {each.name: family({"family": each.name}) for each in families()},
    }
    return {
        group: {name: tree_of(kind) for name, kind in kinds.items() if kind.__module__.startswith("xai.")}
        for group, kinds in groups.items()
    }


def tree_of(schema: Any) -> Tree:
    """What the settings of a class may be."""
    hints = typing.get_type_hints(schema, include_extras=True)
    found: Tree = {}
    for field in dataclasses.fields(schema):
        options = alternatives(hints[field.name])
        if len(options) == 1 and dataclasses.is_dataclass(options[0]):
            found[field.name] = {"fields": tree_of(options[0])}
        else:
            found[field.name] = _plain(TypeAdapter(hints[field.name]).core_schema)
    return found


def _plain(schema: Mapping[str, Any]) -> dict[str, Any] | None:
    """A schema of text, numbers, and lists of them, as JSON can hold it; None for any other."""
    kind, own = schema["type"], {key: value for key, value in schema.items() if key not in _NOT_SAID}
    if kind in _SINGLE:
        return own
    if kind in ("nullable", "function-after"):
        inner = _plain(schema["schema"])
        return inner if kind == "function-after" or inner is None else {**own, "schema": inner}
    if kind == "tuple" and schema.get("variadic_item_index") == 0 and len(schema["items_schema"]) == 1:
        inner = _plain(schema["items_schema"][0])
        return None if inner is None else {**own, "items_schema": [inner]}
    return None


def refusal(tree: Tree, keys: Sequence[str], value: Any, path: str) -> str | None:
    """Why a setting cannot be what it is, in a line; None where it may be right.

    Args:
        tree: What the settings may be, among which it is.
        keys: Where it is among them.
        value: What it is.
        path: What the user typed to set it.
    """
    key, *below = keys
    if key not in tree:
        above = path.removesuffix("." + ".".join(keys))
        return unknown(f"{above}.{key}", key, tree)
    node = tree[key]
    if node is None or isinstance(value, Mapping):
        return None
    if "fields" in node:
        return refusal(node["fields"], below, value, path) if below else None
    return None if below else wrong_value(node, value, path)


def kept() -> dict[str, Any]:
    """What was written down for these sources; empty where nothing was, or where it is not as it was written."""
    with suppress(OSError, RuntimeError, ValueError, TypeError):
        sources()  # before the classes are imported, also where there is no file yet
        about = os.lstat(_file())
        if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return {}  # a link, or what others may have written
        seal, _, text = read_text(_file()).partition("\n")
        if seal == _seal(text):
            return dict(json.loads(text))
    return {}


def keep(trees: Mapping[str, Any]) -> None:
    """Write it down, after `kept` has looked for it; where nobody may write, it is done without."""

    def write(path: Path) -> None:
        path.touch(mode=0o600)
        path.write_text(f"{_seal(text)}\n{text}")

    text = json.dumps(trees)
    with suppress(OSError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_atomically(_file(), write)


def _seal(text: str) -> str:
    """Of these sources and this text: of others, or damaged, it is refused."""
    return hashlib.sha256(f"{sources()}\n{text}".encode()).hexdigest()


def _file() -> Path:
    """One file for each place that the framework is installed in."""
    return cache_folder() / f"ranges-{hashlib.sha256(os.fsencode(_PACKAGE)).hexdigest()[:12]}.json"


@cache
def sources() -> str:
    """Tells the sources that the classes stand in from all others, as Python tells byte code: by times and sizes.

    Asked before the classes are imported: what changes meanwhile makes it another one.
    """
    found = hashlib.sha256(f"{platform.python_version()} {pydantic.VERSION}".encode())
    for path in sorted(_PACKAGE.rglob("*.py")):
        about = path.stat()
        found.update(f"{path.relative_to(_PACKAGE)} {about.st_mtime_ns} {about.st_size}\n".encode())
    return found.hexdigest()
