"""Configurations as Hydra composes them from a command line, outside a job."""

from dataclasses import fields
from typing import Any, TypeVar

import hydra
from omegaconf import DictConfig, OmegaConf

from xai.core.composing import CONF
from xai.core.settings import build

T = TypeVar("T")


def composed(*overrides: str) -> DictConfig:
    """The whole of it."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return hydra.compose("config", overrides=list(overrides))


def plain(*overrides: str) -> dict[str, Any]:
    """The same as plain values, every reference resolved."""
    values: Any = OmegaConf.to_container(composed(*overrides), resolve=True)
    return dict(values)


def settings_of(kind: type[T], values: dict[str, Any]) -> T:
    """The settings of a task, a study or a method, of what a whole configuration says."""
    wanted = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return build(kind, {name: value for name, value in values.items() if name in wanted})
