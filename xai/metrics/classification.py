"""How an explainable classifier compares with the classifier it explains (Naouar et al. 2025, section 5.5 and A.4).

All take logits or probabilities [N, C], of which the largest is the prediction.
"""

import torch
from torch import Tensor
from torchmetrics.functional import classification

from xai.core.errors import UserError
from xai.metrics.registry import Column, Measured, given, metric, percent


def agreement(a: Tensor, b: Tensor) -> Tensor:
    """Share of images for which two classifiers predict the same class, a float64 scalar.

    Args:
        a: [N, C].
        b: [N, C], on the same device.

    Raises:
        UserError: The shapes differ, or are not [N, C] with C >= 2.
    """
    _check_alike(a, b)
    return (a.argmax(1) == b.argmax(1)).double().mean()


def confusion_overlap(explainer_logits: Tensor, classifier_logits: Tensor, labels: Tensor) -> Tensor:
    """Who is right where (Figure 4): shares of the images, which add up to 1.

    Args:
        explainer_logits: [N, C].
        classifier_logits: [N, C].
        labels: Integers [N] below C.

    Returns:
        Float64 [2, 2]; rows are the explainer correct and incorrect, columns the classifier correct and incorrect.

    Raises:
        UserError: Shapes do not match, C is 1, or labels are no classes.
    """
    _check(explainer_logits, labels)
    _check(classifier_logits, labels)
    wrong = [(logits.argmax(1) != labels).long() for logits in (explainer_logits, classifier_logits)]
    return (2 * wrong[0] + wrong[1]).bincount(minlength=4).reshape(2, 2).double() / len(labels)


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
    _check(logits, labels)
    classes, predicted = logits.shape[1], logits.argmax(1)
    if classes == 2:
        values = {
            "precision": classification.binary_precision(predicted, labels),
            "recall": classification.binary_recall(predicted, labels),
            "f1": classification.binary_f1_score(predicted, labels),
        }
    else:
        values = {
            "precision": classification.multiclass_precision(predicted, labels, classes, average="macro"),
            "recall": classification.multiclass_recall(predicted, labels, classes, average="macro"),
            "f1": classification.multiclass_f1_score(predicted, labels, classes, average="macro"),
        }
    values["mcc"] = _matthews(predicted, labels, classes)
    return {name: float(value) for name, value in values.items()}


def _one_of_the_classes(block: Measured) -> Tensor:
    images, classes = given(block.logits).shape
    return torch.full((images,), 1 / classes, dtype=torch.float64)


@metric(
    "classification",
    columns=(
        percent(
            "accuracy",
            "Accuracy",
            "Share of images classified correctly.",
            short="Acc.",
            needs=frozenset({"labels"}),
            chance_from=_one_of_the_classes,
        ),
        percent(
            "agreement",
            "Agreement",
            "Share of images on which it predicts what the classifier predicts.",
            short="Agree",
            needs=frozenset({"network"}),
        ),
        percent(
            "classifier_accuracy",
            "Accuracy of the classifier",
            "Share of images that the classifier it explains gets right.",
            short="Clf.",
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
        _check_alike(logits, block.classifier_logits)
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
            short="Prec.",
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


def _check_alike(a: Tensor, b: Tensor) -> None:
    _check_logits(a)
    _check_logits(b)
    if a.shape != b.shape:
        raise UserError(f"logits of shape {tuple(a.shape)} and {tuple(b.shape)}; both have to be of the same images")


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
