"""Settings of all explainers that play the game of an image's patches."""

from dataclasses import dataclass

from xai.explainers.registry import OutputParams
from xai.models.maskable import Removal


@dataclass(frozen=True)
class GameParams(OutputParams):
    """Which game is played.

    Args:
        output: Its value, what is explained: the `logit` or the `probability` of a class.
        removal: How the players that are absent, patches, are removed.
    """

    removal: Removal

    @property
    def classifier_removal(self) -> Removal:
        """How the classifier removes patches."""
        return self.removal
