"""Settings that several explainers share: which output is explained, and which game is played."""

from typing import Literal

from xai.core.settings import settings
from xai.explainers.registry import ExplainerParams
from xai.models.maskable import Removal


@settings
class OutputParams(ExplainerParams):
    """Settings of an explainer that explains one of a class's two outputs.

    Args:
        output: What is explained: the `logit` or the `probability` of a class.
    """

    output: Literal["logit", "probability"]


@settings
class GameParams(OutputParams):
    """Which game is played.

    Args:
        output: Its value, what is explained: the `logit` or the `probability` of a class.
        removal: How the players that are absent, patches, are removed; null removes them as the case does in which the
            classifier is explained.
    """

    removal: Removal | None

    @property
    def classifier_removal(self) -> Removal | None:
        """How the classifier removes patches; None as it does anyway."""
        return self.removal
