"""What a file of ours says of itself: a typed, bounded, closed schema, checked before anything is built from it."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, PlainValidator, model_validator

from xai import __version__
from xai.core.errors import UserError
from xai.core.settings import Side
from xai.data.catalogue import OpenData
from xai.models.cnn import CnnParams
from xai.models.dpt import DecoderParams
from xai.models.factory import ClipParams
from xai.models.families import (
    Deviations,
    Geometry,
    Heads,
    Means,
    NetworkParams,
    Text,
    Width,
    family_of,
    named,
    open_model,
    register,
)
from xai.models.maskable import Removal
from xai.models.vit import VitParams

register("clip", about="a CLIP", example="clip_tiny", telling=("towers", "random_weights", "quick_gelu"))(ClipParams)
register("vit", about="a plain vision transformer", example="vit_tiny", telling=("tower", "binary"))(VitParams)
register(
    "cnn", about="a convolutional network", example="efficientnet_lite0", telling=("output_stride", "crop", "package")
)(CnnParams)

SOURCES = frozenset({"weights", "pretrained", "package", "random_weights"})
"""Settings, of any family, that say where weights come from: they do not shape a network, and no file says them."""
Kind = Literal["classifier", "self_explaining", "surrogate", "salvage", "vit_shapley", "fast_shap", "ranking"]
_ONLY = {
    "self_explaining": ("clip",),
    "surrogate": ("vit", "cnn"),
    "salvage": ("vit",),
    "vit_shapley": ("vit",),
    "fast_shap": ("cnn",),
}
"""The families that there are networks of, where not of all."""


def shape_of(params: Geometry) -> Geometry:
    """The settings that shape a network, without those that say where its weights come from."""
    kind = family_of(params).settings
    values = {field.name: getattr(params, field.name) for field in fields(kind) if field.name not in SOURCES}
    if isinstance(params, ClipParams):
        values["quick_gelu"] = params.activates_quickly
    return kind(**values)


def said_of(params: Geometry) -> dict[str, Any]:
    """What a file says of a model: its family, its shape, and how a photograph is brought to size."""
    shape = {name: value for name, value in asdict(shape_of(params)).items() if name not in SOURCES}
    return {**shape, "family": family_of(params).name}


def _said(params: Geometry) -> dict[str, Any]:
    return {"crop": 1.0, **said_of(params), "resize": "bicubic"}


def _read(value: Any) -> Geometry:
    """A model of a file; settings of one that is at hand lose what does not shape it.

    Raises:
        ValueError: A value is wrong, or says more than a file may: where weights are to be fetched from, for one.
    """
    if isinstance(value, Geometry):
        return shape_of(value)
    values = dict(value)
    kind = named(values.pop("family")).settings
    own = {field.name for field in fields(kind)}
    if values.pop("resize", "bicubic") != "bicubic":
        raise ValueError("resize: bicubic is wanted")
    if "crop" not in own and values.pop("crop", 1.0) != 1.0:
        raise ValueError("crop: 1.0 is wanted")
    if foreign := SOURCES & set(values):
        raise ValueError(f"{min(foreign)}: a file has its weights in it")
    try:
        return open_model(values, kind)
    except UserError as error:
        raise ValueError(str(error)) from error


Model = Annotated[Geometry, PlainValidator(_read), PlainSerializer(_said)]
# Neither a path, nor a URL, nor a name with a scheme, such as hf-hub:..., that a library would fetch.
Architecture = Annotated[str, Field(max_length=100, pattern=r"^[A-Za-z0-9_.-]+$")]
Levels = Annotated[tuple[Annotated[int, Field(ge=0, le=256)], ...], Field(min_length=1, max_length=16)]


class Closed(BaseModel):
    """No key more, no text for a number, no NaN, no infinity."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class TokenDecoder(Closed):
    """From the tokens of a ViT to scores; see `build_decoder`, `SalvageNetwork` and `AnchoredSalvageNetwork`."""

    kind: Literal["mask_transformer", "linear"]
    depth: Annotated[int, Field(ge=1, le=64)]
    heads: Heads
    anchored: bool = False
    # Not said where it is 1, as files of before it was said have it.
    temperature: Annotated[float, Field(gt=0, exclude_if=lambda value: value == 1)] = 1.0


class Backbone(Closed):
    """A network of timm, other than the classifier, that an explainer of pixels looks through."""

    architecture: Architecture
    mean: Means
    std: Deviations


class PixelExplainer(Closed):
    """An explainer of Learn to Rank; without a backbone it looks through the classifier."""

    levels: Levels
    decoder: DecoderParams
    backbone: Backbone | None = None


class UNet(Closed):
    """From the features of a CNN to scores of patches; see `UNetDecoder`."""

    width: Width


class Square(Closed):
    """How a data set brings a photograph to the square that networks see; `resize` None is their size."""

    fit: Literal["crop", "squash"] = "crop"
    resize: Side | None = None
    # Not said where it is bicubic, as files of before it was said have it.
    interpolation: Annotated[Literal["bicubic", "bilinear"], Field(exclude_if=lambda way: way == "bicubic")] = "bicubic"


class Lineage(Closed):
    """What made a file: the version of this framework, the seed, and the fingerprint of the base weights.

    `base` is empty where nobody knows what a network was fine-tuned from.
    """

    version: Text = __version__
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    base: Text = ""


class Spec(Closed):
    """All that a file says of itself: enough to build its network and to give it a picture.

    `removal` is how patches are removed where nobody asks for another way; `square` how the pictures that it was
    trained on became squares, where they were photographs.
    """

    format: Literal[1] = 1
    kind: Kind
    model: Model
    data: Text
    classes: Annotated[tuple[Annotated[str, Field(max_length=1000)], ...], Field(min_length=1, max_length=100_000)]
    removal: Removal | None = None
    decoder: TokenDecoder | None = None
    ranking: PixelExplainer | None = None
    unet: UNet | None = None
    square: Square | None = None
    made_by: Lineage = Lineage()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        family = family_of(self.model).name
        if family not in _ONLY.get(self.kind, (family,)) or (self.kind == "ranking" and family == "clip"):
            raise ValueError(f"there is no {self.kind} of family {family}")
        if (self.decoder is None) == (self.kind in ("salvage", "vit_shapley")):
            raise ValueError(f"a {self.kind} has {'a' if self.decoder is None else 'no'} decoder")
        if self.kind != "salvage" and self.decoder and (self.decoder.anchored or self.decoder.temperature != 1):
            raise ValueError(f"a {self.kind} has neither an anchor nor a temperature")
        if (self.ranking is None) == (self.kind == "ranking"):
            raise ValueError(f"a {self.kind} and ranking settings do not go together")
        if (self.unet is None) == (self.kind == "fast_shap"):
            raise ValueError(f"a {self.kind} and a U-Net do not go together")
        if isinstance(self.model, NetworkParams):
            self.model.outputs(len(self.classes))
        return self

    @property
    def side(self) -> int:
        """What a photograph is brought to before its middle is cut out: as in training, or as it was published."""
        if self.square is None:
            return self.model.resized
        return max(self.square.resize or 0, self.model.image_size)

    @property
    def fit(self) -> str:
        """`crop` or `squash`; see `side`."""
        return "crop" if self.square is None else self.square.fit

    @property
    def interpolation(self) -> str:
        """`bicubic` or `bilinear`, how a photograph is resized."""
        return "bicubic" if self.square is None else self.square.interpolation

    @property
    def explains(self) -> bool:
        """Whether the network has learned, or been given, explanations."""
        return self.kind in ("self_explaining", "salvage", "vit_shapley", "fast_shap", "ranking")


def describe(
    params: Geometry,
    kind: str,
    data: str | OpenData,
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
        data: The data set it was trained on, or its name where there is no more to be had of it.
        classes: Names of its classes.
        seed: Of its training.
        base: Fingerprint of the base weights.
        more: `removal`, and `decoder`, `ranking` or `unet` of an explainer.
    """
    named, square = (data, None) if isinstance(data, str) else (data.name, square_of(data.spec))
    values = {"kind": kind, "model": params, "data": named, "classes": tuple(classes), "square": square}
    return Spec.model_validate({**values, "made_by": Lineage(seed=seed, base=base), **more})


def square_of(settings: Mapping[str, Any]) -> Square | None:
    """What the settings of a data set say of its photographs; None of one that draws its images."""
    how = {key: settings[key] for key in ("fit", "resize", "interpolation") if settings.get(key) is not None}
    return Square(**how) if "fit" in settings else None
