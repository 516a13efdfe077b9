"""How a square image is cut into patches, and how its pixels are normalised: what the settings of all models share."""

import timm

from xai.core.settings import Channels, Count, Deviations, FieldError, settings, unknown


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

    name: str
    image_size: Count
    patch_size: Count
    mean: Channels
    std: Deviations

    def __post_init__(self) -> None:
        """Refuse patches that do not cover the image, and a single one."""
        if self.image_size % self.patch_size:
            fitting = max(1, round(self.image_size / self.patch_size)) * self.patch_size
            raise FieldError(
                "patch_size", f"does not divide image_size={self.image_size}: the nearest size that fits is {fitting}"
            )
        if self.image_size == self.patch_size:
            raise FieldError(
                "patch_size",
                f"makes one patch of image_size={self.image_size}, and an explanation compares patches: use "
                f"{self.image_size // 2} at most",
            )

    @property
    def grid(self) -> int:
        """Patches along a side."""
        return self.image_size // self.patch_size


def check_architecture(name: str, pattern: str = "") -> None:
    """Refuse architectures that timm does not know; of those like `pattern` the nearest is suggested.

    Raises:
        FieldError: For the settings to complete.
    """
    if not timm.is_model(name):
        raise FieldError("architecture", unknown("", name, timm.list_models(pattern), "network of timm"))
