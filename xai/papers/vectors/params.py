"""The settings of a transfer."""

from typing import Annotated

from pydantic import Field

from xai.core.optimisation import LastFit
from xai.core.settings import Count, Distinct, EvenCount, settings

Factor = Annotated[float, Field(ge=0, le=10)]
"""Of a task vector; the paper's lie between 0.4 and 1.2."""

Balance = Annotated[float, Field(ge=0, lt=1)]
"""Alpha of a model that learns to explain."""


@settings
class TransferParams:
    """What is trained for a transfer.

    Args:
        alpha: Balance of equation 4 for the explained models; at 1 they would learn no explanation. Null chooses it
            from the grid on the validation split.
        alpha_grid: The values it is chosen from; each costs a training on the source.
        lambda1: Factor of the target's task vector, equation 8.
        lambda2: Factor of the explainability vector; null chooses it from the grid on the validation split.
        lambda2_grid: The values of Figure 3; each costs one pass over the images.
        accuracy_tolerance: The largest share of ft target's validation accuracy that the choice may cost.
        source_images: Supervised source images; null takes all.
        target_images: Target images that ft target learns from; null takes all.
        fixed_target: Whether each of them stays as it looks in the first epoch, as the source's do. Where all else is
            the same too, a data set has one classifier, as source and as target.
        bound_images: Target images, all supervised, that the bound ft target+X learns from; null: those of ft target.
        validation_images: Images on which the choice is made; null takes all.
        other_column: Whether models that learn to explain are also told the map of one other class of each image, drawn
            at random, half of equation 5 each. Not in the paper: ours.
        bound_coalitions: P for the bound's supervision; explainers that have no P pass over it.
        source_fit: Optimisation of ft source and ft source+X.
        target_fit: Optimisation of ft target.
        bound_fit: Optimisation of ft target+X.
    """

    alpha: Balance | None
    alpha_grid: Annotated[tuple[Balance, ...], Field(min_length=1), Distinct]
    lambda1: Factor
    lambda2: Factor | None
    lambda2_grid: Annotated[tuple[Factor, ...], Field(min_length=1), Distinct]
    accuracy_tolerance: Annotated[float, Field(ge=0, lt=1)]
    source_images: Count | None
    target_images: Count | None
    fixed_target: bool
    bound_images: Count | None
    validation_images: Count | None
    other_column: bool
    bound_coalitions: EvenCount
    source_fit: LastFit
    target_fit: LastFit
    bound_fit: LastFit
