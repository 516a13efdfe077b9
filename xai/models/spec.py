"""What a file of ours says of itself: a typed, bounded, closed schema, checked before anything is built from it."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from xai import __version__
from xai.core.errors import UserError
from xai.core.settings import build
from xai.models.cnn import CnnParams
from xai.models.dpt import DecoderParams
from xai.models.factory import ClipParams
from xai.models.maskable import Removal
from xai.models.vit import VitParams, outputs_of

ModelSettings = ClipParams | VitParams | CnnParams

_MOST_PATCHES = 2**16

Text = Annotated[str, Field(max_length=200)]
# Neither a path, nor a URL, nor a name with a scheme, such as hf-hub:..., that a library would fetch.
Architecture = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")]
Width = Annotated[int, Field(ge=1, le=2**14)]
Depth = Annotated[int, Field(ge=1, le=256)]
Heads = Annotated[int, Field(ge=1, le=256)]
Scale = Annotated[float, Field(ge=-1e3, le=1e3)]
Mean = Annotated[float, Field(ge=-100, le=100)]
Deviation = Annotated[float, Field(ge=1e-6, le=100)]
Channels = tuple[Mean, Mean, Mean]
Deviations = tuple[Deviation, Deviation, Deviation]
Levels = Annotated[tuple[Annotated[int, Field(ge=0, le=256)], ...], Field(min_length=1, max_length=16)]


class Closed(BaseModel):
    """No key more, no text for a number, no NaN, no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, from_attributes=True)


class Tower(Closed):
    """Shape of an embedded ViT; see `SmallVit`."""

    width: Width
    depth: Depth
    heads: Heads
    mlp_ratio: Annotated[float, Field(gt=0, le=64)]
    registers: Annotated[int, Field(ge=0, le=256)]
    position_scale: Scale


class Towers(Closed):
    """Shape of an embedded CLIP; see `SmallTowers`."""

    embed_dim: Width
    width: Width
    layers: Depth
    head_width: Width
    text_width: Width
    text_layers: Depth
    text_heads: Heads
    position_scale: Scale


class Shape(Closed):
    """What all families have: how an image is brought to size, normalised and cut into patches.

    The short side of a picture is resized to `image_size / crop`, then the centre is cut out; pixels are in [0, 1]
    before they are normalised.
    """

    name: Text
    image_size: Annotated[int, Field(ge=2, le=4096)]
    patch_size: Annotated[int, Field(ge=1, le=4096)]
    mean: Channels
    std: Deviations
    crop: Annotated[float, Field(gt=0.01, le=1)] = 1.0
    resize: Literal["bicubic"] = "bicubic"

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if (self.image_size // self.patch_size) ** 2 > _MOST_PATCHES:
            raise ValueError(f"more than {_MOST_PATCHES} patches an image")
        self.settings()
        return self

    def settings(self) -> ModelSettings:
        """The settings of a model of this shape, without weights to start from.

        Raises:
            UserError: The numbers do not fit together, or nobody knows the architecture.
        """
        kind = _SETTINGS[self.model_dump()["family"]]
        values = self.model_dump(exclude={"family", "resize"} | ({"crop"} if kind is not CnnParams else set()))
        made: ModelSettings = build(kind, values, "model")
        return made


class ClipShape(Shape):
    """A CLIP with a ViT tower: an architecture of open_clip and its activation, or small towers."""

    family: Literal["clip"] = "clip"
    architecture: Architecture | None = None
    quick_gelu: bool = False
    towers: Towers | None = None


class VitShape(Shape):
    """A vision transformer: an architecture of timm, or a small tower."""

    family: Literal["vit"] = "vit"
    architecture: Architecture | None = None
    tower: Tower | None = None
    binary: bool = False


class CnnShape(Shape):
    """A convolutional network of timm."""

    family: Literal["cnn"] = "cnn"
    architecture: Architecture
    output_stride: Annotated[int, Field(ge=1, le=64)] | None = None


AnyShape = ClipShape | VitShape | CnnShape
_SETTINGS: dict[str, Any] = {"clip": ClipParams, "vit": VitParams, "cnn": CnnParams}
_SHAPES: dict[Any, type[AnyShape]] = {ClipParams: ClipShape, VitParams: VitShape, CnnParams: CnnShape}


def shape_of(params: ModelSettings) -> AnyShape:
    """The shape that a model's settings give it; where its weights come from is no part of it.

    Raises:
        UserError: It is beyond what a file may hold.
    """
    shape = next(shape for kind, shape in _SHAPES.items() if isinstance(params, kind))
    values = {name: getattr(params, name) for name in shape.model_fields if hasattr(params, name)}
    if isinstance(params, ClipParams):
        values["quick_gelu"] = params.activates_quickly
    try:
        return shape.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise UserError(f"model.{key} is more than the file of a network may say: {first['msg']}") from error


class TokenDecoder(Closed):
    """From the tokens of a ViT to scores; see `build_decoder`."""

    kind: Literal["mask_transformer", "linear"]
    depth: Annotated[int, Field(ge=1, le=64)]
    heads: Heads


class PixelDecoder(Closed):
    """From feature maps to a map of pixels; see `DecoderParams`."""

    channels: Width
    fusion: Width
    head: Width
    refinement: Width
    resize: Annotated[tuple[Annotated[float, Field(gt=0, le=16)], ...], Field(min_length=1, max_length=16)]
    conditioning: Literal["concat", "product"]
    norm: Literal["batch", "group"]
    dropout: Annotated[float, Field(ge=0, lt=1)]
    pixels: Annotated[int, Field(ge=0, le=4096)]
    gradient: bool
    scale: Annotated[float, Field(gt=0, le=1e6)]

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        self.settings()
        return self

    def settings(self) -> DecoderParams:
        """The same as settings."""
        return build(DecoderParams, self.model_dump(), "decoder")


class Backbone(Closed):
    """A network of timm, other than the classifier, that an explainer of pixels looks through."""

    architecture: Architecture
    mean: Channels
    std: Deviations


class PixelExplainer(Closed):
    """An explainer of Learn to Rank; without a backbone it looks through the classifier."""

    levels: Levels
    decoder: PixelDecoder
    backbone: Backbone | None = None


class Removed(Closed):
    """How patches are removed where nobody asks for another way; see `Removal`."""

    kind: Literal["tokens", "pixels"]
    reference: Annotated[str, Field(max_length=40)] = "mean"

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        self.settings()
        return self

    def settings(self) -> Removal:
        """The same as settings."""
        return Removal(self.kind, self.reference)


class Lineage(Closed):
    """What made a file: the version of this framework, the seed, and the fingerprint of the base weights.

    `base` is empty where nobody knows what a network was fine-tuned from.
    """

    version: Text = __version__
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    base: Text = ""


_FAMILIES: dict[str, tuple[str, ...]] = {
    "classifier": ("clip", "vit", "cnn"),
    "self_explaining": ("clip",),
    "surrogate": ("vit",),
    "salvage": ("vit",),
    "vit_shapley": ("vit",),
    "ranking": ("vit", "cnn"),
}
"""Families that there are files of, by kind."""


class Spec(Closed):
    """All that a file says of itself: enough to build its network and to give it a picture."""

    format: Literal[1] = 1
    kind: Literal["classifier", "self_explaining", "surrogate", "salvage", "vit_shapley", "ranking"]
    model: Annotated[AnyShape, Field(discriminator="family")]
    data: Text
    classes: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(min_length=1, max_length=100_000)]
    removal: Removed | None = None
    decoder: TokenDecoder | None = None
    ranking: PixelExplainer | None = None
    made_by: Lineage = Lineage()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.model.family not in _FAMILIES[self.kind]:
            raise ValueError(f"there is no {self.kind} of family {self.model.family}")
        if (self.decoder is None) == (self.kind in ("salvage", "vit_shapley")):
            raise ValueError(f"a {self.kind} has {'a' if self.decoder is None else 'no'} decoder")
        if (self.ranking is None) == (self.kind == "ranking"):
            raise ValueError(f"a {self.kind} and ranking settings do not go together")
        if self.model.family != "clip":
            outputs_of(len(self.classes), self.binary)
        return self

    @property
    def binary(self) -> bool:
        """Whether one logit with a sigmoid stands for two classes."""
        return isinstance(self.model, VitShape) and self.model.binary

    @property
    def explains(self) -> bool:
        """Whether the network has learned, or been given, explanations."""
        return self.kind in ("self_explaining", "salvage", "vit_shapley", "ranking")


def describe(
    params: ModelSettings,
    kind: str,
    data: str,
    classes: Sequence[str],
    *,
    seed: int | None = None,
    base: str = "",
    **more: Any,
) -> Spec:
    """What the file of a network is to say of it.

    Args:
        params: The model.
        kind: Of the network.
        data: Name of the data set it was trained on.
        classes: Names of its classes.
        seed: Of its training.
        base: Fingerprint of the base weights.
        more: `removal`, and `decoder` or `ranking` of an explainer.
    """
    made_by = Lineage(seed=seed, base=base)
    values = {"kind": kind, "model": shape_of(params), "data": data, "classes": tuple(classes), "made_by": made_by}
    return Spec.model_validate({**values, **more})
