"""The settings of `method=transfer`, and how lambda2 is chosen from its grid."""

import math
from dataclasses import dataclass

from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.methods.self_explainer import check_alpha
from xai.results import Result


@dataclass(frozen=True)
class TransferParams:
    """One transfer, and what it is compared with.

    Args:
        alpha: Balance of equation 4 for the explained models.
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

    alpha: float
    lambda1: float
    lambda2: float | None
    lambda2_grid: tuple[float, ...]
    accuracy_tolerance: float
    source_images: int | None
    target_images: int | None
    validation_images: int | None
    test_images: int | None
    bound: bool
    bound_coalitions: int
    source_fit: FitParams
    target_fit: FitParams
    bound_fit: FitParams

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        check_alpha(self.alpha)
        if self.alpha == 1:
            raise UserError(
                "transfer.alpha=1 learns no explanation, so there is no vector to transfer: use a smaller one"
            )
        if not self.lambda2_grid:
            raise UserError("transfer.lambda2_grid is empty: give at least one value")
        chosen = [] if self.lambda2 is None else [("lambda2", self.lambda2)]
        for name, value in (
            ("lambda1", self.lambda1),
            *chosen,
            *(("lambda2_grid", value) for value in self.lambda2_grid),
        ):
            if not (math.isfinite(value) and 0 <= value <= 10):
                raise UserError(
                    f"transfer.{name}={value:g} is out of range: it must lie between 0 and 10 (the paper: 0.4 to 1.2)"
                )
        if not 0 <= self.accuracy_tolerance < 1:
            raise UserError(
                f"transfer.accuracy_tolerance={self.accuracy_tolerance} is a share: it must lie between 0 and 1"
            )
        if self.bound_coalitions < 2 or self.bound_coalitions % 2:
            raise UserError(
                f"transfer.bound_coalitions={self.bound_coalitions} must be an even number: coalitions come in pairs"
            )


def choose_lambda2(results: list[Result], accuracy_floor: float) -> float:
    """The lambda2 of the smallest E-RMSE among results at least as accurate as the floor, else of the most accurate."""
    kept = [result for result in results if result.metrics["accuracy"] >= accuracy_floor]
    if kept:
        return min(kept, key=lambda result: result.metrics["e_rmse"]).params["lambda2"]
    return max(results, key=lambda result: (result.metrics["accuracy"], -result.params["lambda2"])).params["lambda2"]
