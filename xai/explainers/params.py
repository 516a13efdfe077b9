"""Settings that several explainers share: patches or pixels, which output is explained, which game is played."""

from dataclasses import KW_ONLY
from typing import Literal

from xai.core.settings import settings
from xai.explainers.registry import ExplainerParams
from xai.models.maskable import Removal


@settings
class MapParams(ExplainerParams):
    """What a map is of.

    Args:
        resolution: `patch` for a map on the classifier's patch grid, `pixel` for one of the size of the image.
    """

    _: KW_ONLY
    resolution: Literal["patch", "pixel"] = "patch"

    @property
    def of_pixels(self) -> bool:
        """Whether maps are of pixels."""
        return self.resolution == "pixel"


@settings
class OutputParams(ExplainerParams):
    """What is explained.

    Args:
        output: The `logit` or the `probability` of a class, or the `centred_logit`: less the mean over classes.
    """

    output: Literal["logit", "probability", "centred_logit"]


@settings
class GameParams(OutputParams):
    """Which game is played.

    Args:
        removal: How the players that are absent, patches, are removed; null removes them as the case does in which the
            classifier is explained.
    """

    removal: Removal | None

    @property
    def classifier_removal(self) -> Removal | None:
        """How the classifier removes patches; None as it does anyway."""
        return self.removal
