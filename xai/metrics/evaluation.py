"""All metrics of a set of maps in one call: the numbers of a `result.json`."""

import torch
from torch import Tensor
from torchmetrics import Metric

from xai.core.errors import UserError
from xai.metrics import classes, functional
from xai.metrics.functional.checks import check_finite, check_pair

KS = (1, 5, 10)
"""The k of iou@k, as in Table 1 of explainability vectors."""


def evaluate_maps(
    attributions: Tensor,
    reference: Tensor | None = None,
    regions: Tensor | None = None,
    logits: Tensor | None = None,
    labels: Tensor | None = None,
) -> dict[str, float]:
    """Every metric the given tensors allow, each the mean over the images for which it is defined.

    Args:
        attributions: [N, h, w].
        reference: [N, h, w]; gives e_rmse, kendall, iou@k for the k of `KS` up to h * w, and centred_correlation.
        regions: Bool [N, H, W]; gives rma and pointing_game.
        logits: [N, C]; with labels gives accuracy.
        labels: Integers [N].

    Returns:
        Values by name, in the order accuracy, e_rmse, kendall, iou@1, iou@5, iou@10, centred_correlation, rma,
        pointing_game; NaN where a metric is undefined for every image.

    Raises:
        UserError: Shapes do not match, values are not finite, or logits come without labels.
    """
    _check(attributions, reference, logits, labels)
    values: dict[str, float] = {}
    if logits is not None and labels is not None:
        values["accuracy"] = _correct(logits, labels).mean().item()
    if reference is not None:
        for name, metric in _reference_metrics(attributions[0].numel()).items():
            values[name] = _mean(metric, attributions, reference)
    if regions is not None:
        for name, metric in _region_metrics().items():
            values[name] = _mean(metric, attributions, regions)
    return values


def per_image(
    attributions: Tensor,
    reference: Tensor | None = None,
    regions: Tensor | None = None,
    logits: Tensor | None = None,
    labels: Tensor | None = None,
) -> dict[str, Tensor]:
    """The values behind `evaluate_maps`, one float64 [N] per metric, for tests that pair images.

    Arguments, order and errors are those of `evaluate_maps`, with `squared_error` in the place of e_rmse: the root of
    its mean over images is the E-RMSE. The mean without NaN of every other entry is the value `evaluate_maps` gives.
    """
    _check(attributions, reference, logits, labels)
    values: dict[str, Tensor] = {}
    if logits is not None and labels is not None:
        values["accuracy"] = _correct(logits, labels)
    if reference is not None:
        pred, ref = attributions.flatten(1), reference.flatten(1)
        values["squared_error"] = functional.squared_explanation_error(pred, ref)
        values["kendall"] = functional.kendall(pred, ref)
        values |= {f"iou@{k}": functional.iou_at_k(pred, ref, k) for k in KS if k <= pred.shape[1]}
        values["centred_correlation"] = functional.centred_correlation(pred, ref)
    if regions is not None:
        values["rma"] = functional.relevance_mass_accuracy(attributions, regions)
        values["pointing_game"] = functional.pointing_game(attributions, regions)
    return values


def _reference_metrics(patches: int) -> dict[str, Metric]:
    metrics: dict[str, Metric] = {"e_rmse": classes.ExplanationRMSE(), "kendall": classes.KendallTau()}
    metrics |= {f"iou@{k}": classes.IoUAtK(k) for k in KS if k <= patches}
    metrics["centred_correlation"] = classes.CentredCorrelation()
    return metrics


def _region_metrics() -> dict[str, Metric]:
    return {"rma": classes.RelevanceMassAccuracy(), "pointing_game": classes.PointingGame()}


def _mean(metric: Metric, attributions: Tensor, other: Tensor) -> float:
    metric = metric.to(attributions.device)
    metric.update(attributions, other)
    return float(metric.compute())


def _correct(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(1) == labels.to(logits.device)).double()


def _check(attributions: Tensor, reference: Tensor | None, logits: Tensor | None, labels: Tensor | None) -> None:
    if attributions.ndim != 3 or 0 in attributions.shape:
        raise UserError(f"attributions have shape {tuple(attributions.shape)}; wanted is [N, h, w], none of them 0")
    check_finite("attributions", attributions)
    if reference is not None:
        if reference.shape != attributions.shape:
            raise UserError(
                f"the reference has shape {tuple(reference.shape)}; it has to be that of the attributions, "
                f"{tuple(attributions.shape)}"
            )
        check_finite("reference maps", reference)
        check_pair(attributions.flatten(1), reference.flatten(1))
    if (logits is None) != (labels is None):
        raise UserError("accuracy takes both logits [N, C] and labels [N]; only one of the two was given")
    if logits is None or labels is None:
        return
    images = len(attributions)
    if logits.ndim != 2 or len(logits) != images or tuple(labels.shape) != (images,) or torch.is_floating_point(labels):
        raise UserError(
            f"logits of shape {tuple(logits.shape)} and {labels.dtype} labels of shape {tuple(labels.shape)}; "
            f"they have to be [{images}, C] and integers [{images}]"
        )
    if logits.isnan().any():
        raise UserError("the logits hold NaN; accuracy takes numbers only")
