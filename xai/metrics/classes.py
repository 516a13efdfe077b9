"""torchmetrics classes over the pure functions, for Lightning loops and several devices.

Each is updated with batches of maps and computes the mean over the images for which the metric is defined, a float64
scalar; NaN when there is none. Maps or references holding NaN or infinity raise UserError: a broken map must not be
left out of a mean as if it were merely undefined.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from xai.core.errors import UserError
from xai.metrics import functional
from xai.metrics.functional.checks import check_finite, check_pair


class _MeanOverImages(Metric, ABC):
    """Sum and number of the defined values, which add up over batches and devices."""

    is_differentiable: bool = False
    full_state_update: bool = False

    total: Tensor
    images: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("total", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("images", torch.tensor(0), dist_reduce_fx="sum")

    @abstractmethod
    def values(self, attributions: Tensor, other: Tensor) -> Tensor:
        """One value per image [N], NaN where undefined."""

    def update(self, attributions: Tensor, reference: Tensor) -> None:
        """Count a batch: maps [N, h, w] or [N, M] and their references of the same shape."""
        check_finite("attributions", attributions)
        check_finite("reference maps", reference)
        self._count(self.values(_patches(attributions), _patches(reference)))

    def compute(self) -> Tensor:
        """The mean over all images counted so far."""
        return self.total / self.images

    def _count(self, values: Tensor) -> None:
        defined = ~values.isnan()
        self.total += values[defined].sum()
        self.images += defined.sum()


class ExplanationRMSE(_MeanOverImages):
    """E-RMSE (explainability vectors, eq. 5 and section 6.1): root of the mean squared explanation error."""

    higher_is_better: bool = False

    def values(self, attributions: Tensor, other: Tensor) -> Tensor:
        """Squared error of each image."""
        return functional.squared_explanation_error(attributions, other)

    def compute(self) -> Tensor:
        """The root of the mean over all images counted so far."""
        return super().compute().sqrt()


class KendallTau(_MeanOverImages):
    """Mean Kendall tau-b between maps and references; images with a constant map are left out."""

    higher_is_better: bool = True

    def values(self, attributions: Tensor, other: Tensor) -> Tensor:
        """tau-b of each image."""
        return functional.kendall(attributions, other)


class IoUAtK(_MeanOverImages):
    """Mean intersection over union of the k largest patches of maps and references.

    Args:
        k: At least 1, and no more than the maps have patches.
        kwargs: Passed on to torchmetrics.Metric.

    Raises:
        UserError: k is below 1; on update, k is above the number of patches.
    """

    higher_is_better: bool = True

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if k < 1:
            raise UserError(f"IoU@{k}; k has to be at least 1")
        self.k = k

    def values(self, attributions: Tensor, other: Tensor) -> Tensor:
        """IoU@k of each image."""
        return functional.iou_at_k(attributions, other, self.k)


class CentredCorrelation(Metric):
    """Mean correlation of maps and references after each side's mean map over ALL images is taken off.

    Keeps every map until `compute`, since the mean maps are known only then.
    """

    is_differentiable: bool = False
    full_state_update: bool = False
    higher_is_better: bool = True

    attributions: list[Tensor]
    references: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("attributions", [], dist_reduce_fx="cat")
        self.add_state("references", [], dist_reduce_fx="cat")

    def update(self, attributions: Tensor, reference: Tensor) -> None:
        """Keep a batch: maps [N, h, w] or [N, M] and their references of the same shape."""
        check_finite("attributions", attributions)
        check_finite("reference maps", reference)
        pred, ref = _patches(attributions), _patches(reference)
        check_pair(pred, ref)
        self.attributions.append(pred)
        self.references.append(ref)

    def compute(self) -> Tensor:
        """The mean over all images kept so far for which the correlation is defined."""
        if isinstance(self.attributions, list) and not self.attributions:
            return torch.tensor(torch.nan, dtype=torch.float64, device=self.device)
        pred, ref = dim_zero_cat(self.attributions), dim_zero_cat(self.references)
        return functional.centred_correlation(pred, ref).nanmean()


class _MeanOverRegions(_MeanOverImages):
    """The same mean for metrics that compare maps with pixel regions."""

    higher_is_better: bool = True

    def update(self, attributions: Tensor, regions: Tensor) -> None:
        """Count a batch: maps [N, h, w] and boolean regions [N, H, W]."""
        check_finite("attributions", attributions)
        self._count(self.values(attributions, regions))


class RelevanceMassAccuracy(_MeanOverRegions):
    """Mean RMA (Arras et al. 2022); images without positive attribution or without region are left out."""

    def values(self, attributions: Tensor, other: Tensor) -> Tensor:
        """RMA of each image."""
        return functional.relevance_mass_accuracy(attributions, other)


class RelevanceRankAccuracy(_MeanOverRegions):
    """Mean RRA (Arras et al. 2022); images without region are left out."""

    def values(self, attributions: Tensor, other: Tensor) -> Tensor:
        """RRA of each image."""
        return functional.relevance_rank_accuracy(attributions, other)


class GridPointingGame(_MeanOverRegions):
    """Mean grid pointing game (Böhle et al. 2021); images without positive attribution or without cell are left out."""

    def values(self, attributions: Tensor, other: Tensor) -> Tensor:
        """Share of positive attribution in the cell, of each image."""
        return functional.grid_pointing_game(attributions, other)


class PointingGame(_MeanOverRegions):
    """Share of images whose largest patch touches the region; constant maps and empty regions are left out."""

    def values(self, attributions: Tensor, other: Tensor) -> Tensor:
        """Hit (1) or miss (0) of each image."""
        return functional.pointing_game(attributions, other)


def _patches(maps: Tensor) -> Tensor:
    return maps.flatten(1) if maps.ndim == 3 else maps
