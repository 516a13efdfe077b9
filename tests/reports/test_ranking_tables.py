import numpy as np
import pytest
from scipy import stats

from tests.reports.ranking_rows import QUALITY, evidence, row, shortcut
from xai.core.errors import UserError
from xai.reports import removal_roles
from xai.reports.data_tables import published_table
from xai.reports.ranking_roles import COLUMNS, KINDS, ROLES, SCHEME, refined
from xai.reports.ranking_tables import ALONE, ALONE_TRUE, LOCALISATION, MAIN, ranking_tables


def results(**options):
    return [one.result for one in evidence(**options).rows]


def test_there_is_a_table_for_each_data_set_with_rows_in_their_order():
    tables = ranking_tables([*results(data=("a", "b")), shortcut(data="a").result], MAIN)
    assert [table.title for table in tables] == [f"{name} · vit_tiny · seeds 0, 1, 2" for name in ("a", "b")]
    for table in tables:
        assert [one.role.name for one in table.rows] == [role for role in ROLES if role in QUALITY]
        assert [block.kind for block in table.blocks] == list(KINDS)


def test_areas_are_percent_and_the_time_of_a_map_is_milliseconds():
    (table,) = ranking_tables(results(), MAIN)
    for metric, scale in (("deletion_auc", 100), ("difference_auc_true", 100), ("class_correlation", 1)):
        values = scale * np.array([one.metrics[metric] for one in results() if one.role == "rise"])
        cell = table.cell("rise", metric)
        assert cell.mean == pytest.approx(values.mean())
        assert cell.deviation == pytest.approx(stats.t.ppf(0.975, 2) * values.std(ddof=1) / np.sqrt(3))
    assert table.cell("rise", "seconds_per_image").mean == pytest.approx(1000 * (0.002 + 0.004 + 0.006) / 3)
    assert table.notes[0] == "In percent, but for Class corr. and ms an image."


def test_the_best_is_the_best_of_the_methods_alone():
    better = [row("flat_t3", seed, quality=0.9).result for seed in range(3)]
    (table,) = ranking_tables([one for one in results() if one.role != "flat_t3"] + better, ["difference_auc"])
    assert [one.role.name for one in table.rows if one.cells[0].mark == "best"] == ["ranking_t5"]


@pytest.mark.parametrize(
    ("role", "expected"),
    [
        ("ranking_t3", ("ranking", 3)),
        ("decoder_t10", ("decoder", 10)),
        ("flat_t0", ("flat", 0)),
        ("ranking", None),
        ("random_t3", None),
        ("ranking_t3_more", None),
    ],
)
def test_a_refined_row_says_what_was_refined_and_how_far(role, expected):
    assert refined(role) == expected


def test_every_role_and_column_explains_itself_and_every_control_has_a_doubt():
    for entry in [*ROLES.values(), *COLUMNS.values()]:
        assert entry.explanation.endswith(".")
        assert len(entry.short) <= 16
    assert {role.kind for role in ROLES.values()} == set(KINDS)
    assert all(bool(role.doubt) == (role.kind == "control") for role in ROLES.values())
    for names in (ROLES, COLUMNS):
        assert len({entry.label for entry in names.values()}) == len(names)
    assert set(COLUMNS) == {*MAIN, *ALONE, *ALONE_TRUE, *LOCALISATION}
    lower = {name for name, column in COLUMNS.items() if not column.larger_is_better}
    assert lower == {"class_correlation", "seconds_per_image"} | {name for name in COLUMNS if "deletion" in name}


def test_every_method_of_salvages_tables_is_a_row_here_too():
    methods = {name for name, role in removal_roles.ROLES.items() if role.kind == "method"}
    assert methods <= set(ROLES)
    assert {f"{name}_pixels" for name in ("saliency", "integrated_gradients")} <= set(ROLES)


def test_what_is_no_table_is_refused_in_one_line():
    for metrics, message in (
        (["srg"], "'srg' is no column of these tables"),
        ([], "a table without columns; choose from deletion_auc"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            ranking_tables(results(), metrics)
        assert "\n" not in str(caught.value)


def test_what_the_paper_printed_is_in_the_unit_of_the_column():
    published = {"ImageNet": {"ranking_t3": {"deletion_auc": 12.1}, "ranking": {"deletion_auc": 13.8}}}
    table = published_table(published, MAIN, "The paper", SCHEME)
    assert [column.label for column in table.columns] == ["ImageNet Deletion"]
    assert {one.role.name: one.cells[0].mean for one in table.rows} == {"ranking": 13.8, "ranking_t3": 12.1}
