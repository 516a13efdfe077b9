"""Settings of what is trained around a vision transformer: classifier, surrogate, and the two learned explainers."""

from dataclasses import dataclass
from typing import ClassVar

from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.models.segmenter import DECODERS
from xai.shapley.distribution import DIVERGENCES


@dataclass(frozen=True)
class ClassifierParams:
    """The classifier that is explained.

    Args:
        focus: Share of the steps over which a curriculum brings the background back; 0 where regions are not known.
        fit: Its optimisation.
        checkpoint: A file with a trained classifier of `model`, head included: one of this framework, or a timm state
            dict; null trains one.
    """

    focus: float
    fit: FitParams
    checkpoint: str | None = None

    def __post_init__(self) -> None:
        """Refuse a focus that is no share."""
        if not 0 <= self.focus <= 1:
            raise UserError(f"classifier.focus={self.focus} is a share of the steps: it must lie between 0 and 1")


@dataclass(frozen=True)
class SurrogateParams:
    """Its fine-tuning on masked images.

    Args:
        teacher: What it learns to predict: `classifier` (the classifier's prediction of the whole image) or `labels`.
        sizes: Different mask sizes in a batch.
        fit: Its optimisation.
    """

    teacher: str
    sizes: int
    fit: FitParams

    def __post_init__(self) -> None:
        """Refuse settings that cannot be computed."""
        if self.teacher not in ("classifier", "labels"):
            raise UserError(f"surrogate.teacher={self.teacher} is unknown: use classifier or labels")
        if self.sizes < 1:
            raise UserError(f"surrogate.sizes={self.sizes} must be at least 1")


@dataclass(frozen=True)
class ExplainerFit:
    """What both learned explainers have.

    Args:
        masks: Coalitions an image and step; even.
        decoder: `mask_transformer` (as in the paper) or `linear`.
        depth: Its blocks.
        heads: Attention heads of each.
        fit: Its optimisation.
    """

    group: ClassVar[str]
    """The configuration group the settings stand in, for messages."""

    masks: int
    decoder: str
    depth: int
    heads: int
    fit: FitParams

    def __post_init__(self) -> None:
        """Refuse settings that cannot be computed."""
        if self.masks < 2 or self.masks % 2:
            raise UserError(
                f"{self.group}.masks={self.masks} must be even and at least 2: half of them complement the other half"
            )
        if self.decoder not in DECODERS:
            raise UserError(f"{self.group}.decoder={self.decoder} is unknown: use {' or '.join(DECODERS)}")
        for name in ("depth", "heads"):
            if getattr(self, name) < 1:
                raise UserError(f"{self.group}.{name}={getattr(self, name)} must be at least 1")


@dataclass(frozen=True)
class SalvageParams(ExplainerFit):
    """SALVAGE.

    Args:
        sampling: `informed`, `uniform` or `shapley_kernel`.
        temperature: Of the Shapley distribution; 1 in the paper.
        divergence: `jensen_shannon`, as in the paper, or `kullback_leibler`.
    """

    group: ClassVar[str] = "salvage"

    sampling: str = "informed"
    temperature: float = 1.0
    divergence: str = "jensen_shannon"

    def __post_init__(self) -> None:
        """Refuse settings that cannot be computed."""
        super().__post_init__()
        if self.sampling not in ("informed", "uniform", "shapley_kernel"):
            raise UserError(f"salvage.sampling={self.sampling} is unknown: use informed, uniform or shapley_kernel")
        if not 0 < self.temperature < float("inf"):
            raise UserError(f"salvage.temperature={self.temperature} must be above 0")
        if self.divergence not in DIVERGENCES:
            raise UserError(f"salvage.divergence={self.divergence} is unknown: use {' or '.join(DIVERGENCES)}")


@dataclass(frozen=True)
class VitShapleyParams(ExplainerFit):
    """ViT-Shapley; it has no settings of its own."""

    group: ClassVar[str] = "vit_shapley"
