"""Learn to Rank's explainer, trained when it is asked for, and maps of any explainer refined at test time."""

import torch

from xai.classifiers.networks import ClassifierStages
from xai.core.errors import UserError
from xai.explainers.learned.refined import RefinedDecoder, RefinedMaps
from xai.explainers.of_row import own_row_of
from xai.explainers.registry import Context, Prepared, explainer, passes_of
from xai.models import evidence
from xai.models.dense import DenseExplainer
from xai.papers.ranking.networks import RankingStages
from xai.papers.ranking.params import RankingSettings, RefinedSettings
from xai.ranking.refinement import Refinement


def ranking_networks(context: Context, params: RankingSettings) -> RankingStages:
    """What trains the explainer of a case's classifier.

    Raises:
        UserError: The classifier is none that this framework trains, or loads with the data set it was trained on; or
            a setting does not fit it. Nothing is trained before that is known.
    """
    networks = context.model.networks
    if not isinstance(networks, ClassifierStages):
        raise UserError(
            f"ranking learns from the features of a vision transformer or a CNN, and model={context.model.name} is none"
        )
    return RankingStages(networks, params)


@explainer(
    "ranking",
    label="Ranking",
    about="one pass of a network that was trained on deletion and insertion themselves, through a sort with a gradient",
    params=RankingSettings,
    kind="trained",
    needs={"training", "features"},
    passes=lambda params, players: 1.0 + evidence.passes(params.decoder.gradient),
    check=lambda context, params: ranking_networks(context, params).check(),
)
def ranking(context: Context, params: RankingSettings) -> Prepared:
    """Learn to Rank, trained on the data set of the case against its classifier."""
    networks = ranking_networks(context, params)
    artifact, kept = networks.trained, networks.kept
    notes = {"train_seconds": networks.seconds, "path_steps": float(params.objective.steps)}
    if kept is not None:
        notes["kept"] = kept
    return Prepared({"ranking": artifact.key}, networks.explainer, notes=notes)


def _check(context: Context, params: RefinedSettings) -> None:
    size = context.model.image_size
    params.objective.check_size(size, size)
    row = own_row_of(context, params.of, "refined")
    if params.what == "decoder" and (row.entry.name != "ranking" or row.entry.opaque):
        raise UserError(
            f"what=decoder refines the ranking explainer's decoder, and {params.of} has none that can be reached: use "
            "what=maps"
        )


@explainer(
    "refined",
    label="Refined",
    about="maps of another row, moved along the gradient of their own deletion and insertion",
    params=RefinedSettings,
    kind="refined",
    needs={"gradients"},
    check=_check,
)
def refined(context: Context, params: RefinedSettings) -> Prepared:
    """The maps of a row after 0, 1, ... T steps; one path serves the rows of all its steps."""
    row = context.row(params.of)
    source = row.entry.prepare(context, row.params)

    def build() -> RefinedDecoder | RefinedMaps:
        start, mean = source.build(), torch.tensor(context.model.mean)
        refinement = Refinement(context.network(), mean, params.objective, params)
        if params.what == "decoder":
            assert isinstance(start, DenseExplainer)
            return RefinedDecoder(start, refinement)
        return RefinedMaps(start, refinement, params.scale)

    made_from = {"name": "refined", "of": dict(source.made_from), **params.numbers}
    start = passes_of(context, row, source) or 0.0
    passes, whole = (start + steps * params.passes_a_step for steps in (params.step, params.steps))
    notes = {**source.notes, "step": float(params.step)}
    return Prepared(
        made_from, build, pick=params.step, notes=notes, passes=passes, share=passes / whole if whole else 1.0
    )
