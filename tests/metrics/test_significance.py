"""Tests between rows, against the textbook formulas and a table that could be checked by hand."""

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from xai.core.errors import UserError
from xai.metrics.significance import best_and_ties, confidence_interval, mean_and_deviation, paired_t_test

A = [0.81, 0.84, 0.79, 0.90, 0.86]
B = [0.78, 0.85, 0.75, 0.84, 0.83]


def test_p_value_is_that_of_t_on_the_differences():
    d = np.subtract(A, B)
    t = d.mean() / (d.std(ddof=1) / math.sqrt(5))
    assert paired_t_test(A, B) == pytest.approx(2 * stats.t.sf(abs(t), 4), rel=1e-10)
    assert paired_t_test(B, A) == pytest.approx(paired_t_test(A, B), rel=1e-10)


def test_where_the_test_says_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert math.isnan(paired_t_test([], []))
        assert math.isnan(paired_t_test([1.0], [2.0]))
        assert math.isnan(paired_t_test([1.0, math.nan, 2.0], [1.0, 1.0, 1.5]))
        assert math.isnan(paired_t_test(A, [a + 0.1 for a in A]))
        assert paired_t_test(A, A) == 1.0


def test_small_but_real_spread_is_tested():
    shifted = [a + 0.1 + 1e-6 * i for i, a in enumerate(A)]
    assert paired_t_test(A, shifted) < 1e-12


def test_unpaired_rows_are_refused():
    with pytest.raises(UserError, match="same runs"):
        paired_t_test(A, B[:4])
    with pytest.raises(UserError, match="same runs"):
        best_and_ties({"a": A, "b": B[:4]}, True)


ROWS = {
    "low": [0.1, 0.2, 0.1, 0.2, 0.1],
    "close": [0.90, 0.79, 0.86, 0.81, 0.84],
    "best": [a + e for a, e in zip(A, [0.01, 0.0, 0.02, 0.0, 0.01], strict=True)],
    "broken": [0.99, 0.99, math.nan, 0.99, 0.99],
}


def test_best_and_those_not_shown_to_differ():
    assert best_and_ties(ROWS, larger_is_better=True) == ("best", {"best", "close"})
    assert best_and_ties(ROWS, larger_is_better=False) == ("low", {"low"})


def test_level_decides():
    p = paired_t_test(A, B)
    assert best_and_ties({"b": B, "a": A}, True, level=p * 0.99) == ("a", {"a", "b"})
    assert best_and_ties({"b": B, "a": A}, True, level=p * 1.01) == ("a", {"a"})


def test_single_runs_equal_rows_and_no_rows():
    assert best_and_ties({"a": [0.5], "b": [0.6]}, True) == ("b", {"a", "b"})
    assert best_and_ties({"a": A, "b": list(A)}, True) == ("a", {"a", "b"})
    assert best_and_ties({"a": [math.nan], "b": [0.6]}, True) == ("b", {"b"})
    assert best_and_ties({"a": [math.nan]}, True) == (None, set())
    assert best_and_ties({"a": []}, True) == (None, set())
    assert best_and_ties({}, True) == (None, set())


def test_mean_and_deviation():
    assert mean_and_deviation(A) == pytest.approx((np.mean(A), np.std(A) * math.sqrt(5 / 4)), rel=1e-12)
    mean, deviation = mean_and_deviation([0.5])
    assert mean == 0.5
    assert math.isnan(deviation)
    assert all(map(math.isnan, mean_and_deviation([])))
    assert all(map(math.isnan, mean_and_deviation([0.5, math.nan])))


@pytest.mark.parametrize("level", [0.5, 0.95])
def test_interval_is_scipys_and_covers_the_mean_as_often_as_it_says(level):
    assert confidence_interval(A, level) == pytest.approx(
        stats.t.interval(level, 4, loc=np.mean(A), scale=stats.sem(A)), rel=1e-12
    )
    draws = np.random.default_rng(0).normal(3.0, 2.0, (1000, 3))
    covered = [low <= 3.0 <= high for low, high in (confidence_interval(d, level) for d in draws)]
    assert np.mean(covered) == pytest.approx(level, abs=0.04)


def test_interval_of_too_few_values_or_a_wrong_level():
    assert all(map(math.isnan, confidence_interval([])))
    assert all(map(math.isnan, confidence_interval([0.5])))
    for level in (0.0, 1.0, 95.0, math.nan):
        with pytest.raises(UserError, match="between 0 and 1"):
            confidence_interval(A, level)
        with pytest.raises(UserError, match="between 0 and 1"):
            best_and_ties({"a": A}, True, level)
