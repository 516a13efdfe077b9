"""What controls have to be told: on patches or on pixels."""

from typing import Literal

from xai.core.settings import settings
from xai.explainers.registry import ExplainerParams


@settings
class ControlParams(ExplainerParams):
    """What the map is of.

    Args:
        resolution: `patch` for a map on the classifier's patch grid, `pixel` for one of the size of the image.
    """

    resolution: Literal["patch", "pixel"] = "patch"

    @property
    def of_pixels(self) -> bool:
        """Whether maps are of pixels."""
        return self.resolution == "pixel"
