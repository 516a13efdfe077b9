"""Models: what the settings of all have in common, and families, which say how a network is built from theirs.

    @register("tiny_mlp", about="a small MLP", example="mlp_small")
    @settings
    class MlpParams(NetworkParams):
        hidden: Count

        def build(self, outputs: int, seed: int = 0) -> nn.Module: ...

is a family of one's own: `family: tiny_mlp` in the YAML of a model says that its other settings are these.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import timm
import torch
from pydantic import Field
from torch import nn

from xai.core import plugins
from xai.core.errors import UserError
from xai.core.settings import Count, FieldError, OneLine, Side, build, settings, shown, unknown
from xai.data.folder import imagenet_names
from xai.data.images import side_of
from xai.models.maskable import MaskableClassifier, PaintedClassifier, Removal

# A file brings its settings from a stranger, so all of them have bounds: nothing is built that no machine could hold.
Width = Annotated[int, Field(ge=1, le=2**14)]
Depth = Annotated[int, Field(ge=1, le=256)]
Heads = Annotated[int, Field(ge=1, le=256)]
Scale = Annotated[float, Field(ge=-1e3, le=1e3)]
Text = Annotated[str, Field(max_length=200), OneLine]
Means = Annotated[tuple[Annotated[float, Field(ge=-100, le=100)], ...], Field(min_length=3, max_length=3)]
Deviations = Annotated[tuple[Annotated[float, Field(gt=0, le=100)], ...], Field(min_length=3, max_length=3)]

_MOST_PATCHES = 2**16
CELLS = 7
"""Patches along a side, where nobody says how many."""


def divided(side: int) -> int:
    """The side nearest to this that so many patches divide."""
    return max(1, round(side / CELLS)) * CELLS


@settings
class Geometry:
    """The first settings of a model of any family.

    Args:
        name: What the model is called here.
        image_size: Side of its input in pixels.
        patch_size: Side of a patch in pixels: what explainers remove at a time.
        mean: Channel means of its input normalisation.
        std: Channel deviations of it.
    """

    name: Text
    image_size: Side
    patch_size: Count
    mean: Means
    std: Deviations

    def __post_init__(self) -> None:
        """Refuse patches that do not cover the image, a single one, and more than anybody asks for."""
        side, patch = self.image_size, self.patch_size
        if side % patch or side == patch:
            divisors = [each for each in range(2, side) if side % each == 0 and (side // each) ** 2 <= _MOST_PATCHES]
            advice = [f"patch_size={each}" for each in sorted(divisors, key=lambda size: abs(size - patch))[:1]]
            fitting = round(side / patch) * patch
            if fitting > patch or not advice:
                advice.append(f"image_size={fitting if fitting > patch else divided(side)}")
            fault = f"makes one patch of image_size={side}, and an explanation compares patches"
            if side % patch:
                fault = f"does not divide image_size={side}"
            raise FieldError("patch_size", f"{fault}: use {', or '.join(advice)}")
        if self.grid**2 > _MOST_PATCHES:
            raise FieldError("patch_size", f"cuts an image into more than {_MOST_PATCHES} patches: use larger ones")

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size

    @property
    def embedded(self) -> bool:
        """Whether the framework trains the model from nothing."""
        return True

    @property
    def resized(self) -> int:
        """What the short side of a photograph is resized to before its middle is cut out."""
        # A family without the setting shows all of it.
        return side_of(self.image_size, getattr(self, "crop", 1.0))


def check_architecture(name: str, pattern: str = "") -> None:
    """Refuse architectures that timm does not know; of those like `pattern` the nearest is suggested.

    Raises:
        FieldError: For the settings to complete.
    """
    if not timm.is_model(name):
        raise FieldError("architecture", unknown("", name, timm.list_models(pattern), "network of timm"))


def is_of_timm(name: str) -> bool:
    """Whether timm has an architecture of this name and, where a tag of its weights stands behind it, these."""
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError:  # there is the architecture, and no such tag
        return False
    return bool(timm.is_model(name))


T = TypeVar("T", bound=type[Geometry])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random weights that depend on a seed alone, and leave every generator as it was."""
    with torch.random.fork_rng(devices=[]):
        # Of the processor alone, which draws them: `torch.manual_seed` would set back those of GPUs too, and for good.
        torch.default_generator.manual_seed(seed)
        yield


@settings
class NetworkParams(Geometry):
    """Settings of a network that classifies by itself; a family has to say how it is built, and may say the rest."""

    def build(self, outputs: int, seed: int = 0) -> nn.Module:
        """The network of normalised images [B, 3, H, W] to logits [B, `outputs`], with random weights.

        Where it is called to be trained, torch is seeded: a family of one's own need not look at `seed`.
        """
        raise NotImplementedError

    def maskable(self, network: Any, removal: Removal | None = None) -> MaskableClassifier:
        """The network as a classifier that answers with patches removed: they are painted over in its input."""
        return PaintedClassifier(network, (self.grid, self.grid), self.mean, self.std, removal)

    def outputs(self, classes: int) -> int:
        """Width of the head for so many classes."""
        return outputs_of(classes, binary=False)

    @property
    def file(self) -> Path | None:
        """The file that its weights come from; None where there is none."""
        return None

    def start(self, outputs: int, seed: int = 0) -> nn.Module:
        """The network with the weights that a training starts from."""
        return self.build(outputs, seed)

    def is_published_for(self, classes: Sequence[str]) -> bool:
        """Whether it comes trained, to tell these very classes apart."""
        return False

    def published(self, outputs: int) -> nn.Module:
        """The network as it was published, head included."""
        return self.start(outputs)


@dataclass(frozen=True)
class Family:
    """A family of models.

    Args:
        name: What files and configurations call it.
        settings: Of its models.
        about: What messages call it.
        example: One of its models.
        telling: Settings that no other family has; where a configuration does not name its family, they tell it.
    """

    name: str
    settings: type[Geometry]
    about: str
    example: str
    telling: frozenset[str] = frozenset()


_FAMILIES: dict[str, Family] = {}


def register(name: str, *, about: str, example: str, telling: Sequence[str] = ()) -> Callable[[T], T]:
    """Register settings as those of a family; see `Family`; UserError: the name is taken."""
    if name in _FAMILIES:
        raise UserError(f"a family of models is called {name} already: choose another name")

    def add(kind: T) -> T:
        _FAMILIES[name] = Family(name, kind, about, example, frozenset(telling))
        plugins.registered()
        return kind

    return add


def families() -> list[Family]:
    """All families, those of this framework first."""
    return list(_FAMILIES.values())


def named(name: Any) -> Family:
    """A family by its name; UserError: nobody has registered it."""
    plugins.load()
    if name not in _FAMILIES:
        more = "; one of your own is registered by plugins=[your_module]"
        raise UserError(unknown(f"model.family={name}", str(name), _FAMILIES, "family of models", "choose from") + more)
    return _FAMILIES[name]


def family_of(model: Geometry | Mapping[str, Any]) -> Family:
    """The family that settings are of, made or not; a CLIP where they do not tell."""
    if isinstance(model, Geometry):
        found = [each for each in families() if isinstance(model, each.settings)]
        return max(found, key=lambda each: len(each.settings.__mro__))
    if "family" in model:
        return named(model["family"])
    found = [each for each in families() if each.telling & set(model)]
    return found[0] if len(found) == 1 else named("clip")


def open_model(values: Any, kind: type[Geometry] | None = None) -> Geometry:
    """The settings of a model from a configuration, of the family that it is of unless `kind` says which.

    Raises:
        UserError: A setting is wrong.
    """
    if isinstance(values, Geometry):
        return values
    if not isinstance(values, Mapping):
        raise UserError(f"model={shown(values)} must be a group of settings: choose one, as in model=vit_tiny")
    own = {key: value for key, value in values.items() if key != "family"}
    return build(kind or family_of(values).settings, own, "model")


def published_classes() -> tuple[str, ...]:
    """What published networks tell apart: ImageNet-1k, its classes called as data=imagenet calls them."""
    return tuple(imagenet_names().values())


def outputs_of(classes: int, binary: bool) -> int:
    """Width of a head: a single logit for a binary classifier (sigmoid), else one a class (softmax).

    Raises:
        UserError: For a binary classifier of another number of classes than two, or fewer than two classes.
    """
    if classes < 2:
        raise UserError(f"a classifier of {classes} class has nothing to tell apart: use a data set of two or more")
    if binary and classes != 2:
        raise UserError(f"model.binary=true needs a data set of two classes, this one has {classes}")
    return 1 if binary else classes
