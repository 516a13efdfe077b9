"""How everything is optimised: AdamW, a linear warm-up, a cosine down to zero."""

import math
from typing import Annotated, Literal

import torch
from pydantic import AfterValidator
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig

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


def schedule(step: int, total: int, warmup: float, start: float = 0.0, end: float = 0.0) -> float:
    """Factor on the peak rate at a step: linear up over `warmup` of `total` steps, then a half cosine down.

    Args:
        step: Counted from 0.
        total: Steps in all.
        warmup: Share of them over which the rate rises.
        start: Factor it rises from.
        end: Factor it falls to.
    """
    rise = warmup * total
    if step < rise:
        return start + (1 - start) * min(1.0, (step + 1) / max(rise, 1))
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(total - rise, 1)))


def adamw(
    module: LightningModule, params: FitParams, start: float = 0.0, end: float = 0.0
) -> OptimizerLRSchedulerConfig:
    """The optimiser and its schedule, in the form that Lightning wants from `configure_optimizers`."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    # In one kernel where that is sure to clip: under float16 on a GPU, the fused one does not let gradients be clipped.
    fused = module.device.type == "cpu"
    optimiser = torch.optim.AdamW(trainable, lr=params.learning_rate, weight_decay=params.weight_decay, fused=fused)
    total = int(module.trainer.estimated_stepping_batches)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: schedule(step, total, params.warmup, start, end)
    )
    return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
