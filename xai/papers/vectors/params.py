"""The settings of `method=transfer`, and how lambda2 is chosen from its grid."""

from typing import Annotated

from pydantic import Field

from xai.core.optimisation import FitParams
from xai.core.settings import EvenCount, settings
from xai.results import Result

Factor = Annotated[float, Field(ge=0, le=10)]
"""Of a task vector; the paper's lie between 0.4 and 1.2."""


@settings
class TransferParams:
    """One transfer, and what it is compared with.

    Args:
        alpha: Balance of equation 4 for the explained models; at 1 they would learn no explanation.
        lambda1: Factor of the target's task vector, equation 8.
        lambda2: Factor of the explainability vector; null chooses it from the grid on the validation split.
        lambda2_grid: The values of Figure 3; each costs one evaluation.
        accuracy_tolerance: The largest share of ft target's validation accuracy that the chosen lambda2 may cost.
        source_images: Supervised source images; null takes all.
        target_images: Target images that ft target, and so the bound ft target+X, learn from; null takes all.
        validation_images: Supervised validation images; null takes all.
        test_images: Test images; null takes all.
        bound: Whether to train the bound, ft target+X.
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
    source_images: int | None
    target_images: int | None
    validation_images: int | None
    test_images: int | None
    bound: bool
    bound_coalitions: EvenCount
    source_fit: FitParams
    target_fit: FitParams
    bound_fit: FitParams


def choose_lambda2(results: list[Result], accuracy_floor: float) -> float:
    """The lambda2 of the smallest E-RMSE among results at least as accurate as the floor, else of the most accurate."""
    kept = [result for result in results if result.metrics["accuracy"] >= accuracy_floor]
    if kept:
        return min(kept, key=lambda result: result.metrics["e_rmse"]).params["lambda2"]
    return max(results, key=lambda result: (result.metrics["accuracy"], -result.params["lambda2"])).params["lambda2"]
