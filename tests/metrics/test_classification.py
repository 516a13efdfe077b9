"""Figures of an explainable classifier, against scikit-learn and loops."""

import re

import numpy as np
import pytest
import torch
from sklearn import metrics
from torch import Tensor

from tests.toolbox import refusal
from xai.metrics.classification import correct, precision_recall_f1_mcc
from xai.metrics.streaming import measured


def logits(images: int, classes: int, seed: int = 0) -> Tensor:
    return torch.randn(images, classes, generator=torch.Generator().manual_seed(seed))


def labels(images: int, classes: int, seed: int = 1) -> Tensor:
    return torch.randint(classes, (images,), generator=torch.Generator().manual_seed(seed))


def saying(predicted: list[int], classes: int) -> Tensor:
    """Logits that predict this."""
    return torch.nn.functional.one_hot(torch.tensor(predicted), classes).double()


def sklearns(predicted: np.ndarray, true: np.ndarray, average: str) -> dict[str, float]:
    settings = {"average": average, "zero_division": 0}
    return {
        "precision": metrics.precision_score(true, predicted, **settings),
        "recall": metrics.recall_score(true, predicted, **settings),
        "f1": metrics.f1_score(true, predicted, **settings),
        "mcc": metrics.matthews_corrcoef(true, predicted),
    }


@pytest.mark.parametrize(("classes", "average"), [(2, "binary"), (3, "macro"), (10, "macro")])
@pytest.mark.parametrize("images", [7, 300])
def test_columns_of_table_4_are_scikit_learns(classes: int, average: str, images: int) -> None:
    said, true = logits(images, classes), labels(images, classes)
    said[: images // 2] += 3 * torch.nn.functional.one_hot(true[: images // 2], classes)
    found = precision_recall_f1_mcc(said, true)
    expected = sklearns(said.argmax(1).numpy(), true.numpy(), average)
    assert list(found) == ["precision", "recall", "f1", "mcc"]
    assert found == pytest.approx(expected, abs=1e-6)
    assert len({round(value, 4) for value in found.values()}) > 1


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.filterwarnings("ignore:A single label")
@pytest.mark.parametrize(
    ("predicted", "true"),
    [
        ([1, 1, 1], [1, 1, 0]),
        ([1, 1, 0], [1, 1, 1]),
        ([1, 1, 1], [1, 1, 1]),
        ([0, 0, 0], [1, 1, 1]),
        ([0] * 3, [0] * 3),
    ],
)
def test_saying_one_class_only_earns_nothing(predicted: list[int], true: list[int], classes: int) -> None:
    found = precision_recall_f1_mcc(saying(predicted, classes), torch.tensor(true))
    assert found["mcc"] == 0
    expected = sklearns(np.array(predicted), np.array(true), "binary" if classes == 2 else "macro")
    assert found == pytest.approx(expected, abs=1e-6)


def compared(a: Tensor, b: Tensor) -> Tensor:
    """1 where two classifiers say the same."""
    return correct(measured(logits=a, classifier_logits=b), None)["agreement"]


ONE_LINERS = [
    (lambda: precision_recall_f1_mcc(logits(3, 1), torch.zeros(3).long()), r"\(3, 1\); .* C >= 2 classes"),
    (lambda: compared(logits(3, 1), logits(3, 1)), "C >= 2 classes"),
    (lambda: compared(logits(3, 2), logits(3, 4)), r"\(3, 2\) and \(3, 4\)"),
    (lambda: compared(logits(0, 2), logits(0, 2)), "N >= 1 images"),
    (lambda: precision_recall_f1_mcc(logits(3, 2), labels(4, 2)), r"\(4,\); they have to be integers \[3\]"),
    (lambda: precision_recall_f1_mcc(logits(3, 2), labels(0, 2)), r"\(0,\); they have to be integers \[3\]"),
    (lambda: precision_recall_f1_mcc(logits(3, 2), torch.tensor([0, 1, 2])), "from 0 to 2; 2 classes are 0 to 1"),
    (lambda: precision_recall_f1_mcc(logits(3, 2), torch.tensor([0, 1, -1])), "from -1 to 1; 2 classes are 0 to 1"),
    (lambda: precision_recall_f1_mcc(logits(3, 2), torch.zeros(3)), r"torch\.float32 labels .* have to be integers"),
    (lambda: compared(logits(3, 2) * torch.nan, logits(3, 2)), "NaN"),
]


@pytest.mark.parametrize(("call", "message"), ONE_LINERS)
def test_what_cannot_be_compared_is_refused_in_one_line(call, message) -> None:
    assert re.search(message, refusal(call))
