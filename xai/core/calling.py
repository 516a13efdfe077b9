"""Further ways to call: explainers by Captum's names, and packages, so that `xai.explainers(model)` lists them."""

import functools
import sys
from collections.abc import Callable
from importlib import import_module
from types import ModuleType
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T", bound=Callable[..., Tensor])


def captum_names(attribute: T) -> T:
    """Let a method `attribute(images, targets, generator)` be called by Captum's names too.

    `inputs` is `images`, and `target` is `targets`; either may be one class for all images, as a number.
    """
    if hasattr(attribute, "takes_captum_names"):
        return attribute

    @functools.wraps(attribute)
    def either(self: Any, images: Any = None, targets: Any = None, *more: Any, **named: Any) -> Tensor:
        images = _one_of("images", images, "inputs", named)
        targets = _one_of("targets", targets, "target", named)
        if not isinstance(targets, Tensor):
            targets = torch.as_tensor(targets, device=images.device)
        return attribute(self, images, targets.expand(len(images)) if targets.ndim == 0 else targets, *more, **named)

    either.takes_captum_names = True  # type: ignore[attr-defined]
    return either  # type: ignore[return-value]


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
