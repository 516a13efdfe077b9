"""The third contract, and the registry in which explainers are found by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import unknown
from xai.models.maskable import MaskableClassifier, Removal


class Explainer(Protocol):
    """Attributions of images for target classes, in Captum's calling convention."""

    def attribute(self, images: Tensor, targets: Tensor) -> Tensor:
        """Explain.

        Args:
            images: [B, 3, H, W] in [0, 1].
            targets: [B] class indices.

        Returns:
            [B, h, w] on the classifier's patch grid, or of pixels, [B, H, W], where the settings ask for them
            (`ExplainerParams.of_pixels`); higher is more evidence for the target.
        """
        ...


@dataclass(frozen=True)
class ExplainerParams:
    """Settings of an explainer; each explainer has its own subclass."""

    @property
    def classifier_removal(self) -> Removal | None:
        """How the classifier that is explained removes patches; None where the explainer removes none."""
        return None

    @property
    def of_pixels(self) -> bool:
        """Whether maps are of pixels, [B, H, W], and not on the patch grid."""
        return False

    def for_split(self, split: str) -> Self:
        """The settings for images of a split: what is learned from may be cheaper than what is measured against."""
        return self


@dataclass(frozen=True)
class OutputParams(ExplainerParams):
    """Settings of an explainer that explains one of a class's two outputs.

    Args:
        output: What is explained: the `logit` or the `probability` of a class.
    """

    output: str

    def __post_init__(self) -> None:
        """Refuse outputs that no classifier has."""
        if self.output not in ("logit", "probability"):
            raise UserError(f"supervision.output={self.output} is unknown: use logit or probability")


Build = Callable[[MaskableClassifier, Any, torch.Generator], Explainer]
"""Makes an explainer from a classifier, its settings, and the source of all its randomness."""


@dataclass(frozen=True)
class Entry:
    """One line of the registry.

    Args:
        name: What the explainer is called.
        about: What it is, in a line.
        params: Its settings.
        build: Makes it.
        class_specific: Whether its maps depend on the target; maps of attention are of the image alone, one for all
            classes.
    """

    name: str
    about: str
    params: type[ExplainerParams]
    build: Build
    class_specific: bool = True


_ENTRIES: dict[str, Entry] = {}


def register(
    name: str, about: str, params: type[ExplainerParams], *, class_specific: bool = True
) -> Callable[[Build], Build]:
    """Add an explainer: decorates what builds it; for the arguments see `Entry`."""

    def add(build: Build) -> Build:
        _ENTRIES[name] = Entry(name, about, params, build, class_specific)
        return build

    return add


def entry(name: str) -> Entry:
    """Look an explainer up by name; an unknown name is a `UserError` that suggests the nearest."""
    if name not in _ENTRIES:
        raise UserError(unknown(f"supervision={name}", name, _ENTRIES, "explainer", "choose from"))
    return _ENTRIES[name]


def names() -> list[str]:
    """All registered explainers, sorted."""
    return sorted(_ENTRIES)
