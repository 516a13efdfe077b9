"""Further ways to call: explainers by Captum's names, and packages, so that `xai.explainers(model)` lists them."""

import functools
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import shown

T = TypeVar("T", bound=Callable[..., Tensor])


def captum_names(attribute: T) -> T:
    """Let a method `attribute(images, targets, generator)` be called by Captum's names too.

    `inputs` is `images`, and `target` is `targets`; either may be one class for all images, as a number. Where the
    explainer says that it `knows_names`, targets are handed on as they came.
    """
    if hasattr(attribute, "takes_captum_names"):
        return attribute

    @functools.wraps(attribute)
    def either(self: Any, images: Any = None, targets: Any = None, *more: Any, **named: Any) -> Tensor:
        images = _one_of("images", images, "inputs", named)
        targets = _one_of("targets", targets, "target", named)
        if not getattr(self, "knows_names", False):
            targets = _numbers(targets, images)
        return attribute(self, images, targets, *more, **named)

    either.takes_captum_names = True  # type: ignore[attr-defined]
    return either  # type: ignore[return-value]


def _numbers(targets: Any, images: Tensor) -> Tensor:
    """Class numbers [B] for images [B, ...]; UserError: they are names, or nothing that could be numbers."""
    try:
        found = torch.as_tensor(targets, device=targets.device if isinstance(targets, Tensor) else images.device)
    except (TypeError, ValueError, RuntimeError):
        raise UserError(
            f"target={shown(targets)}: this explainer knows classes by their numbers; by name the explainers do that "
            "xai.explainer(model, ...) gives"
        ) from None
    return found.expand(len(images)) if found.ndim == 0 else found


def _one_of(ours: str, given: Any, theirs: str, named: dict[str, Any]) -> Any:
    other = named.pop(theirs, None)
    if (given is None) == (other is None):
        raise TypeError(f"attribute() needs either {ours} or {theirs}, as Captum calls it")
    return other if given is None else given


class _Callable(ModuleType):
    def __call__(self, *args: Any, **settings: Any) -> Any:
        home = import_module("xai.api.comparing")
        return getattr(home, self.__name__.rpartition(".")[2])(*args, **settings)


def make_callable(name: str) -> None:
    """Let calls of a package go to the function of its name in `xai.api`.

    The package and the function have one name, because it is the word of the field for both; whichever is imported
    first, `xai.<name>` is the package afterwards.
    """
    sys.modules[name].__class__ = _Callable
