"""How an explainable classifier compares with the classifier it explains (Naouar et al. 2025, section 5.5 and A.4).

All take logits or probabilities [N, C], of which the largest is the prediction.
"""

from typing import Any

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.metrics.registry import Column, Measured, given, metric, percent


def precision_recall_f1_mcc(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Precision, recall, F1 and Matthews' correlation coefficient, as in Table 4.

    Two classes are read as binary with class 1 as the positive one, and more are averaged (macro) over those that occur
    among labels or predictions. What would be 0 / 0 is 0.

    Args:
        logits: [N, C].
        labels: Integers [N] below C.

    Returns:
        precision, recall, f1 in [0, 1] and mcc in [-1, 1].

    Raises:
        UserError: Shapes do not match, C is 1, or labels are no classes.
    """
    from torchmetrics.functional import classification  # which takes as long to import as all metrics

    _check(logits, labels)
    classes, predicted = logits.shape[1], logits.argmax(1)
    many: dict[str, Any] = {"task": "multiclass", "num_classes": classes, "average": "macro"}
    how = {"task": "binary"} if classes == 2 else many
    asked = {"precision": classification.precision, "recall": classification.recall, "f1": classification.f1_score}
    values = {name: measure(predicted, labels, **how) for name, measure in asked.items()}
    values["mcc"] = _matthews(predicted, labels, classes)
    return {name: float(value) for name, value in values.items()}


def _one_of_the_classes(block: Measured) -> float:
    return 1 / given(block.logits).shape[1]


@metric(
    "classification",
    columns=(
        percent(
            "accuracy",
            "Accuracy",
            "Share of images classified correctly.",
            needs=frozenset({"labels"}),
            chance_from=_one_of_the_classes,
        ),
        percent(
            "agreement",
            "Agreement",
            "Share of images on which it predicts what the classifier predicts.",
            needs=frozenset({"network"}),
        ),
        percent(
            "classifier_accuracy",
            "Accuracy of the classifier",
            "Share of images that the classifier it explains gets right.",
            needs=frozenset({"labels", "network"}),
        ),
    ),
    needs=("logits",),
)
def correct(block: Measured, params: object) -> dict[str, Tensor]:
    """1 where an image is classified correctly, and where it is classified as the classifier does; else 0."""
    logits, values = given(block.logits), {}
    _check_logits(logits)
    predicted = logits.argmax(1)
    if block.labels is not None:
        _check(logits, block.labels)
        values["accuracy"] = (predicted == block.labels.to(predicted.device)).double()
    if block.classifier_logits is not None:
        _check_logits(block.classifier_logits)
        if block.classifier_logits.shape != logits.shape:
            shapes = f"{tuple(logits.shape)} and {tuple(block.classifier_logits.shape)}"
            raise UserError(f"logits of shape {shapes}; both have to be of the same images and classes")
        others = block.classifier_logits.argmax(1).to(predicted.device)
        values["agreement"] = (predicted == others).double()
        if block.labels is not None:
            values["classifier_accuracy"] = (others == block.labels.to(predicted.device)).double()
    return values


@metric(
    "classification_quality",
    columns=(
        percent(
            "precision",
            "Precision",
            "Share of right ones among the predictions of the positive class; of more than two classes the mean.",
        ),
        percent(
            "recall", "Recall", "Share of the images of the positive class that are found; else the mean over classes."
        ),
        percent("f1", "F1", "Harmonic mean of precision and recall."),
        Column(
            "mcc",
            "MCC",
            "Matthews correlation of prediction and label: 0 is chance, 1 is perfect.",
            digits=2,
            chance=0.0,
        ),
    ),
    needs=("logits", "labels"),
    whole=True,
)
def quality(block: Measured, params: object) -> dict[str, Tensor]:
    """Precision, recall, F1 and MCC of all images, each [1]."""
    logits = given(block.logits)
    found = precision_recall_f1_mcc(logits, given(block.labels).to(logits.device))
    return {name: torch.tensor([value], dtype=torch.float64) for name, value in found.items()}


def _matthews(predicted: Tensor, labels: Tensor, classes: int) -> Tensor:
    """R_K of Gorodkin 2004, a float64 scalar; 0 where predictions or labels are all of one class.

    That of torchmetrics 1.9 is not, for two classes: always predicting the majority would seem to know something.
    """
    confusion = (classes * labels + predicted).bincount(minlength=classes**2).reshape(classes, classes).double()
    true, said = confusion.sum(1), confusion.sum(0)
    images = confusion.sum()
    covariance = confusion.trace() * images - true @ said
    spread = (images.square() - true @ true) * (images.square() - said @ said)
    return torch.where(spread > 0, covariance / spread.clamp(min=1).sqrt(), 0.0)


def _check_logits(logits: Tensor) -> None:
    if logits.ndim != 2 or len(logits) == 0 or logits.shape[1] < 2:
        raise UserError(
            f"logits have shape {tuple(logits.shape)}; they have to be [N, C], N >= 1 images of C >= 2 classes"
        )
    if logits.isnan().any():
        raise UserError("the logits hold NaN, which predicts no class")


def _check(logits: Tensor, labels: Tensor) -> None:
    _check_logits(logits)
    images, classes = logits.shape
    if labels.shape != (images,) or labels.is_floating_point():
        raise UserError(f"{labels.dtype} labels of shape {tuple(labels.shape)}; they have to be integers [{images}]")
    if labels.min() < 0 or labels.max() >= classes:
        raise UserError(f"labels from {labels.min()} to {labels.max()}; {classes} classes are 0 to {classes - 1}")
