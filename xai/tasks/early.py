"""Wrong values are refused before anything is imported that computes; `xai.core.ranges` says how that can be."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from xai.core.composing import choices, compose_choice
from xai.core.errors import UserError
from xai.core.ranges import Tree, keep, kept, refusal, tree_of
from xai.explainers.names import POOLED, stem

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
