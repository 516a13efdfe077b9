"""What the tests of Learn to Rank's stages share: the tiny ViT, an explainer of it, six test images."""

from pathlib import Path
from typing import Any

from tests.classifiers.studying import stages
from tests.classifiers.tiny import FIT
from tests.ranking import toys
from xai.methods.ranking import RankingLoss
from xai.models.dpt import DecoderParams
from xai.papers.ranking.networks import RankingStages
from xai.papers.ranking.params import BackboneParams, RankingSettings

OBJECTIVE = toys.params(steps=3, grid_min=2, grid_max=4, references=("black", "blur"), iterations=5)
DECODER = DecoderParams(8, 4, 2, 4, (1,), "product", pixels=2)
RANKING = RankingSettings(BackboneParams(), (0,), DECODER, OBJECTIVE, RankingLoss(1.0, 0.3, 1.0, 0.3), FIT)


def networks(folder: Path, params: RankingSettings = RANKING, **changes: Any) -> RankingStages:
    """The explainers of a store in `folder`; `changes` are fields of `VitStages`."""
    return RankingStages(stages(folder, **changes), params)
