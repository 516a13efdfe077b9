"""Settings of all explainers that play the game of an image's patches."""

from dataclasses import dataclass

from xai.errors import UserError
from xai.explainers.registry import ExplainerParams
from xai.models.maskable import Removal


@dataclass(frozen=True)
class GameParams(ExplainerParams):
    """Which game is played.

    Args:
        output: Its value, what is explained: the `logit` or the `probability` of a class.
        removal: How the players that are absent, patches, are removed.
    """

    output: str
    removal: Removal

    def __post_init__(self) -> None:
        """Refuse settings that cannot be computed."""
        if self.output not in ("logit", "probability"):
            raise UserError(f"supervision.output={self.output} is unknown: use logit or probability")

    @property
    def classifier_removal(self) -> Removal:
        """How the classifier removes patches."""
        return self.removal
