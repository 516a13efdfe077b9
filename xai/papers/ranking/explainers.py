"""Learn to Rank's explainer, trained when it is asked for, and maps of any explainer refined at test time."""

from dataclasses import fields
from typing import Literal

import torch

from xai.classifiers.networks import ClassifierStages
from xai.core.errors import UserError
from xai.core.settings import FieldError, Positive, Whole, settings
from xai.explainers.block import BlockExplainer, Explainer
from xai.explainers.learned.networks import Ranking
from xai.explainers.learned.refined import RefinedDecoder, RefinedMaps
from xai.explainers.registry import Context, ExplainerParams, Prepared, explainer, refusal
from xai.papers.ranking.networks import RankingStages
from xai.papers.ranking.params import RankingParams, RefinementSettings, numbers_of


@settings
class RankingSettings(RankingParams, ExplainerParams):
    """The ranking explainer as a row; see `RankingParams`."""

    @property
    def of_pixels(self) -> bool:
        """Its maps are of pixels."""
        return True


def ranking_networks(context: Context, params: RankingSettings) -> RankingStages:
    """What trains the explainer of a case's classifier.

    Raises:
        UserError: The classifier is none that this framework trains, or loads with the data set it was trained on.
    """
    networks = context.model.networks
    if not isinstance(networks, ClassifierStages):
        raise UserError(
            f"ranking learns from the features of a vision transformer or a CNN, and model={context.model.name} is none"
        )
    own = {field.name: getattr(params, field.name) for field in fields(RankingParams)}
    return RankingStages(networks, RankingParams(**own))


@explainer(
    "ranking",
    label="Ranking",
    about="one pass of a network that was trained on deletion and insertion themselves, through a sort with a gradient",
    params=RankingSettings,
    kind="trained",
    needs={"training", "features"},
    passes=lambda params, players: 4.0 if params.decoder.gradient else 1.0,
    check=lambda context, params: ranking_networks(context, params),
)
def ranking(context: Context, params: RankingSettings) -> Prepared:
    """Learn to Rank, trained on the data set of the case against its classifier."""
    networks = ranking_networks(context, params)
    artifact = networks.trained(networks.params)
    notes = {"train_seconds": artifact.seconds, "path_steps": float(params.objective.steps)}
    return Prepared({"ranking": artifact.key}, lambda: Ranking(networks.explainer(networks.params)), notes=notes)


@settings
class RefinedSettings(RefinementSettings, ExplainerParams):
    """Maps after some gradient steps; see `RefinementSettings` for how they are made.

    Args:
        of: The row whose maps are refined.
        step: After how many steps; 0 is where it starts, `steps` the most.
        what: `maps`, or the `decoder` of the ranking explainer that draws them.
        scale: Deviation that the maps are brought to before the first step; null leaves them as they are.
    """

    of: str
    step: Whole
    what: Literal["maps", "decoder"] = "maps"
    scale: Positive | None = None

    def __post_init__(self) -> None:
        """Refuse steps that the path does not have."""
        if self.step > self.steps:
            raise FieldError("step", f"must be at most steps={self.steps}: raise that")

    @property
    def of_pixels(self) -> bool:
        """Refined maps are of pixels, whatever they start from."""
        return True


def _check(context: Context, params: RefinedSettings) -> None:
    size = context.model.image_size
    params.objective.check_size(size, size)
    row = context.row(params.of)
    if params.what == "decoder" and row.entry.name != "ranking":
        raise UserError(
            f"what=decoder refines the ranking explainer's decoder, and {params.of} has none: use what=maps"
        )
    if reason := refusal(row.entry, row.params, context):
        raise UserError(f"it refines {params.of}, which cannot be had here: {reason}")


@explainer(
    "refined",
    label="Refined",
    about="maps of another row, moved along the gradient of their own deletion and insertion",
    params=RefinedSettings,
    kind="refined",
    needs={"gradients"},
    passes=lambda params, players: 1.0 + 3.0 * params.step * params.draws * 2 * params.objective.steps,
    check=_check,
)
def refined(context: Context, params: RefinedSettings) -> Prepared:
    """The maps of a row after 0, 1, ... T steps; one path serves the rows of all its steps."""
    row = context.row(params.of)
    source = row.entry.prepare(context, row.params)
    how = RefinementSettings(**{field.name: getattr(params, field.name) for field in fields(RefinementSettings)})
    mean = torch.tensor(context.model.mean)

    def build() -> RefinedDecoder | RefinedMaps:
        start = source.build()
        if params.what == "decoder":
            assert isinstance(start, Ranking)
            return RefinedDecoder(start.network, context.network(), mean, how.objective, how)
        return RefinedMaps(_picked(start, source.pick), context.network(), mean, how.objective, how, params.scale)

    made_from = {
        "name": "refined",
        "of": dict(source.made_from),
        "pick": source.pick,
        "what": params.what,
        "scale": params.scale,
        **numbers_of(how),
    }
    return Prepared(made_from, build, pick=params.step, notes={**source.notes, "step": float(params.step)})


def _picked(start: Explainer | BlockExplainer, pick: int | None) -> Explainer | BlockExplainer:
    if pick is not None:
        raise UserError("of names a refined row: refine what it starts from, by more steps")
    return start
