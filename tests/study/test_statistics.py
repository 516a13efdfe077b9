import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.study.frames import drawn, frame, lines, paired
from tests.toolbox import there
from xai.core.errors import UserError
from xai.study.statistics import (
    LEVEL,
    best_and_ties,
    bootstrap,
    difference,
    holm,
    normalised,
    summary,
    t_interval,
    t_test,
    wide,
)


def one(table):
    (line,) = table.to_dict("records")
    return line


def test_the_interval_is_scipys():
    values = np.random.default_rng(0).normal(size=5)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_interval(values) == pytest.approx((expected.low, expected.high))
    assert all(map(math.isnan, t_interval([1.0])))


def test_the_bootstrap_is_scipys_but_for_its_draws_and_is_repeatable():
    values = np.random.default_rng(1).exponential(size=200)
    expected = stats.bootstrap((values,), np.mean, method="percentile", n_resamples=5000, rng=0).confidence_interval
    assert bootstrap(values) == pytest.approx((expected.low, expected.high), abs=0.01)
    assert bootstrap(values) == bootstrap(values)
    assert all(map(math.isnan, bootstrap([1.0])))


def test_holms_correction_is_that_of_its_definition():
    p = [0.01, 0.04, math.nan, 0.03, 0.005]
    # Sorted 0.005, 0.01, 0.03, 0.04 times 4, 3, 2, 1, and never falling.
    assert holm(p) == pytest.approx([0.03, 0.06, math.nan, 0.06, 0.02], nan_ok=True)
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def test_a_test_of_equal_differences_says_that_there_is_none_or_that_there_is_one():
    assert t_test(np.zeros(3)) == t_test(np.array([0.3, 0.1 + 0.2]) - 0.3) == 1.0
    assert t_test(np.array([0.3, 0.1 + 0.2])) == 0.0
    assert math.isnan(t_test(np.array([0.1])))


def test_means_are_over_images_and_then_over_seeds():
    table = one(summary(frame(lines("ours", "srg", [0.0, 1.0, math.nan]), lines("ours", "srg", [1.0] * 3, seed=1))))
    assert table["mean"] == 0.75
    assert (table["low"], table["high"]) == pytest.approx(t_interval([0.5, 1.0]))
    assert table["spread"] == pytest.approx(np.std([0.5, 1.0], ddof=1))
    assert (table["how"], table["runs"], table["seeds"], table["n_images"]) == ("seeds", 2, 2, 3)


def test_one_seed_has_an_interval_over_images():
    values = np.random.default_rng(0).normal(size=30)
    table = one(summary(lines("ours", "srg", [*values, math.nan])))
    assert table["mean"] == pytest.approx(values.mean())
    assert (table["low"], table["high"]) == bootstrap(values)
    assert (table["how"], table["seeds"], table["n_images"]) == ("images", 1, 30)


def test_one_value_of_all_images_has_no_interval():
    table = one(summary(lines("ours", "mcc", 0.6)))
    assert (table["mean"], table["how"], table["n_images"]) == (0.6, "", 0)
    assert math.isnan(table["low"])


def test_a_metric_that_is_nowhere_defined_stays_nan():
    table = one(summary(lines("ours", "srg", [math.nan, math.nan])))
    assert math.isnan(table["mean"])
    assert table["runs"] == 0


def test_data_and_source_may_be_pooled():
    parts = [lines("ours", "srg", [value] * 2, data=name) for name, value in (("a", 0.0), ("b", 1.0))]
    assert sorted(summary(frame(*parts))["mean"]) == [0.0, 1.0]
    table = one(summary(frame(*parts), pool=["data", "source"]))
    assert (table["mean"], table["runs"], table["seeds"]) == (0.5, 2, 1)


def test_a_parameter_tells_no_rows_apart():
    sweep = frame(*(lines("ours", "srg", [share] * 2, lambda2=share) for share in (0.25, 1.0)))
    with pytest.raises(UserError, match=r"two values of srg for ours.*differ in lambda2"):
        summary(sweep)
    # A value that was chosen for each seed is no row of its own.
    chosen = frame(*(lines("ours", "srg", [0.5] * 2, seed, lambda2=seed / 2) for seed in range(2)))
    assert one(summary(chosen))["runs"] == 2


def test_two_splits_do_not_make_a_mean():
    with pytest.raises(UserError, match="test and validation"):
        summary(frame(lines("ours", "srg", [1.0]), lines("ours", "srg", [1.0], split="validation")))


def test_paired_differences_are_scipys_over_images_and_over_seeds():
    drawn_frame = drawn({"ours": 0.5, "rise": 0.4})
    found = paired(drawn_frame, "srg", "ours", "rise")
    a, b = (drawn_frame[drawn_frame["explainer"] == row]["value"].to_numpy().reshape(3, 40) for row in ("ours", "rise"))
    over_seeds, over_images = stats.ttest_rel(a.mean(1), b.mean(1)), stats.ttest_rel(a.mean(0), b.mean(0))
    assert found.by_run == pytest.approx(tuple((a - b).mean(1)))
    assert found.mean == pytest.approx((a - b).mean())
    assert found.over_runs == pytest.approx(tuple(over_seeds.confidence_interval(0.95)))
    assert found.over_images == pytest.approx(((a - b).mean(), *over_images.confidence_interval(0.95)))
    assert (found.p_runs, found.p_images) == pytest.approx((over_seeds.pvalue, over_images.pvalue))
    assert (found.seeds, found.images) == (3, 40)


def test_an_image_of_several_seeds_counts_once_whatever_else_they_have():
    parts = [lines(row, "srg", [0.3, 0.4], seed, [seed, seed + 1]) for row in ("ours", "rise") for seed in range(2)]
    assert paired(frame(*parts), "srg", "ours", "rise").images == 3


def test_the_test_over_images_rejects_at_its_level_where_seeds_share_some_of_them():
    draw, p = np.random.default_rng(0), []
    names = ["model", "data", "source", "split", "seed", "image"]
    for _ in range(100):
        own = draw.normal(size=60)
        shown = [("m", "d", "", "test", seed, image) for seed in range(4) for image in draw.permutation(60)[:50]]
        ours = pd.Series(
            [own[key[-1]] + 0.1 * draw.normal() for key in shown], pd.MultiIndex.from_tuples(shown, names=names)
        )
        found = there(difference(ours, ours * 0))
        p.append(found.p_images)
    assert np.mean(np.array(p) < LEVEL) == pytest.approx(LEVEL, abs=0.05)


def test_images_that_one_row_leaves_undefined_are_left_out_of_the_pair():
    found = paired(
        frame(lines("ours", "srg", [0.5, 0.9]), lines("rise", "srg", [0.4, math.nan])), "srg", "ours", "rise"
    )
    assert found.by_run == pytest.approx((0.1,))
    assert found.images == 1


def test_pairs_are_of_one_seed():
    assert (
        paired(frame(lines("ours", "srg", [0.5]), lines("rise", "srg", [0.4], seed=1)), "srg", "ours", "rise") is None
    )
    assert paired(lines("ours", "srg", [0.5]), "srg", "ours", "rise") is None


def test_one_metric_may_be_compared_with_another():
    found = paired(frame(lines("ours", "srg", [0.5]), lines("ours", "mif", [0.2])), "srg", "ours", "ours", than="mif")
    assert found.by_run == pytest.approx((0.3,))


def test_a_row_without_a_source_is_paired_with_each():
    parts = [lines("ours", "srg", [value] * 2, source=name) for name, value in (("a", 0.5), ("b", 0.7))]
    found = paired(frame(*parts, lines("rise", "srg", [0.4] * 2)), "srg", "ours", "rise")
    assert sorted(found.by_run) == pytest.approx([0.1, 0.3])
    assert one(summary(frame(lines("rise", "srg", [0.4])), pool=["source"]))["runs"] == 1


def test_normalised_values_are_shares_of_the_way_in_each_run():
    parts = [lines("low", "srg", 0.2, seed) for seed in range(2)] + [
        lines("high", "srg", 0.6 + seed, seed) for seed in (0, 1)
    ]
    shares = normalised(frame(*parts, *(lines("ours", "srg", 0.4, seed) for seed in range(2))), one="high", zero="low")
    found = summary(shares).set_index("explainer")["mean"]
    assert found["ours"] == pytest.approx((0.5 + 0.2 / 1.4) / 2)
    assert (found["low"], found["high"]) == (0.0, 1.0)
    ratio = normalised(frame(lines("ours", "srg", [0.1, 0.3]), lines("high", "srg", [0.4, 0.4])), one="high")
    assert ratio.set_index("explainer")["value"]["ours"] == pytest.approx(0.5)
    with pytest.raises(UserError, match="no row of the frame"):
        normalised(ratio, one="nobody")


def test_the_best_and_its_ties_are_tested_over_runs():
    found = best_and_ties(wide(drawn({"ours": 0.5, "rise": 0.5, "random": 0.0}), "srg"), "higher")
    assert found.name in ("ours", "rise")
    assert found.tied == {"ours", "rise"} - {found.name}
    assert (found.runs, found.over) == (3, "runs")
    assert best_and_ties(wide(drawn({"ours": 0.5, "random": 0.0}), "srg"), "lower").name == "random"


def test_one_run_is_tested_over_its_images():
    found = best_and_ties(wide(drawn({"ours": 0.5, "rise": 0.5, "random": 0.0}, seeds=1), "srg"), "higher")
    assert (len(found.tied), found.runs, found.over) == (1, 1, "images")


def test_a_row_that_is_worse_by_the_same_everywhere_is_no_tie_and_an_equal_one_is():
    parts = [
        lines(row, "mcc", value, seed)
        for row, value in (("ours", 1.0), ("rise", 724.0), ("grad_cam", 1.0))
        for seed in range(3)
    ]
    found = best_and_ties(wide(frame(*parts), "mcc"), "lower")
    assert found.tied == {"ours", "grad_cam"} - {found.name}


def test_nobody_is_the_best_alone_or_in_runs_that_are_not_shared():
    assert best_and_ties(wide(drawn({"ours": 0.5}), "srg"), "higher").name is None
    apart = frame(lines("ours", "srg", [0.5]), lines("rise", "srg", [0.4], seed=1))
    assert best_and_ties(wide(apart, "srg"), "higher").name is None


def test_the_mean_of_an_rmse_is_the_root_of_the_mean_square():
    given = frame(
        *(lines("ours", "e_rmse", [3.0, 4.0, math.nan], seed) for seed in range(2)),
        *(lines("rise", "e_rmse", [1.0, 7.0, 9.0], seed) for seed in range(2)),
    )
    means = summary(given, quadratic=["e_rmse"]).set_index("explainer")["mean"]
    assert means["ours"] == pytest.approx(math.sqrt(12.5))
    alone = one(summary(lines("ours", "e_rmse", [3.0, 4.0, 5.0]), quadratic=["e_rmse"]))
    assert alone["mean"] == pytest.approx(math.sqrt(50 / 3))
    assert alone["low"] < alone["mean"] < alone["high"]
    found = paired(given, "e_rmse", "ours", "rise", quadratic=True)
    assert found.by_run == pytest.approx((math.sqrt(12.5) - 5,) * 2)
    assert found.over_images[0] == pytest.approx(-0.5)
    assert best_and_ties(wide(given, "e_rmse"), "lower", quadratic=True).name == "ours"
