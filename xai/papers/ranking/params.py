"""Settings of Learn to Rank: the explainer, and its refinement."""

from dataclasses import asdict
from typing import Any

from xai.core.optimisation import FitParams
from xai.core.settings import Channels, Deviations, settings
from xai.methods.ranking import RankingLoss
from xai.models.dpt import DecoderParams
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
    mean: Channels = (0.485, 0.456, 0.406)
    std: Deviations = (0.229, 0.224, 0.225)
    pretrained: bool = True
    weights: str | None = None


@settings
class RankingParams:
    """The explainer.

    Args:
        backbone: What it looks through.
        levels: Which of its features: blocks of a transformer, stages of a CNN, counted from 0.
        decoder: What is trained.
        objective: What its maps are judged by.
        loss: Which classes they are drawn for.
        fit: The optimisation.
    """

    backbone: BackboneParams
    levels: tuple[int, ...]
    decoder: DecoderParams
    objective: ObjectiveParams
    loss: RankingLoss
    fit: FitParams


@settings
class RefinementSettings(RefinementParams):
    """How maps are refined, and by what.

    Args:
        steps: T, gradient steps; the most that any row asks for.
        draws: Random grids, references and noises that a step's gradient is averaged over.
        size: Length of a step of the map, in standard deviations of the map it starts from.
        sigma: Smoothing of the gradient, in pixels.
        temperature: Of the soft order.
        learning_rate: Of Adam, where the decoder is refined.
        objective: What is improved.
    """

    objective: ObjectiveParams


def numbers_of(params: RankingParams | RefinementSettings) -> dict[str, Any]:
    """Settings that change numbers: how many images pass at once, and where weights lie, do not."""
    settings = asdict(params)
    settings["objective"].pop("chunk")
    settings.get("backbone", {}).pop("weights", None)
    return settings
