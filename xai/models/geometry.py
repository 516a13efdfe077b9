"""How a square image is cut into patches, and how its pixels are normalised: what the settings of all models share."""

from collections.abc import Sequence

from xai.core.errors import UserError


def check_geometry(image_size: int, patch_size: int, mean: Sequence[float], std: Sequence[float]) -> None:
    """Refuse sizes that do not fit together, and a normalisation that is none.

    Args:
        image_size: Side of the image in pixels.
        patch_size: Side of a patch in pixels.
        mean: Channel means.
        std: Channel deviations.

    Raises:
        UserError: The patches do not cover the image, there is a single one, or channels are not three.
    """
    if image_size < 1 or patch_size < 1 or image_size % patch_size:
        fitting = max(1, round(image_size / max(patch_size, 1))) * max(patch_size, 1)
        raise UserError(
            f"model.patch_size={patch_size} does not divide model.image_size={image_size}: "
            f"the nearest size that fits is {fitting}"
        )
    if image_size == patch_size:
        raise UserError(
            f"model.patch_size={patch_size} makes one patch of model.image_size={image_size}, and an explanation "
            f"compares patches: use a patch_size of {image_size // 2} at most"
        )
    if len(mean) != 3 or len(std) != 3 or not all(deviation > 0 for deviation in std):
        raise UserError("model.mean and model.std need three channel values each, deviations above 0")
