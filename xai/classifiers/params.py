"""Settings of what is trained around a vision transformer: classifier, surrogate, and the two learned explainers."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from xai.core.optimisation import FitParams
from xai.core.settings import Count, EvenCount, FieldError, Positive, Share, settings
from xai.models.explainer import Decoder
from xai.models.families import Heads, Width
from xai.shapley.masks import Sampling

Portion = Annotated[float, Field(gt=0, le=1)]


@settings
class ClassifierParams:
    """The classifier that is explained.

    Args:
        focus: Share of the steps over which a curriculum brings the background back; 0 where regions are not known.
        fit: Its optimisation.
        checkpoint: A file with a trained classifier of `model`, head included: one of this framework, or a timm state
            dict; null trains one.
    """

    focus: Share
    fit: FitParams
    checkpoint: str | None = None


@settings
class SurrogateParams:
    """Its fine-tuning on masked images.

    Args:
        teacher: What it learns to predict: `classifier` (the classifier's prediction of the whole image) or `labels`.
        sizes: Different mask sizes in a batch.
        fit: Its optimisation.
    """

    teacher: Literal["classifier", "labels"]
    sizes: Count
    fit: FitParams


@settings
class ExplainerFit:
    """What both learned explainers have.

    Args:
        masks: Coalitions an image and step; even, because half of them complement the other half.
        decoder: `mask_transformer` (as in the paper) or `linear`.
        depth: Its blocks.
        heads: Attention heads of each.
        fit: Its optimisation.
        snapshots: Shares of the steps after which its network is kept as well.
    """

    masks: EvenCount
    decoder: Decoder
    depth: Annotated[int, Field(ge=1, le=64)]
    heads: Heads
    fit: FitParams
    snapshots: tuple[Portion, ...] = ()

    def __post_init__(self) -> None:
        """Refuse mixed masks that cannot be halved twice."""
        if getattr(self, "sampling", None) == "mixed" and self.masks % 4:
            raise FieldError("masks", "must be a multiple of 4 with sampling=mixed: each half of them is halved again")


@settings
class SalvageParams(ExplainerFit):
    """SALVAGE.

    Args:
        sampling: How masks are drawn, see `xai.shapley.masks`; `informed` in the paper.
        temperature: Of the Shapley distribution; 1 in the paper.
        divergence: `jensen_shannon`, as in the paper, or `kullback_leibler`.
        anchored: Whether u of no patch is the surrogate's own answer, and phi- one constant (ours), or phi- is learned
            for every patch, as in the paper.
    """

    kind: ClassVar[str] = "salvage"
    sampling: Sampling = "informed"
    temperature: Positive = 1.0
    divergence: Literal["jensen_shannon", "kullback_leibler"] = "jensen_shannon"
    anchored: bool = False


@settings
class VitShapleyParams(ExplainerFit):
    """ViT-Shapley.

    Args:
        sampling: How masks are drawn, see `xai.shapley.masks`: of the Shapley kernel (`paired` as published,
            `shapley_kernel`), or by the explainer's own attributions (`informed`, `mixed`).
        weighted: Whether the latter are weighed back to the kernel, without which no Shapley values are learned.
    """

    kind: ClassVar[str] = "vit_shapley"
    sampling: Literal["paired", "shapley_kernel", "informed", "mixed"] = "paired"
    weighted: bool = True


@settings
class FastShapParams:
    """FastSHAP.

    Args:
        masks: Coalitions an image and step; even, because half of them complement the other half.
        width: Channels of its decoder.
        fit: Its optimisation.
    """

    kind: ClassVar[str] = "fast_shap"
    snapshots: ClassVar[tuple[float, ...]] = ()
    masks: EvenCount
    width: Width
    fit: FitParams
