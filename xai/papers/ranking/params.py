"""Settings of Learn to Rank: the explainer, and the refinement of maps at test time."""

from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field

from xai.core.optimisation import LastFit
from xai.core.settings import Count, Distinct, FieldError, NonNegative, Positive, Several, Share, Whole, settings
from xai.explainers.registry import ExplainerParams
from xai.methods.ranking import RankingLoss
from xai.models.dpt import DecoderParams
from xai.models.families import Deviations, Means
from xai.ranking.objective import ObjectiveParams
from xai.ranking.refinement import RefinementParams


@settings
class BackboneParams:
    """What an explainer looks through, where that is not the classifier itself.

    Args:
        architecture: timm's name of a network; null takes the features of the classifier that is explained.
        mean: Channel means of its input normalisation.
        std: Channel deviations of it.
        pretrained: Fetch timm's published weights from the hub.
        weights: A local file of timm weights.
    """

    architecture: str | None = None
    mean: Means = (0.485, 0.456, 0.406)
    std: Deviations = (0.229, 0.224, 0.225)
    pretrained: bool = True
    weights: str | None = None


@settings
class CorrectionParams:
    """How much of what training added to the paths is kept; see `xai.papers.ranking.correction`.

    Args:
        shares: What is tried: 0 are the paths alone, 1 is all that was trained.
        images: On how many validation images, drawn with the seed.
        within: How much less than the best of them, of insertion less deletion (-1 to 1), is as good: the largest share
            that is as good is kept.
        steps: Points of a curve; 21 are every 5 % of the pixels.
    """

    shares: Annotated[tuple[Share, ...], Field(min_length=1, max_length=100), Distinct]
    images: Count
    within: NonNegative = 0.01
    steps: Several = 21


class _OfPixels(ExplainerParams):
    @property
    def of_pixels(self) -> bool:
        """Its maps are of pixels."""
        return True


@settings
class RankingSettings(_OfPixels):
    """The explainer.

    Args:
        backbone: What it looks through.
        levels: Which of its features: blocks of a transformer, stages of a CNN, counted from 0.
        decoder: What is trained.
        objective: What its maps are judged by.
        loss: Which classes they are drawn for.
        fit: The optimisation.
        correction: Where `decoder.skip` is set: how much of what is added to the paths is kept, found after the
            training; null keeps all. Not in the paper.
    """

    backbone: BackboneParams
    levels: tuple[int, ...]
    decoder: DecoderParams
    objective: ObjectiveParams
    loss: RankingLoss
    fit: LastFit
    correction: CorrectionParams | None = None

    def __post_init__(self) -> None:
        """Refuse to keep a share of what nothing is added to."""
        if self.correction is not None and not self.decoder.skip:
            raise FieldError("correction", "is of what is added to the paths: set decoder.skip=true, or null here")

    @property
    def numbers(self) -> dict[str, Any]:
        """Settings that change what is trained: how many images pass at once, and where weights lie, do not."""
        values = asdict(self)
        values.pop("correction")
        values["objective"].pop("chunk")
        values["backbone"].pop("weights")
        if not self.decoder.skip:
            values["decoder"].pop("skip")  # as before there was one
        return values


@settings
class RefinedSettings(RefinementParams, _OfPixels):
    """Maps of another row after some gradient steps.

    Args:
        objective: What is improved.
        of: The row whose maps are refined.
        step: After how many steps; 0 is where it starts, `steps` the most that any row asks for.
        what: `maps`, or the `decoder` of the ranking explainer that draws them.
        scale: Deviation that the maps are brought to before the first step; null leaves them as they are.
    """

    objective: ObjectiveParams
    of: str
    step: Whole
    what: Literal["maps", "decoder"] = "maps"
    scale: Positive | None = None

    def __post_init__(self) -> None:
        """Refuse steps that the path does not have."""
        if self.step > self.steps:
            raise FieldError("step", f"must be at most steps={self.steps}: raise that")

    @property
    def numbers(self) -> dict[str, Any]:
        """Settings that change the numbers of the whole path."""
        values = {name: value for name, value in asdict(self).items() if name not in ("of", "step")}
        values["objective"].pop("chunk")
        return values

    @property
    def passes_a_step(self) -> int:
        """Forward passes that a gradient step of an image costs, where a backward pass counts as two."""
        return 3 * self.draws * 2 * self.objective.steps
