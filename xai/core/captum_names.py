"""Explainers are called as Captum's are: `attribute(inputs, target=...)`, beside the names they have here."""

import functools
from collections.abc import Callable
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
