"""What the tests of Learn to Rank's stages share: the bench's ViT, an explainer of it, six test images."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.stages.bench import FIT
from tests.stages.studying import CLASSIFIER, SALVAGE, VIT_SHAPLEY, stages
from xai.data.registry import Images
from xai.methods.ranking import RankingLoss
from xai.models.dpt import DecoderParams
from xai.papers.ranking.networks import RankingStages
from xai.papers.ranking.params import BackboneParams, PerturbationParams, RankingParams, RefinementSettings
from xai.ranking.objective import ObjectiveParams
from xai.stages.perturbation import PerturbationExamination
from xai.stages.ranking_study import RankingStudy, Rivals
from xai.stages.study import open_baselines

OBJECTIVE = ObjectiveParams(
    steps=3,
    grid_min=2,
    grid_max=4,
    references=("black", "blur"),
    iterations=5,
    sigma=1.0,
    peak_weight=0.0025,
    peak_window=5,
)
DECODER = DecoderParams(8, 4, 2, 4, (1,), "product", pixels=2)
RANKING = RankingParams(BackboneParams(), (0,), DECODER, OBJECTIVE, RankingLoss(1.0, 0.3, 1.0, 0.3), FIT)
REFINEMENT = RefinementSettings(
    steps=2, draws=1, size=0.5, sigma=1.0, temperature=0.3, learning_rate=0.01, objective=OBJECTIVE
)
UNFOCUSED = replace(CLASSIFIER, focus=0.0)
"""The classifier of a data set without regions."""
PERTURBATION = PerturbationParams("test", 6, 5, ("black", "blur"), 4)


def networks(folder: Path, params: RankingParams = RANKING, **changes: Any) -> RankingStages:
    """The explainers of a store in `folder`; `changes` are fields of `VitStages`."""
    return RankingStages(stages(folder, **changes), params)


def examination(folder: Path, params: PerturbationParams = PERTURBATION, **changes: Any) -> PerturbationExamination:
    return PerturbationExamination(stages(folder, **changes), params)


def study(folder: Path, *rows: str, params: PerturbationParams = PERTURBATION, **changes: Any) -> RankingStudy:
    """A study of these rows; `changes` are fields of `RankingStudy`, or of its `VitStages`."""
    own = {name: changes.pop(name) for name in ("data", "seed", "classifier_params") if name in changes}
    made = networks(folder, **own)
    settings = {
        "attention_rollout": {"name": "attention_rollout", "block": 4},
        "saliency": {"name": "saliency", "output": "logit", "block": 4},
    }
    given = RankingStudy(
        made,
        PerturbationExamination(made.stages, params),
        REFINEMENT,
        Rivals(made.stages, SALVAGE, VIT_SHAPLEY),  # type: ignore[arg-type]
        open_baselines(settings),
        rows or ("ranking",),
        (),
    )
    return replace(given, **changes)


def colour(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
    """Maps that depend on image and class: one of the colours, the third less of itself."""
    strength = torch.tensor([1.0, -1.0, 0.5, 2.0])[targets, None, None]
    return strength * images.pixels[torch.arange(len(targets)), targets % 3]
