"""The settings of a transfer, and how lambda2 is chosen from its grid."""

from typing import Annotated

import pandas as pd
from pydantic import Field

from xai.core.optimisation import FitParams
from xai.core.settings import Count, EvenCount, settings

Factor = Annotated[float, Field(ge=0, le=10)]
"""Of a task vector; the paper's lie between 0.4 and 1.2."""


@settings
class TransferParams:
    """What is trained for a transfer.

    Args:
        alpha: Balance of equation 4 for the explained models; at 1 they would learn no explanation.
        lambda1: Factor of the target's task vector, equation 8.
        lambda2: Factor of the explainability vector; null chooses it from the grid on the validation split.
        lambda2_grid: The values of Figure 3; each costs one pass over the images.
        accuracy_tolerance: The largest share of ft target's validation accuracy that the chosen lambda2 may cost.
        source_images: Supervised source images; null takes all.
        target_images: Target images that ft target, and so the bound ft target+X, learn from; null takes all.
        validation_images: Images on which lambda2 is chosen; null takes all.
        bound_coalitions: P for the bound's supervision; explainers that have no P pass over it.
        source_fit: Optimisation of ft source and ft source+X.
        target_fit: Optimisation of ft target.
        bound_fit: Optimisation of ft target+X.
    """

    alpha: Annotated[float, Field(ge=0, lt=1)]
    lambda1: Factor
    lambda2: Factor | None
    lambda2_grid: Annotated[tuple[Factor, ...], Field(min_length=1)]
    accuracy_tolerance: Annotated[float, Field(ge=0, lt=1)]
    source_images: Count | None
    target_images: Count | None
    validation_images: Count | None
    bound_coalitions: EvenCount
    source_fit: FitParams
    target_fit: FitParams
    bound_fit: FitParams


def choose_lambda2(means: pd.DataFrame, accuracy_floor: float) -> float:
    """The lambda2 of the smallest E-RMSE among those at least as accurate as the floor, else of the most accurate.

    Args:
        means: `e_rmse` and `accuracy` on validation images, a line for each lambda2, which is its index.
        accuracy_floor: The least accuracy.
    """
    means = means.sort_index()
    kept = means[means["accuracy"] >= accuracy_floor]
    place = means["accuracy"].argmax() if kept.empty else kept["e_rmse"].argmin()
    return float((means if kept.empty else kept).index.to_numpy()[place])
