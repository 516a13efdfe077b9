import numpy as np
import pytest
from scipy import stats

from tests.reports.removal_rows import QUALITY, evidence, measured
from xai.core.errors import UserError
from xai.reports.data_tables import published_table
from xai.reports.removal_roles import COLUMNS, KINDS, ROLES, SCHEME
from xai.reports.removal_tables import (
    CLASSIFICATION,
    DRAWN,
    FAITHFULNESS,
    POINTING,
    RANKED,
    removal_tables,
)

PUBLISHED = {"Pet": {"salvage": {"srg": 68.5, "rma": 64.9}, "rise": {"srg": 63.7}}, "WBC": {"salvage": {"srg": 69.7}}}


def results(**options):
    return [one.result for one in evidence(**options).rows]


def test_there_is_a_table_for_each_data_set_and_likelihoods_are_no_row():
    tables = removal_tables(results(data=("a", "b")), FAITHFULNESS)
    assert [table.title for table in tables] == [f"{name} · vit_tiny · seeds 0, 1, 2" for name in ("a", "b")]
    for table in tables:
        assert [row.role.name for row in table.rows] == [role for role in ROLES if role in QUALITY]
        assert [block.kind for block in table.blocks] == [kind for kind in KINDS if kind != "reference"]


def test_cells_are_percent_with_half_the_t_interval_over_seeds():
    values = 100 * np.array([one.metrics["srg"] for one in results() if one.role == "rise"])
    (table,) = removal_tables(results(), FAITHFULNESS)
    cell = table.cell("rise", "srg")
    assert cell.mean == pytest.approx(values.mean())
    assert cell.deviation == pytest.approx(stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3))
    assert table.spread == "interval"
    assert table.notes[0] == "In percent."


def test_the_best_is_the_best_of_the_methods_alone():
    better = [measured("salvage_uniform", seed, metrics={"srg": 0.9}).result for seed in range(3)]
    others = [one for one in results() if one.role != "salvage_uniform"]
    (table,) = removal_tables([*others, *better], ["srg"])
    marked = [row.role.name for row in table.rows if row.cells[0].mark == "best"]
    assert marked == ["salvage"]


def test_the_classifiers_are_rows_of_table_4_alone_and_mcc_is_no_percentage():
    (table,) = removal_tables(results(), CLASSIFICATION)
    assert [row.role.name for row in table.rows] == ["classifier", "surrogate", "salvage", "vit_shapley"]
    assert table.cell("classifier", "accuracy").mean == 100
    assert table.cell("classifier", "mcc").mean == 1
    assert table.notes[0] == "In percent, but for MCC."


def test_every_role_and_column_explains_itself_and_every_control_has_a_doubt():
    for entry in [*ROLES.values(), *COLUMNS.values()]:
        assert entry.explanation.endswith(".")
        assert len(entry.short) <= 16
    assert {role.kind for role in ROLES.values()} == set(KINDS)
    assert all(bool(role.doubt) == (role.kind == "control") for role in ROLES.values())
    assert set(COLUMNS) == {*FAITHFULNESS, *RANKED, *DRAWN, *POINTING, *CLASSIFICATION}
    lower = {name for name, column in COLUMNS.items() if not column.larger_is_better}
    assert lower == {"mif", "r_mif"}


@pytest.mark.parametrize(
    ("rows", "metrics", "message"),
    [
        ([measured("rise", metrics={"srg": 0.5})], ["srgg"], "'srgg' is no column"),
        ([measured("rise", metrics={"srg": 0.5})], ["rma"], "no result has rma"),
        ([measured("lime", metrics={"srg": 0.5})], ["srg"], "'lime' is no row"),
        ([measured("mask_likelihood", metrics={"srg": 0.5})], ["srg"], "no result has srg"),
    ],
)
def test_what_is_no_table_is_refused_in_one_line(rows, metrics, message):
    with pytest.raises(UserError, match=message) as caught:
        removal_tables([one.result for one in rows], metrics)
    assert "\n" not in str(caught.value)


def test_published_figures_stand_side_by_side_in_the_unit_of_the_column():
    table = published_table(PUBLISHED, ["srg", "r_srg", "rma"], "The paper", SCHEME)
    assert [column.label for column in table.columns] == ["Pet SRG", "Pet RMA", "WBC SRG"]
    cells = {row.role.name: [cell.mean for cell in row.cells] for row in table.rows}
    assert list(cells) == ["salvage", "rise"]
    assert cells["salvage"] == [68.5, 64.9, 69.7]
    assert cells["rise"][0] == 63.7
    assert np.isnan(cells["rise"][1:]).all()


@pytest.mark.parametrize(
    ("published", "message"),
    [
        ({"Pet": {"lime": {"srg": 1.0}}}, "Pet, lime: 'lime' is no row"),
        ({"Pet": {"rise": {"lif": 1.0}}}, "Pet, rise: 'lif' is no column of this table, which has srg"),
    ],
)
def test_published_figures_of_another_table_are_refused(published, message):
    with pytest.raises(UserError, match=message):
        published_table(published, ["srg"], "The paper", SCHEME)
