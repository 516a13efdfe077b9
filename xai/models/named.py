"""A classifier of somebody's, of which no more is known than the name of its architecture in timm or torchvision."""

from collections.abc import Mapping
from typing import Annotated, Any

import open_clip
import timm
import torchvision
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from pydantic import Field

from xai.core.settings import FieldError, settings, unknown
from xai.models.families import register
from xai.models.geometry import Geometry, Text

TORCHVISION: dict[str, Any] = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "crop": 0.875}
"""What torchvision's own weights were trained with."""
_CELLS = 7


@register(
    "named", about="a network that model.architecture names (of timm or torchvision)", example="efficientnet_lite0"
)
@settings
class NamedParams(Geometry):
    """A classifier that others have built and trained.

    Args:
        architecture: Its name in timm, torchvision or open_clip.
        crop: Share of a photograph's short side that it sees.
    """

    architecture: Text
    crop: Annotated[float, Field(gt=0.01, le=1)] = 1.0

    def __post_init__(self) -> None:
        """Refuse names that neither library knows."""
        super().__post_init__()
        if not _is_known(self.architecture):
            raise FieldError("architecture", unknown_architecture(self.architecture))

    @property
    def resized(self) -> int:
        """What the short side of a photograph is resized to before its middle is cut out."""
        return round(self.image_size / self.crop)


def named_settings(architecture: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of `NamedParams`: those that are given, the others as timm, or else torchvision, has them."""
    published = timm.get_pretrained_cfg(architecture) if timm.is_model(str(architecture)) else None
    found = dict(TORCHVISION)
    if published is not None:
        found = {"mean": published.mean, "std": published.std, "crop": published.crop_pct}
    size = given.get("image_size", 224 if published is None else published.input_size[-1])
    if architecture in open_clip.list_models():
        return _of_clip(architecture, given)
    cells = default_cells(size) if isinstance(size, int) and size > 0 else _CELLS
    shape = {"image_size": size, "patch_size": size // cells if isinstance(size, int) else size}
    return {"family": "named", "name": architecture, **found, **shape, **given, "architecture": architecture}


def _of_clip(architecture: str, given: Mapping[str, Any]) -> dict[str, Any]:
    shape = (open_clip.get_model_config(architecture) or {})["vision_cfg"]
    found = {"mean": OPENAI_DATASET_MEAN, "std": OPENAI_DATASET_STD, "crop": 1.0}
    own = {"image_size": shape.get("image_size", 224), "patch_size": shape.get("patch_size") or 32}
    return {"family": "named", "name": architecture, **found, **own, **given, "architecture": architecture}


def default_cells(size: int) -> int:
    """The number of patches nearest to seven that divides a side of so many pixels."""
    return min((n for n in range(1, size + 1) if size % n == 0), key=lambda n: (abs(n - _CELLS), -n))


def unknown_architecture(name: str) -> str:
    """The end of the line that says so, with the nearest name."""
    known = [*timm.list_models(), *of_torchvision(), *open_clip.list_models()]
    return unknown("", name, known, "architecture of timm, torchvision or open_clip")


def of_torchvision() -> list[str]:
    """Names of torchvision's classifiers."""
    return list(torchvision.models.list_models(module=torchvision.models))


def _is_known(name: str) -> bool:
    return timm.is_model(name) or name in of_torchvision() or name in open_clip.list_models()
