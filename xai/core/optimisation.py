"""How long everything is trained, and how fast: AdamW, a linear warm-up, a cosine down (`xai.methods.learner`)."""

from typing import Annotated, Literal

from pydantic import AfterValidator

from xai.core.settings import Count, FieldError, NonNegative, Positive, Share, settings


@settings
class FitParams:
    """One training, as long as `epochs` or `steps` say: one of them, the other null.

    Args:
        epochs: Passes over the training images.
        batch_size: Images a step and device: `trainer.devices` of them see as many times more.
        learning_rate: Peak of the schedule.
        weight_decay: AdamW's decoupled decay.
        warmup: Share of the steps over which the rate rises from zero.
        clip: Largest gradient norm; 0 leaves gradients as they are.
        steps: Steps in all, however many passes over the images they make.
        keep: Which weights: the `last`, or those of the epoch that was `best`, by the loss on the validation split.
    """

    epochs: Count | None
    batch_size: Count
    learning_rate: Positive
    weight_decay: NonNegative
    warmup: Share
    clip: NonNegative
    steps: Count | None = None
    keep: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        """Refuse a training of two lengths, or of none."""
        if (self.epochs is None) == (self.steps is None):
            epochs = "null" if self.epochs is None else self.epochs
            raise FieldError("steps", f"and epochs={epochs}: one of the two has to be a number, the other null")

    @property
    def length(self) -> tuple[str, int]:
        """The unit it is measured in, `epochs` or `steps`, and how many."""
        return ("steps", self.steps) if self.epochs is None else ("epochs", self.epochs)  # type: ignore[return-value]

    def total(self, batches: int) -> int:
        """Steps in all, where an epoch has so many batches."""
        unit, count = self.length
        return count if unit == "steps" else count * batches


def _kept_last(params: FitParams) -> FitParams:
    if params.keep == "best":
        raise FieldError("keep", "needs a loss on the validation split, which this training has not: use last")
    return params


LastFit = Annotated[FitParams, AfterValidator(_kept_last)]
"""Of a training that has no loss on the validation split."""
