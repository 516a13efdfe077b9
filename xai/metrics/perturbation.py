"""Pixel-level deletion and insertion as a torchmetrics class, for Lightning loops and several devices."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from xai.core.errors import UserError
from xai.metrics import functional
from xai.metrics.functional import PerturbationCurves
from xai.metrics.functional.perturbation import Classify


class PerturbationScores(Metric):
    """Areas under the deletion and insertion curves (Petsiuk et al. 2018; Schinagl et al. 2026), means over images.

    An area is linear in its curve, so the sums of the curves are all that has to be kept: they add up over batches and
    devices. An image costs 2 S - 2 passes, however many classes are asked for.

    Args:
        steps: S, the points of a curve; 21 are every 5 %.
        classes: K, the classes that are asked for of each image, such as the predicted and the true one.
        chunk: Perturbed images in one pass; 0 takes all at once.
        constant: What to do with a constant map: `refuse` it, or score it as a `random` order.
        kwargs: Passed on to torchmetrics.Metric.
    """

    is_differentiable: bool = False
    full_state_update: bool = False

    total: Tensor
    images: Tensor

    def __init__(
        self, steps: int = 21, classes: int = 1, chunk: int = 256, constant: str = "random", **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if steps < 2 or classes < 1:
            raise UserError(f"steps={steps} must be at least 2, classes={classes} at least 1")
        self.steps, self.classes, self.chunk, self.constant = steps, classes, chunk, constant
        self.add_state("total", torch.zeros(2, steps, classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    def update(
        self,
        classify: Classify,
        images: Tensor,
        maps: Tensor,
        targets: Tensor,
        reference: Tensor,
        generator: torch.Generator,
    ) -> None:
        """Count a batch.

        Args:
            classify: The classifier.
            images: [B, 3, H, W] in [0, 1].
            maps: [B, H, W]; higher is more important.
            targets: [B, K]; [B] will do where K is 1.
            reference: [B or 1, 3, H, W], what shows where a pixel is not.
            generator: Orders the ties.

        Raises:
            UserError: As `xai.metrics.functional.perturbation_curves`.
            ValueError: Likewise, and for another number of classes than the metric was made for.
        """
        columns = targets if targets.ndim == 2 else targets[:, None]
        if columns.shape[1:] != (self.classes,):
            raise ValueError(f"targets are {list(targets.shape)}; this metric was made for {self.classes} an image")
        curves = functional.perturbation_curves(
            classify, images, maps, columns, reference, generator, self.steps, self.chunk, self.constant
        )
        self.total += torch.stack([curve.sum(0) for curve in curves]).to(self.total.device)
        self.images += len(images)

    def curves(self) -> PerturbationCurves:
        """The mean curves [S, K] of the images counted so far, by the process that is asked."""
        return PerturbationCurves(*(self.total / self.images))

    def compute(self) -> dict[str, Tensor]:
        """Means over the images counted so far, scalars for one class and else [K]; NaN where there are no images.

        Returns:
            deletion_auc, better when lower; insertion_auc, better when higher; and difference, insertion less deletion.
        """
        deletion, insertion = (functional.area(curve.T) for curve in self.curves())
        found = {"deletion_auc": deletion, "insertion_auc": insertion, "difference": insertion - deletion}
        return {name: value[0] if self.classes == 1 else value for name, value in found.items()}
