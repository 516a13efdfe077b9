from dataclasses import replace

import pandas as pd

from tests.classifiers.bench import FIT
from xai.papers.vectors.params import TransferParams, choose_lambda2

PARAMS = TransferParams(
    alpha=0.1,
    lambda1=1.0,
    lambda2=None,
    lambda2_grid=(0.4, 0.8),
    accuracy_tolerance=0.02,
    source_images=None,
    target_images=None,
    validation_images=None,
    bound_coalitions=16,
    source_fit=FIT,
    target_fit=FIT,
    bound_fit=FIT,
)


def means(*rows: tuple[float, float, float]) -> pd.DataFrame:
    """Of lambda2, accuracy and E-RMSE."""
    return pd.DataFrame(rows, columns=["lambda2", "accuracy", "e_rmse"]).set_index("lambda2")


def test_lambda2_is_the_best_explainer_among_those_that_keep_the_accuracy() -> None:
    rows = [(0.4, 0.95, 1.2), (0.7, 0.94, 1.0), (1.0, 0.93, 0.9), (1.2, 0.80, 0.8)]
    assert choose_lambda2(means(*rows), 0.93) == 1.0
    assert choose_lambda2(means(*rows[::-1]), 0.93) == 1.0
    assert choose_lambda2(means(*rows), 0.0) == 1.2
    assert choose_lambda2(means(*rows), 0.945) == 0.4


def test_where_none_keeps_the_accuracy_the_most_accurate_is_taken() -> None:
    rows = [(1.0, 0.91, 0.9), (0.4, 0.90, 1.2), (0.7, 0.91, 1.1)]
    assert choose_lambda2(means(*rows), 0.95) == 0.7  # of two alike the smaller step
    assert choose_lambda2(means(rows[1]), 0.95) == 0.4


def test_the_ranges_include_their_ends() -> None:
    replace(PARAMS, alpha=0.0, lambda1=0.0, lambda2=10.0, lambda2_grid=(0.0,), accuracy_tolerance=0.0)
