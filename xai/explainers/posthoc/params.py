"""Settings that several explainers share: which output is explained, and which game is played."""

from dataclasses import dataclass

from xai.core.errors import UserError
from xai.explainers.registry import ExplainerParams
from xai.models.maskable import Removal


@dataclass(frozen=True)
class OutputParams(ExplainerParams):
    """Settings of an explainer that explains one of a class's two outputs.

    Args:
        output: What is explained: the `logit` or the `probability` of a class.
    """

    output: str

    def __post_init__(self) -> None:
        """Refuse outputs that no classifier has."""
        if self.output not in ("logit", "probability"):
            raise UserError(f"output={self.output} is unknown: use logit or probability")


@dataclass(frozen=True)
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
