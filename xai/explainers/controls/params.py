"""What controls have to be told: on patches or on pixels."""

from dataclasses import dataclass

from xai.core.errors import UserError
from xai.explainers.registry import ExplainerParams


@dataclass(frozen=True)
class ControlParams(ExplainerParams):
    """What the map is of.

    Args:
        resolution: `patch` for a map on the classifier's patch grid, `pixel` for one of the size of the image.
    """

    resolution: str = "patch"

    def __post_init__(self) -> None:
        """Refuse what is neither."""
        if self.resolution not in ("patch", "pixel"):
            raise UserError(f"resolution={self.resolution} is unknown: use patch or pixel")

    @property
    def of_pixels(self) -> bool:
        """Whether maps are of pixels."""
        return self.resolution == "pixel"
