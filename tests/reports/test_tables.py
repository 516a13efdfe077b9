import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from xai.core.errors import UserError
from xai.reports.columns import COLUMNS
from xai.reports.roles import KINDS, ROLES
from xai.reports.tables import Cell, describe, sweep_table, transfer_table
from xai.results import Result, collect, write_result

RNG = np.random.default_rng(0)
ACCURACY = {"zero_shot": 0.5, "ft_target": 0.94, "proposed": 0.93, "ft_target_x": 0.95, "random_vector": 0.97}
CHANCE = {"accuracy": 0.1, "e_rmse": math.sqrt(2)}


def result(role="proposed", seed=0, metrics=None, **changes):
    values = {
        "method": "transfer",
        "role": role,
        "data": "mnist",
        "source": "digits",
        "model": "tiny",
        "seed": seed,
        "params": {"lambda2": 0.8},
        "metrics": {"accuracy": 0.9} if metrics is None else metrics,
        "n_images": 2,
        "seconds": 1.0,
        "peak_memory_bytes": 1,
        "split": "test",
        "chance": CHANCE,
        "lineage": {},
    }
    return Result(**(values | changes))


def rows(values):
    """Results of roles over seeds from {role: {metric: [value of each seed]}}."""
    return [
        result(role, seed, {name: column[seed] for name, column in metrics.items()})
        for role, metrics in values.items()
        for seed in range(len(next(iter(metrics.values()))))
    ]


def marks(table, metric):
    return {row.role.name: table.cell(row.role.name, metric).mark for row in table.rows if row.role.kind == "method"}


def test_mean_and_deviation_are_numpys_and_one_run_has_no_deviation():
    values = RNG.normal(0.8, 0.05, 4)
    cell = transfer_table(rows({"proposed": {"rma": list(values)}})).cell("proposed", "rma")
    assert cell.mean == pytest.approx(values.mean(), rel=1e-12)
    assert cell.deviation == pytest.approx(np.std(values, ddof=1), rel=1e-12)
    assert cell.n == 4
    single = transfer_table([result(metrics={"rma": 0.25})]).cell("proposed", "rma")
    assert (single.mean, single.n) == (0.25, 1)
    assert math.isnan(single.deviation)


def test_rows_and_columns_come_in_the_papers_order_whatever_the_order_of_results():
    results = [result(role, metrics={"kendall": 0.1, "accuracy": 0.5}) for role in reversed(ROLES) if role != "chance"]
    table = transfer_table(results)
    assert [row.role.name for row in table.rows] == list(ROLES)
    assert [block.kind for block in table.blocks] == list(KINDS)
    assert [column.name for column in table.columns] == ["accuracy", "kendall"]
    paper = ["zero_shot", "ft_source", "ft_source_x", "ft_target", "proposed", "ft_target_x"]
    assert [row.role.name for row in table.rows][:6] == paper
    assert [COLUMNS[name].arrow for name in ("accuracy", "e_rmse", "iou@10")] == ["↑", "↓", "↑"]


def test_marks_are_those_of_scipy():
    base = np.array([0.90, 0.91, 0.89, 0.92, 0.90])
    values = {
        "zero_shot": base - np.array([0.4, 0.41, 0.39, 0.4, 0.42]),
        "ft_target": base,
        "proposed": base + np.array([0.03, -0.02, 0.02, -0.01, -0.005]),
        "ft_target_x": base + 0.05,
        "random_vector": base + 0.06,
    }
    table = transfer_table(rows({role: {"accuracy": list(v), "e_rmse": list(v)} for role, v in values.items()}))
    assert values["proposed"].mean() > base.mean()
    assert stats.ttest_rel(values["proposed"], base).pvalue > 0.05 > stats.ttest_rel(values["zero_shot"], base).pvalue
    assert marks(table, "accuracy") == {"zero_shot": "", "ft_target": "tied", "proposed": "best"}
    assert marks(table, "e_rmse") == {"zero_shot": "best", "ft_target": "", "proposed": ""}
    for role in ("ft_target_x", "random_vector"):
        assert table.cell(role, "accuracy").mark == ""
    assert any("5 runs, p ≥ 0.05" in note for note in table.notes)


def test_an_interval_and_the_unit_of_the_column_may_stand_in_a_cell():
    values = RNG.normal(0.8, 0.05, 4)
    percent = {"rma": replace(COLUMNS["rma"], scale=100)}
    results = [replace(one, chance={"rma": 0.1}) for one in rows({"proposed": {"rma": list(values)}})]
    table = transfer_table(results, columns=percent, spread="interval")
    cell = table.cell("proposed", "rma")
    assert cell.mean == pytest.approx(100 * values.mean())
    assert cell.deviation == pytest.approx(100 * stats.t.ppf(0.975, 3) * values.std(ddof=1) / 2)
    assert table.cell("chance", "rma").mean == pytest.approx(10)
    assert table.spread == "interval"
    assert any("half the 95 % confidence interval" in note for note in table.notes)


def test_kinds_are_the_blocks_and_name_what_is_compared():
    results = rows({"ft_target": {"accuracy": [0.9, 0.8]}, "proposed": {"accuracy": [0.8, 0.7]}})
    table = transfer_table(results, kinds={"bound": "Bound", "method": "Rivals"})
    assert [block.heading for block in table.blocks] == ["Rivals"]
    assert any("the best of the rivals." in note for note in table.notes)
    bound = transfer_table([*results, *rows({"ft_target_x": {"accuracy": [1.0, 0.9]}})])
    assert any("the best of the models, the bound left out." in note for note in bound.notes)


def test_level_is_that_of_the_test():
    a, b = [0.90, 0.91, 0.89, 0.92], [0.89, 0.92, 0.88, 0.90]
    p = float(stats.ttest_rel(a, b).pvalue)
    results = rows({"ft_target": {"accuracy": a}, "proposed": {"accuracy": b}})
    assert marks(transfer_table(results, level=p * 0.99), "accuracy")["proposed"] == "tied"
    assert marks(transfer_table(results, level=p * 1.01), "accuracy")["proposed"] == ""


def test_one_run_marks_the_best_and_claims_no_significance():
    table = transfer_table([result(role, metrics={"accuracy": value}) for role, value in ACCURACY.items()])
    assert marks(table, "accuracy") == {"zero_shot": "", "ft_target": "best", "proposed": ""}
    assert any("One run cannot show" in note for note in table.notes)
    assert not any("paired t-test" in note for note in table.notes)


def test_a_lone_row_is_best_of_nothing():
    table = transfer_table(rows({"proposed": {"accuracy": [0.9, 0.8]}, "ft_target_x": {"accuracy": [0.9, 0.8]}}))
    assert marks(table, "accuracy") == {"proposed": ""}
    assert not any("Bold" in note for note in table.notes)


def test_undefined_metrics_count_for_nothing_and_are_said():
    values = {"ft_target": {"kendall": [0.1, math.nan, 0.3]}, "proposed": {"kendall": [0.0, 0.1, 0.2]}}
    table = transfer_table([*rows(values), *(result("constant", s, {"kendall": math.nan}) for s in range(3))])
    cell = table.cell("ft_target", "kendall")
    assert (cell.mean, cell.n) == (pytest.approx(0.2), 2)
    assert marks(table, "kendall") == {"ft_target": "", "proposed": ""}
    assert math.isnan(table.cell("constant", "kendall").mean)
    assert any("undefined in some runs" in note for note in table.notes)
    assert any(note.startswith("–") for note in table.notes)
    nowhere = transfer_table(rows({"constant": {"kendall": [math.nan] * 2}}))
    assert not any("undefined in some runs" in note for note in nowhere.notes)


def test_metrics_that_a_row_lacks_are_undefined():
    table = transfer_table([result(metrics={"accuracy": 0.9, "rma": 0.5}), result("ink", metrics={"rma": 0.4})])
    assert math.isnan(table.cell("ink", "accuracy").mean)
    assert table.cell("ink", "rma").mean == 0.4


def test_marks_compare_shared_runs_only():
    many = rows({"ft_target": {"accuracy": [0.1, 0.1, 0.99, 0.99]}, "zero_shot": {"accuracy": [0.01, 0.02, 0.1, 0.1]}})
    table = transfer_table([*many, *rows({"proposed": {"accuracy": [0.5, 0.52]}})])
    # Over the two shared runs proposed is better, though the mean of ft_target over its four runs is larger.
    assert table.cell("ft_target", "accuracy").mean > table.cell("proposed", "accuracy").mean
    assert marks(table, "accuracy")["proposed"] == "best"
    assert "Over 2 runs: Proposed (transferred)." in table.notes
    assert any("runs that all models have" in note for note in table.notes)


def test_no_shared_run_no_mark():
    table = transfer_table([result("ft_target", 0), result("proposed", 1)])
    assert set(marks(table, "accuracy").values()) == {""}
    assert any("share no run" in note for note in table.notes)


def test_runs_differ_by_direction_and_a_result_without_source_stands_beside_each():
    a, b = [0.90, 0.85, 0.80, 0.95], [0.80, 0.76, 0.69, 0.85]
    runs = [("digits", 0), ("digits", 1), ("letters", 0), ("letters", 1)]
    proposed = [result(seed=s, source=source, metrics={"rma": v}) for (source, s), v in zip(runs, a, strict=True)]
    zero = [result("zero_shot", s, {"rma": v}, source=source) for (source, s), v in zip(runs, b, strict=True)]
    target = [result("ft_target", s, {"rma": v}, source=None) for s, v in enumerate([0.5, 0.45])]
    table = transfer_table([*proposed, *zero, *target])
    assert table.cell("ft_target", "rma").mean == pytest.approx(0.475)
    assert table.cell("ft_target", "rma").deviation == pytest.approx(np.std([0.5, 0.45], ddof=1))
    assert any("over 4 runs, p" in note for note in table.notes)
    assert marks(table, "rma") == {"zero_shot": "", "ft_target": "", "proposed": "best"}


def test_pairing_follows_the_run_and_not_the_order_of_results():
    a, b = [0.90, 0.85, 0.80, 0.95, 0.7], [0.89, 0.845, 0.785, 0.94, 0.69]
    results = rows({"ft_target": {"accuracy": a}, "proposed": {"accuracy": b}})
    shuffled = [results[i] for i in (3, 9, 0, 5, 8, 1, 7, 2, 6, 4)]
    assert stats.ttest_rel(a, b).pvalue < 0.05 < stats.ttest_ind(a, b).pvalue
    assert marks(transfer_table(shuffled), "accuracy") == {"ft_target": "best", "proposed": ""}


def test_chance_is_the_mean_over_data_sets_and_seeds_without_deviation():
    results = [
        result("proposed", 0, {"rma": 0.5}, chance={"rma": 0.1}),
        result("ink", 0, {"rma": 0.5}, chance={"rma": 0.1}),
        result("ink", 1, {"rma": 0.5}, chance={"rma": 0.4}),
    ]
    cell = transfer_table(results).cell("chance", "rma")
    assert cell.mean == pytest.approx(0.25)
    assert math.isnan(cell.deviation)
    assert all(row.role.name != "chance" for row in transfer_table([result(chance={})]).rows)


def test_published_figures_stand_in_their_own_block_unmarked():
    published = {"proposed": {"accuracy": [0.886, 0.113]}, "zero_shot": {"accuracy": 0.475}}
    results = [result(role) for role in ("proposed", "zero_shot")]
    table = transfer_table(results, published=published, published_heading="Paper")
    block = table.blocks[-1]
    assert (block.kind, block.heading) == ("published", "Paper")
    assert [(row.role.name, row.cells[0].mean, row.cells[0].mark) for row in block.rows] == [
        ("zero_shot", 0.475, ""),
        ("proposed", 0.886, ""),
    ]
    assert block.rows[1].cells[0].deviation == 0.113
    assert table.cell("proposed", "accuracy").mean == 0.9
    with pytest.raises(UserError, match="mystery"):
        transfer_table(results, published={"mystery": {}})
    with pytest.raises(UserError, match=r"proposed\.accuracy"):
        transfer_table(results, published={"proposed": {"accuracy": [1.0, 2.0, 3.0]}})


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([], "no results"),
        ([result("mystery")], "'mystery' is no row"),
        ([result("chance")], "'chance' is no row"),
        ([result(), replace(result(), params={"lambda2": 0.4})], r"digits → mnist, tiny, seed 0.*0\.8.*0\.4"),
        ([result(), replace(result("ink"), split="validation")], "test and validation"),
        ([result(metrics={"srg": 0.5})], "srg"),
    ],
)
def test_what_would_make_a_wrong_table_is_refused(results, message):
    with pytest.raises(UserError, match=message) as caught:
        transfer_table(results)
    assert "\n" not in str(caught.value)


def test_unknown_row_or_column_of_a_table():
    table = transfer_table([result()])
    with pytest.raises(UserError, match="no row 'ink'"):
        table.row("ink")
    with pytest.raises(UserError, match="no column 'rma'"):
        table.cell("proposed", "rma")


def test_sweep_has_a_row_for_each_value_and_names_the_chosen_one():
    values = {0.2: [0.9, 0.8], 1.2: [0.7, 0.5], 0.3: [0.85, 0.75]}
    results = [
        result(seed=seed, metrics={"accuracy": v}, params={"lambda2": value})
        for value, of_seeds in values.items()
        for seed, v in enumerate(of_seeds)
    ]
    table = sweep_table(results, chosen=0.1 * 3)
    assert [row.role.label for row in table.rows] == ["λ2 = 0.2", "λ2 = 0.3 (chosen)", "λ2 = 1.2"]
    for row, value in zip(table.rows, sorted(values), strict=True):
        expected = (np.mean(values[value]), np.std(values[value], ddof=1))
        assert (row.cells[0].mean, row.cells[0].deviation) == pytest.approx(expected)
    assert table.row("chosen").cells[0] == Cell(pytest.approx(0.8), pytest.approx(np.std([0.85, 0.75], ddof=1)), 2)
    assert not any("(chosen)" in row.role.label for row in sweep_table(results, None).rows)
    with pytest.raises(UserError, match="has no lambda2"):
        sweep_table([replace(results[0], params={})], 0.8)
    with pytest.raises(UserError, match="two results"):
        sweep_table([results[0], results[0], replace(results[0], seconds=2.0)], 0.8)
    with pytest.raises(UserError, match="no results"):
        sweep_table([], 0.8)


def test_line_that_describes_results():
    assert describe([result(), result(seed=2)]) == "digits → mnist · tiny · seeds 0, 2"
    assert describe([result(source=None, split="validation")]) == "mnist · tiny · seed 0 · validation split"


def test_from_disk(tmp_path):
    import torch

    for seed in range(2):
        metrics = {"accuracy": 0.8 + 0.1 * seed, "kendall": math.nan}
        (tmp_path / str(seed)).mkdir()
        write_result(tmp_path / str(seed), result(seed=seed, metrics=metrics), {"attributions": torch.zeros(2, 1, 1)})
    table = transfer_table(collect(tmp_path))
    assert table.cell("proposed", "accuracy").mean == pytest.approx(0.85)
    assert math.isnan(table.cell("proposed", "kendall").mean)
    assert table.cell("chance", "accuracy").mean == 0.1
