"""What trainings share: the optimiser, and around a maskable classifier one loss, for training and for validation."""

import math

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from xai.core.optimisation import FitParams
from xai.data.module import Batch
from xai.models.maskable import MaskableClassifier
from xai.sampling import step_generator, torch_seeded

_VALIDATION = 1 << 31
"""Number of the first batch of the validation split, where a step counts: no training is that long."""


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


class Learner(LightningModule):
    """A training whose loss depends on a batch and on the number of the step, from which all that is drawn follows.

    Args:
        params: The optimisation.
        seed: Of what is drawn.
        stage: Prefix of the logged names.
        frozen: A classifier that is asked, and learns nothing.
    """

    def __init__(self, params: FitParams, seed: int, stage: str, frozen: MaskableClassifier | None = None) -> None:
        super().__init__()
        self._params, self._seed, self._stage = params, seed, stage
        # In a list, so that Lightning neither trains it, nor writes it into every checkpoint.
        self._frozen = [frozen] if frozen is not None else []

    def loss(self, batch: Batch, step: int) -> Tensor:
        """The scalar loss of a batch; in evaluation mode the one by which trainings, and epochs of one, compare."""
        raise NotImplementedError

    def on_fit_start(self) -> None:
        """Bring the frozen classifier to the device of the training."""
        for network in self._frozen:
            network.to(self.device)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step; what dropout draws is of this step too, or a resumed run would draw something else."""
        generator = step_generator(self._seed, self.global_step, torch.device("cpu"), self.global_rank)
        with torch_seeded(generator, self.device):
            loss = self.loss(batch, self.global_step)
        self.log(f"{self._stage}/loss", loss)
        return loss

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """The loss of a batch of the validation split, with the same draws after every epoch."""
        loss = self.loss(batch, _VALIDATION + batch_index)
        self.log(f"{self._stage}/validation_loss", loss, batch_size=len(batch.labels))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with warm-up and cosine."""
        return adamw(self, self._params)
