"""How a square image is cut into patches, and how its pixels are normalised: what the settings of all models share."""

from typing import Annotated

import timm
from pydantic import Field

from xai.core.settings import Count, FieldError, OneLine, settings, unknown

# A file brings its settings from a stranger, so all of them have bounds: nothing is built that no machine could hold.
Size = Annotated[int, Field(ge=1, le=4096)]
Width = Annotated[int, Field(ge=1, le=2**14)]
Depth = Annotated[int, Field(ge=1, le=256)]
Heads = Annotated[int, Field(ge=1, le=256)]
Scale = Annotated[float, Field(ge=-1e3, le=1e3)]
Text = Annotated[str, Field(max_length=200), OneLine]
Means = Annotated[tuple[Annotated[float, Field(ge=-100, le=100)], ...], Field(min_length=3, max_length=3)]
Deviations = Annotated[tuple[Annotated[float, Field(gt=0, le=100)], ...], Field(min_length=3, max_length=3)]

_MOST_PATCHES = 2**16


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
    image_size: Size
    patch_size: Count
    mean: Means
    std: Deviations

    def __post_init__(self) -> None:
        """Refuse patches that do not cover the image, a single one, and more than anybody asks for."""
        if self.image_size % self.patch_size:
            divisors = [size for size in range(1, self.image_size) if self.image_size % size == 0] or [1]
            nearest = min(divisors, key=lambda size: abs(size - self.patch_size))
            fitting = round(self.image_size / self.patch_size) * self.patch_size
            wider = f", or image_size={fitting}" if fitting > self.patch_size else ""
            raise FieldError(
                "patch_size", f"does not divide image_size={self.image_size}: use patch_size={nearest}{wider}"
            )
        if self.image_size == self.patch_size:
            raise FieldError(
                "patch_size",
                f"makes one patch of image_size={self.image_size}, and an explanation compares patches: use "
                f"{self.image_size // 2} at most",
            )
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
        return self.image_size


def check_architecture(name: str, pattern: str = "") -> None:
    """Refuse architectures that timm does not know; of those like `pattern` the nearest is suggested.

    Raises:
        FieldError: For the settings to complete.
    """
    if not timm.is_model(name):
        raise FieldError("architecture", unknown("", name, timm.list_models(pattern), "network of timm"))
