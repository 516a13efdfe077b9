"""A classifier of somebody's, of which no more is known than the name of its architecture in timm or torchvision."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import open_clip
import timm
import torch
import torchvision
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import Field
from torch import nn

from xai.core.settings import FieldError, settings, unknown
from xai.data.images import crop_of
from xai.models.families import CELLS, Geometry, Text, is_of_timm, register
from xai.models.weights import read_weights, without_prefix

_IMAGENET: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop": 0.875}
"""How photographs are seen where the library publishes no weights that say it."""
_HALVES: dict[str, Any] = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
INCEPTIONS = ("googlenet", "inception_v3")
"""Networks of torchvision with heads that only their training asks, that make `_HALVES` of ImageNet's normalisation
themselves where they are built with weights (`transform_input`). Here they are built without, and get that at once."""


@register(
    "named", about="a network that model.architecture names (of timm or torchvision)", example="efficientnet_lite0"
)
@settings
class NamedParams(Geometry):
    """A classifier that others have built and trained.

    Args:
        architecture: Its name in timm, torchvision or open_clip.
        crop: Share of a photograph's short side that it sees; above 1 with a black border around.
        fit: `crop` resizes the short side before the middle is cut out; `squash` both.
        interpolation: How a photograph is resized.
    """

    architecture: Text
    crop: Annotated[float, Field(gt=0.01, le=1.5)] = 1.0
    fit: Literal["crop", "squash"] = "crop"
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"

    def __post_init__(self) -> None:
        """Refuse names that neither library knows."""
        super().__post_init__()
        if not is_known(self.architecture):
            raise FieldError("architecture", unknown_architecture(self.architecture))


def named_settings(architecture: Any, given: Mapping[str, Any], checkpoint: Path | None = None) -> dict[str, Any]:
    """Settings of `NamedParams`: those that are given, the others as the library has them that the weights are of.

    Raises:
        UserError: The weights have to be looked at, and cannot be read.
    """
    if architecture in open_clip.list_models():
        return _of_clip(architecture, given)
    found = {"image_size": 224, **_published(str(architecture), checkpoint)}
    size = given.get("image_size", found["image_size"])
    cells = default_cells(size) if isinstance(size, int) and size > 0 else CELLS
    shape = {"image_size": size, "patch_size": size // cells if isinstance(size, int) else size}
    return {"family": "named", "name": architecture, **found, **shape, **given, "architecture": architecture}


def of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """How photographs are seen, as timm says it of a network; `fit` is `border` where timm fills one with the mean."""
    fit = config.get("crop_mode") or "center"
    return {
        "mean": config.get("mean"),
        "std": config.get("std"),
        "image_size": (config.get("input_size") or (3, 224, 224))[-1],
        "crop": config.get("crop_pct") or 1.0,
        "fit": "crop" if fit == "center" else fit,
        "interpolation": config.get("interpolation") or "bicubic",
    }


def of_weights(architecture: str, file: str | None) -> dict[str, Any]:
    """How photographs are seen, as torchvision says it of its weights: of those in a file of this name, or its first.

    None of those, or another name where timm knows the architecture too: what all of ImageNet's are seen with.
    """
    known = list(torchvision.models.get_model_weights(architecture)) if architecture in of_torchvision() else []
    chosen = next((each for each in known if each.url.rpartition("/")[2] == file), known[0] if known else None)
    if chosen is None:
        return dict(_IMAGENET)
    seen = chosen.transforms()
    (size,), (side,) = seen.crop_size, seen.resize_size
    shape = {"image_size": size, "crop": crop_of(size, side), "interpolation": seen.interpolation.value}
    channels = {"mean": tuple(seen.mean), "std": tuple(seen.std)}
    return {**(_HALVES if architecture in INCEPTIONS else channels), **shape}


def is_torchvisions(architecture: str, file: str | None) -> bool:
    """Whether a file is called as one that torchvision publishes for the architecture."""
    known = torchvision.models.get_model_weights(architecture) if architecture in of_torchvision() else ()
    return any(each.url.rpartition("/")[2] == file for each in known)


def _published(architecture: str, checkpoint: Path | None) -> dict[str, Any]:
    name = None if checkpoint is None else checkpoint.name
    of_timm = is_of_timm(architecture) and not is_torchvisions(architecture, name)
    if of_timm and checkpoint is not None and architecture in of_torchvision():
        # Both know the name, and some of these networks call their tensors otherwise.
        with torch.device("meta"):
            wanted = timm.create_model(architecture).state_dict()
        of_timm = _has(read_weights(checkpoint).tensors, wanted)
    # Of names that it has given up timm builds the network, and says no more.
    said: Any = timm.get_pretrained_cfg(architecture) if of_timm else None
    return of_config(vars(said) if said else {}) if of_timm else of_weights(architecture, name)


def _has(tensors: Mapping[str, Any], wanted: Collection[str]) -> bool:
    return set(without_prefix(tensors, wanted)) >= {name for name in wanted if not name.endswith("num_batches_tracked")}


def _of_clip(architecture: str, given: Mapping[str, Any]) -> dict[str, Any]:
    shape = (open_clip.get_model_config(architecture) or {})["vision_cfg"]
    found = {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD}
    own = {"image_size": shape.get("image_size", 224), "patch_size": shape.get("patch_size") or 32}
    return {"family": "named", "name": architecture, **found, **own, **given, "architecture": architecture}


def default_cells(size: int) -> int:
    """The number of patches nearest to seven that divides a side of so many pixels."""
    return min((n for n in range(1, size + 1) if size % n == 0), key=lambda n: (abs(n - CELLS), -n))


def unknown_architecture(name: str) -> str:
    """The end of the line that says so, with the nearest name."""
    known = [*timm.list_models(), *of_torchvision(), *open_clip.list_models()]
    return unknown("", name, known, "architecture of timm, torchvision or open_clip")


def of_torchvision() -> list[str]:
    """Names of torchvision's classifiers."""
    return list(torchvision.models.list_models(module=torchvision.models))


def torchvisions(architecture: str, outputs: int | None = None, size: int | None = None) -> nn.Module | None:
    """A network of torchvision with random weights, without heads that only a training asks; None: it has none."""
    if architecture not in of_torchvision():
        return None
    settings: dict[str, Any] = {} if outputs is None else {"num_classes": outputs}
    if size is not None and architecture.startswith("vit_"):
        settings["image_size"] = size
    if architecture in INCEPTIONS:
        settings |= {"aux_logits": False, "init_weights": False}
    return torchvision.models.get_model(architecture, weights=None, **settings)


def is_known(name: str) -> bool:
    """Whether timm, torchvision or open_clip has an architecture of this name."""
    return is_of_timm(name) or name in of_torchvision() or name in open_clip.list_models()
