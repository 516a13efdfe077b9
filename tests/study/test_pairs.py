"""Numbers of pairs of data sets against scipy and a loop over all orders of the sets."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from tests.study.frames import COLUMNS, frame, lines
from tests.toolbox import refusal
from xai.core.errors import UserError
from xai.core.settings import build
from xai.report.layout import TableParams
from xai.report.tables import build_tables
from xai.study.claims import Claim, Claims, judge, judge_pairs, table_of
from xai.study.pairs import Choice, Condition, Quantity, Relation, Share, correlation, of_pairs, quantity
from xai.study.statistics import t_interval

SETS = ("a", "b", "c", "d", "e")
PAIRS = [(source, data) for source in SETS for data in SETS if source != data]


def drawn(seed, noise=0.3):
    """Two numbers of each pair that depend on the sets."""
    draw = np.random.default_rng(seed)
    strength = dict(zip(SETS, draw.normal(size=5), strict=True))
    index = pd.MultiIndex.from_tuples(PAIRS, names=["source", "data"])
    x = pd.Series([strength[s] + strength[d] for s, d in PAIRS], index=index)
    return x, x + noise * draw.normal(size=len(x))


@pytest.mark.parametrize("seed", [0, 1])
def test_a_correlation_is_scipys_and_its_permutation_that_of_all_orders(seed):
    x, y = drawn(seed)
    found = correlation(x, y)
    expected = stats.pearsonr(x, y)
    assert (found.r, found.p, found.n) == (pytest.approx(expected.statistic), pytest.approx(expected.pvalue), 20)
    beyond = []
    for order in itertools.permutations(SETS):
        named = dict(zip(SETS, order, strict=True))
        moved = [x[named[source], named[data]] for source, data in PAIRS]
        beyond.append(abs(stats.pearsonr(moved, y).statistic) >= abs(found.r) - 1e-12)
    assert found.permuted == pytest.approx(np.mean(beyond))


def test_an_incomplete_set_of_pairs_is_permuted_by_the_orders_that_keep_it():
    x, y = drawn(0, noise=3.0)
    # Each order of the other four sets keeps the pairs of `a`, as a source alone.
    star = x.index.get_level_values("source") == "a"
    found = correlation(x[star], y[star])
    moved = [abs(stats.pearsonr(order, y[star]).statistic) for order in itertools.permutations(x[star])]
    assert found.permuted == pytest.approx(np.mean(np.array(moved) >= abs(found.r) - 1e-12))
    # The pairs of this path only the order that they have.
    path = x.index.isin(list(itertools.pairwise(SETS)))
    assert math.isfinite(correlation(x[path], y[path]).r)
    assert math.isnan(correlation(x[path], y[path]).permuted)


def test_what_is_the_same_everywhere_or_missing_correlates_with_nothing():
    x, y = drawn(0)
    for other in (y * 0, y.where(y.index.isin(PAIRS[:2]))):
        assert math.isnan(correlation(x, other).r)


def measured(seeds=3, good=PAIRS):
    """Rows of each pair and of each set with itself: the error halves in the good pairs, a tenth of accuracy goes."""
    parts = []
    for seed in range(seeds):
        for source, data in itertools.product(SETS, SETS):
            common = {"seed": seed, "source": source, "data": data}
            error = [0.4, 0.8] if (source, data) in good or source == data else [2.0, 2.0]
            parts.append(lines("proposed", "e_rmse", error, **common))
            parts.append(lines("ft_target", "e_rmse", [0.8, 1.6], **common))
            parts.append(lines("proposed", "mcc", 0.81, **common))
            parts.append(lines("ft_target", "mcc", 0.9, **common))
            parts.append(lines("proposed", "near", float(SETS.index(source) + seed / 9), **common))
            parts.append(lines("proposed", "far", float(SETS.index(source)), **common))
    return frame(*parts)


def test_pairs_are_told_from_a_set_with_itself_and_averaged_as_the_metric_is():
    pairs = of_pairs(measured(1), COLUMNS)
    assert len(pairs) == len(PAIRS)
    np.testing.assert_allclose(pairs["e_rmse", "proposed"], math.sqrt((0.4**2 + 0.8**2) / 2))
    np.testing.assert_allclose(quantity(pairs, Quantity("mcc", "ft_target", "proposed")), 0.09)
    assert quantity(pairs, Quantity("nothing")).isna().all()
    assert "no pair of two data sets" in refusal(of_pairs, measured(1).assign(source="a", data="a"), COLUMNS)


LOWER = Condition("e_rmse", "proposed", "ft_target", below=1)
SHARES = [
    Share("keeps it", [LOWER, Condition("mcc", "proposed", "ft_target", least=0.9)]),
    Share("keeps more", [Condition("mcc", "proposed", "ft_target", least=0.95)]),
    Share("who knows", [Condition("mcc", "nobody", "ft_target", least=0.95)]),
]


def test_most_pairs_is_more_than_half_of_them_in_every_seed():
    found = {line["claim"]: line for line in judge_pairs(measured(good=PAIRS[:11]), Claims([], shares=SHARES), COLUMNS)}
    assert found["keeps it"]["difference"] == pytest.approx(11 / 20)
    verdicts = {name: line["verdict"] for name, line in found.items()}
    assert verdicts == {"keeps it": "holds", "keeps more": "does not hold", "who knows": "not measured"}
    (few,) = judge_pairs(measured(seeds=2), Claims([], shares=SHARES[:1]), COLUMNS)
    assert (few["verdict"], few["why"]) == ("undecided", "2 seeds, of at least 3")
    assert "conditions=[] must list 1 or more" in refusal(build, Share, {"text": "nothing is asked", "conditions": []})


def test_pairs_that_do_not_define_what_a_share_or_a_relation_is_about_do_not_count():
    given = measured(good=PAIRS[:11])
    bad = pd.MultiIndex.from_frame(given[["source", "data"]]).isin(PAIRS[11:17])
    given = given.assign(value=given["value"].where(~(bad & (given["metric"] == "e_rmse"))))
    (share,) = judge_pairs(given, Claims([], shares=SHARES[:1]), COLUMNS)
    assert (share["difference"], share["metric"]) == (pytest.approx(11 / 14), "share of 14 pairs")
    path = pd.MultiIndex.from_frame(given[["source", "data"]]).isin(list(itertools.pairwise(SETS)))
    relation = Relation(Quantity("near"), Quantity("far"), "", 1)
    (line,) = judge_pairs(given[path], Claims([], relations=[relation]), COLUMNS)
    assert (line["verdict"], line["why"]) == ("undecided", "the sets have too few orders to permute")


def test_a_share_and_a_choice_are_undecided_where_the_interval_over_seeds_holds_the_threshold():
    # More than half in every seed, and an interval from .1 to 1.3, of which a share has .1 to 1.
    unlike = pd.concat(
        measured(1, good=PAIRS[:count]).assign(seed=seed) for seed, count in enumerate((11, 12, len(PAIRS)))
    )
    (share,) = judge_pairs(unlike, Claims([], shares=SHARES[:1]), COLUMNS)
    low, high = t_interval([11 / 20, 12 / 20, 1.0])
    assert low < 0.5 < 1 < high
    assert (share["verdict"], share["why"]) == ("undecided", "the interval holds 0.5")
    assert (share["low"], share["high"]) == (pytest.approx(low), 1)


def test_a_relation_is_the_mean_over_seeds_and_lies_in_its_own_interval():
    # Noise of each seed's own: r of the means over seeds is larger than any seed's, and is told beside it.
    x, _ = drawn(3)
    noise = np.random.default_rng(4).normal(size=(3, len(PAIRS)))
    given = frame(
        *(
            lines("proposed", metric, float(value), seed=seed, source=source, data=data)
            for seed in range(3)
            for (source, data), of_x, off in zip(PAIRS, x, noise[seed], strict=True)
            for metric, value in (("near", of_x), ("far", of_x + 2 * off))
        )
    )
    (line,) = judge_pairs(given, Claims([], relations=[Relation(Quantity("near"), Quantity("far"), "", 1)]), COLUMNS)
    each = [stats.pearsonr(x, x + 2 * off).statistic for off in noise]
    of_means = stats.pearsonr(x, x + 2 * noise.mean(0)).statistic
    assert line["difference"] == pytest.approx(np.tanh(np.mean(np.arctanh(each))))
    assert line["low"] < line["difference"] < min(line["high"], of_means)
    assert f"of the means over seeds r = {of_means:.2f}" in line["metric"]


def test_a_relation_holds_with_its_sign_and_not_against_it():
    relations = [Relation(Quantity("near"), Quantity("far"), "Figure 6", sign) for sign in (1, -1)]
    relations.append(Relation(Quantity("near"), Quantity("nothing"), "Figure 6", 1))
    table = table_of([], judge_pairs(measured(), Claims([], relations=relations), COLUMNS))
    assert list(table["verdict"]) == ["holds", "does not hold", "not measured"]
    assert table["difference"][0] == pytest.approx(1)
    assert -1 <= table["low"][0] <= table["high"][0] <= 1
    assert set(table["where"]) == {"pairs of 5 data sets · vit_tiny"}
    with pytest.raises(UserError, match="sign=0 is unknown: use 1 or -1"):
        build(Relation, {"x": {"metric": "near"}, "y": {"metric": "far"}, "paper": "", "sign": 0})


def test_the_chosen_source_is_compared_with_the_mean_of_all_sources_of_its_target():
    # `near` of a source is its number; so is `far`, which therefore is least where `near` is.
    choices = [Choice("least", Quantity("near"), Quantity("far"), lowest=True)]
    choices.append(Choice("most", Quantity("near"), Quantity("far"), lowest=False))
    choices.append(Choice("unknown", Quantity("nothing"), Quantity("far"), lowest=True))
    least, most, unknown = judge_pairs(measured(), Claims([], choices=choices), COLUMNS)
    sources = [[number for number in range(5) if number != target] for target in range(5)]
    assert least["difference"] == pytest.approx(np.mean([min(each) - np.mean(each) for each in sources]))
    assert most["difference"] == pytest.approx(np.mean([max(each) - np.mean(each) for each in sources]))
    assert [line["verdict"] for line in (least, most, unknown)] == ["holds", "does not hold", "not measured"]
    # As beside all that is claimed of pairs: no set that is its own source is judged.
    beside = Claims([Claim(["mcc"], ["ft_target"], ["proposed"], "")], choices=choices)
    assert {each.where for each in judge(measured(), beside, COLUMNS)} == {f"{s} → {d} · vit_tiny" for s, d in PAIRS}


def test_a_table_over_pairs_counts_each_once_whatever_its_seeds_and_leaves_a_set_with_itself_out():
    params = TableParams(columns=["e_rmse"], pool=["data", "source"], unit="data", pairs=True, percent=False)
    (table,) = build_tables(measured(good=PAIRS[:11]), params, COLUMNS)
    cell = table.cell("proposed", "e_rmse")
    values = [math.sqrt(0.4)] * 11 + [2.0] * 9
    assert (cell.mean, cell.runs) == (pytest.approx(np.mean(values)), 20)
    assert "over 20 pairs of data sets, each the mean of 3 seeds." in table.notes[0]
    assert "paired t-test over 20 pairs of data sets" in table.notes[1]
    (runs,) = build_tables(measured(), replace(params, unit="run", pairs=False), COLUMNS)
    assert runs.cell("proposed", "e_rmse").runs == 75
