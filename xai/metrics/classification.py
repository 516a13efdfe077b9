"""How an explainable classifier compares with the classifier it explains (Naouar et al. 2025, section 5.5 and A.4).

All take logits or probabilities [N, C], of which the largest is the prediction.
"""

import torch
from torch import Tensor
from torchmetrics.functional import classification

from xai.core.errors import UserError


def agreement(a: Tensor, b: Tensor) -> Tensor:
    """Share of images for which two classifiers predict the same class, a float64 scalar.

    Args:
        a: [N, C].
        b: [N, C], on the same device.

    Raises:
        UserError: The shapes differ, or are not [N, C] with C >= 2.
    """
    _check_logits(a)
    _check_logits(b)
    if a.shape != b.shape:
        raise UserError(f"logits of shape {tuple(a.shape)} and {tuple(b.shape)}; both have to be of the same images")
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
