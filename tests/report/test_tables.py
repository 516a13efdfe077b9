import hashlib
import json
import math
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path

import pandas as pd
import pytest
import yaml
from rich.console import Console

from tests.study.frames import COLUMNS, drawn, frame, lines
from tests.toolbox import refusal
from xai.core.errors import UserError
from xai.core.settings import build
from xai.report.layout import (
    Group,
    Normalisation,
    Published,
    Reasons,
    RowParams,
    Symbol,
    TableParams,
    as_frame,
    read_table,
)
from xai.report.sheets import Sheet, as_markdown, as_rich, claim_notes, claim_sheets, sheet_of, templates
from xai.report.tables import build_tables, by_parameter, published_table
from xai.study.claims import Claim, Claims, judge, table_of

TABLES = sorted((Path(__file__).resolve().parents[2] / "conf" / "table").glob("*.yaml"))
MEASURED = drawn({"ours": 0.5, "rise": 0.3, "grad_cam": 0.31, "random": 0.0})


def only(given, params=None, **changes):
    (table,) = build_tables(given, params or TableParams(), COLUMNS, **changes)
    return table


def printed(sheet, width):
    console = Console(width=width, record=True, file=None)
    with console.capture() as captured:
        console.print(as_rich(sheet, width))
    return captured.get()


def as_html(sheet: Sheet) -> str:
    return templates().get_template("sheet.html.j2").render(sheet=sheet)


def test_without_a_file_a_table_shows_everything_by_kind():
    table = only(frame(MEASURED, lines("ours", "mcc", 0.25)))
    assert [column.name for column in table.columns] == ["srg", "mcc"]
    assert [(s.heading, [row.name for row in s.rows]) for s in table.sections] == [
        ("Explainers", ["ours", "rise", "grad_cam"]),
        ("Controls", ["random"]),
    ]


def test_shares_are_shown_in_percent_with_mean_interval_and_counts():
    cell = only(MEASURED).cell("ours", "srg")
    assert cell.mean == pytest.approx(50, abs=1)
    assert cell.low < cell.mean < cell.high
    assert (cell.n_images, cell.runs, cell.how) == (40, 3, "seeds")
    assert cell.shown_spread("interval") == pytest.approx((cell.high - cell.low) / 2)
    assert cell.shown_spread("deviation") == cell.spread
    assert only(MEASURED, TableParams(percent=False)).cell("ours", "srg").mean == pytest.approx(cell.mean / 100)


def test_the_best_of_the_compared_rows_is_marked_and_its_ties():
    table = only(drawn({"ours": 0.5, "rise": 0.5, "grad_cam": 0.2, "random": 0.9}))
    marks = {row: table.cell(row, "srg").mark for row in ("ours", "rise", "grad_cam", "random")}
    assert sorted([marks.pop("ours"), marks.pop("rise")]) == ["best", "tied"]
    assert marks == {"grad_cam": "", "random": ""}
    assert any("Holm" in note for note in table.notes)


def test_groups_name_rows_and_kinds_and_nothing_measured_is_dropped():
    params = TableParams(
        columns=["srg"],
        groups=[Group("Proposed", ["ours", "ours_t?", "vit_cx"]), Group("Rivals", ["grad_cam", "post-hoc"])],
        rows={"rise": RowParams("RISE, really"), "vit_cx": RowParams("ViT-CX")},
        highlighted=["ours"],
    )
    table = only(MEASURED, params)
    assert [(s.heading, [row.label for row in s.rows]) for s in table.sections] == [
        ("Proposed", ["OURS"]),
        ("Rivals", ["GRAD_CAM", "RISE, really"]),
        ("Others", ["RANDOM"]),
    ]
    short = only(MEASURED, replace(params, others=False))
    assert [s.heading for s in short.sections] == ["Proposed", "Rivals"], "unless it is asked to be short"
    assert "Not measured: ViT-CX." in table.notes
    assert [row.name for s in table.sections for row in s.rows if row.highlighted] == ["ours"]


def test_a_name_may_stand_for_several_rows():
    given = drawn({"ours_t1": 0.5, "random": 0.1, "ours_t2": 0.4, "flat_t1": 0.2})
    groups = [Group("Ours", ["ours_t*", "lime_t*"]), Group("Rest", ["post-hoc"]), Group("Flat", ["flat_t*", "control"])]
    table = only(given, TableParams(groups=groups))
    assert [[row.name for row in section.rows] for section in table.sections] == [
        ["ours_t1", "ours_t2"],
        ["flat_t1", "random"],
    ]
    assert not any("lime" in note for note in table.notes)


def test_a_column_that_is_missing_says_why():
    params = TableParams(columns=["srg", "mif", "mcc"])
    left_out = pd.DataFrame(
        [{"explainer": row, "metric": "removal", "reason": "there is no game"} for row in ("ours", "rise")]
    )
    given = drawn({"ours": 0.5, "rise": 0.3})
    reasons = Reasons(left_out, {"lime": "no gradients"}, {"mif": "removal"})
    table = only(given, params, reasons=reasons)
    assert math.isnan(table.cell("ours", "mif").mean)
    assert "–: there is no game (MIF)." in table.notes
    assert "–: undefined or not measured (MCC)." in table.notes
    assert "Left out: lime: no gradients." in table.notes


def test_a_row_that_has_none_of_the_columns_is_no_row_but_is_named():
    given = frame(MEASURED, lines("classifier", "mcc", 0.9, kind="classifier"))
    groups = [Group("What is explained", ["classifier", "surrogate"]), Group("Methods", ["post-hoc", "ours"])]
    notes = only(given, TableParams(columns=["srg"], groups=groups)).notes
    assert "Without any of these columns: classifier." in notes
    assert "Not measured: surrogate." in notes


def test_one_seed_says_so():
    table = only(drawn({"ours": 0.5, "rise": 0.3}, seeds=1))
    assert any(
        note.startswith("One seed of 40 images: ± is half the 95 % interval over images") for note in table.notes
    )
    assert table.cell("ours", "srg").how == "images"


def test_rows_of_fewer_runs_are_named():
    notes = only(frame(MEASURED, lines("lime", "srg", [0.1, 0.2], 0))).notes
    assert "Over 1 run: LIME." in notes


def test_there_is_a_table_for_each_data_set_unless_they_are_pooled():
    both = frame(
        drawn({"ours": 0.5, "rise": 0.4}, source="a"),
        drawn({"ours": 0.3, "rise": 0.4}, data="other", source="b"),
        drawn({"random": 0.0}),
    )
    titles = [table.title for table in build_tables(both, TableParams(title="T"), COLUMNS)]
    assert titles == ["T · a → cluttered · vit_tiny", "T · b → other · vit_tiny"]
    # A row without a source stands in the table of each source of its data set.
    first = build_tables(both, TableParams(), COLUMNS)[0]
    assert first.cell("random", "srg").runs == 3
    pooled = only(both, TableParams(pool=["data", "source"], spread="deviation"))
    assert (pooled.cell("ours", "srg").runs, pooled.cell("random", "srg").runs) == (6, 3)
    assert "Mean ± sample standard deviation over 6 runs (3 seeds) of 40 images." in pooled.notes


def test_costs_are_columns_of_their_own():
    costs = MEASURED.drop_duplicates(["explainer", "seed"]).drop(columns=["metric", "image", "value"])
    costs = costs.assign(passes=1000.0, milliseconds=costs["seed"] + 1.0)
    table = only(MEASURED, TableParams(columns=["srg", "passes", "milliseconds"]), costs=costs)
    assert table.cell("ours", "passes").mean == 1000
    assert table.cell("ours", "milliseconds").mean == 2
    assert "1,000" in as_markdown(sheet_of(table))


def test_chance_levels_are_a_row():
    table = only(frame(MEASURED, lines("ours", "mif", [0.1])), TableParams(chance=True))
    assert table.sections[-1].heading == "Chance"
    assert table.cell("chance", "srg").mean == 0
    assert math.isnan(table.cell("chance", "mif").mean)


def test_a_chance_level_that_is_not_that_of_every_row_is_none():
    parts = [lines(row, "mif", [0.1, 0.2], chance=[0.3, 0.4]) for row in ("ours", "random")]
    parts.append(lines("rise", "srg", [0.1, 0.2], chance=0.0))
    pixels = [lines("rise", "mif", [0.1, math.nan], chance=level) for level in ([0.3, 0.4], [0.1, 0.1])]
    same, other = (only(frame(*parts, of_pixels), TableParams(chance=True)) for of_pixels in pixels)
    assert same.cell("chance", "mif").mean == pytest.approx(35)
    assert math.isnan(other.cell("chance", "mif").mean)
    assert other.cell("chance", "srg").mean == 0
    said = "Chance –: not the same for all rows (MIF)."
    assert said in other.notes
    assert said not in same.notes


def test_values_may_be_normalised():
    table = only(MEASURED, TableParams(normalisation=Normalisation(one="ours", zero="random")))
    assert (table.cell("ours", "srg").mean, table.cell("random", "srg").mean) == (1, 0)
    assert 0.5 < table.cell("rise", "srg").mean < 0.7
    assert table.notes[0] == "Values are shares of the way from random (0) to ours (1), in each run."


def test_a_sweep_has_a_row_for_each_value():
    sweep = frame(*(lines("ours", "srg", [value] * 3, lambda2=value) for value in (1.0, 0.25)))
    table = only(by_parameter(sweep, "lambda2", "λ2", chosen=0.25))
    assert [row.label for row in table.sections[0].rows] == ["λ2 = 0.25 (chosen)", "λ2 = 1"]
    assert "have no alpha" in refusal(by_parameter, sweep, "alpha", "α")


def test_a_table_of_columns_that_nothing_has_is_refused():
    assert "nothing in the frame has rma" in refusal(build_tables, MEASURED, TableParams(columns=["rma"]), COLUMNS)
    with pytest.raises(UserError, match="spread=variance is unknown: use interval or deviation"):
        build(TableParams, {"spread": "variance"})


def test_the_frame_of_a_table_is_in_full_precision():
    table = only(MEASURED)
    line = as_frame(table).set_index(["row", "column"]).loc[("ours", "srg")]
    assert line["mean"] == table.cell("ours", "srg").mean
    assert as_frame(table).to_csv(index=False).startswith("group,row,label,column,mean,low,high,spread,over")


def test_every_view_has_the_same_numbers():
    params = TableParams(title="A | B", rows={"ours": RowParams(symbol=Symbol("ft*", "T", tilde=True))})
    sheet = sheet_of(only(MEASURED, params))
    number = sheet.parts[0].lines[0].entries[0]
    markdown, page, wide, narrow = as_markdown(sheet), as_html(sheet), printed(sheet, 200), printed(sheet, 30)
    theta = r"$\tilde{\theta}_{\mathrm{ft\ast}}^{\mathrm{T}}$"
    assert f"| OURS | {theta} | **<ins>{number.text} ± {number.small}</ins>** |" in markdown
    assert "**A \\| B · cluttered · vit_tiny**" in markdown
    assert f'<strong class="best"><u>{number.text}</u></strong> <span class="deviation">±&nbsp;{number.small}' in page
    assert "<sub>ft*</sub><sup>T</sup>" in page
    assert 'title="Symmetric relevance gain. Chance: 0. Control: random."' in page
    assert f"{number.text} ±{number.small}" in wide
    assert number.text in narrow
    assert all(note in markdown for note in sheet.notes)


def test_labels_cannot_write_html():
    assert "<b>" not in as_html(sheet_of(only(MEASURED.assign(label="<b>bold</b>"))))


def test_claims_are_a_grid_or_a_line_each():
    claims = [
        Claim(["srg", "mif"], ["ours"], ["rise", "random"], "Table 1", heading="Ours less the others"),
        Claim(["srg"], ["ours"], ["vit_cx"], "Table 2"),
        Claim(["srg"], ["rise"], ["ours"], "Table 3"),
    ]
    findings = table_of(judge(MEASURED, Claims(claims), COLUMNS))
    grid, others = claim_sheets(findings, COLUMNS)
    assert grid.title == "Ours less the others · cluttered · vit_tiny"
    assert [(line.names[0], [entry.text[-1] for entry in line.entries]) for line in grid.parts[0].lines] == [
        ("RISE", ["✓", "–"]),
        ("RANDOM", ["✓", "–"]),
    ]
    assert grid.parts[0].lines[0].entries[0].text.startswith(f"+{100 * findings['difference'][0]:.1f}")
    assert [line.entries[1].text for line in others.parts[0].lines] == ["not measured –", "does not hold ✗"]
    notes = claim_notes(findings)
    assert notes[0] == "Of 6 comparisons: 2 hold, 1 does not hold, 0 undecided, 3 not measured."
    assert "Not measured: there is no row vit_cx." in notes
    assert 'class="does-not-hold"' in as_html(others)
    assert "| Claim | Paper | Difference [95 %] | Verdict |\n| --- | --- | ---: | ---: |" in as_markdown(others)
    assert "✓" in printed(grid, 100)


@pytest.mark.parametrize("path", TABLES, ids=lambda path: path.stem)
def test_the_tables_of_the_papers_can_be_read_and_filled(path):
    params = read_table(path)
    rows = [name.replace("*", "3") for group in params.groups for name in group.rows]
    given = frame(*(lines(row, name, [0.5, 0.6], seed) for row in rows for name in params.columns for seed in range(2)))
    (table,) = build_tables(given, params, COLUMNS)
    known = [name for name in params.columns if name in COLUMNS and COLUMNS[name].better]
    assert [column.name for column in table.columns] == (["mean_place", *known] if params.ranked else params.columns)
    assert [row.name for section in table.sections for row in section.rows if section.heading != "Chance"] == rows
    patterns = ["chance", *(name for group in params.groups for name in group.rows)]
    own = yaml.safe_load(path.read_text()).get("rows", {})  # and beside them those of the table that it is like
    assert all(any(fnmatchcase(row, pattern) for pattern in patterns) for row in own)
    for row in params.rows:
        assert params.row(row).label


def test_what_the_papers_printed_is_kept_as_they_printed_it():
    printed = {path.stem: params.published.figures for path in TABLES if (params := read_table(path)).published}
    counts = {name: sum(len(row) for data in each.values() for row in data.values()) for name, each in printed.items()}
    assert counts == {
        "salvage_table1": 120,
        "salvage_table2": 96,
        "salvage_table3": 96,
        "salvage_table4": 21,
        "ranking": 2,
        "vectors_table1": 36,
        "vectors_table2": 36,
    }
    # A changed figure has to be meant: this is the hash of all of them as they stand in the papers.
    text = json.dumps(printed, sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "2d6e67ce0f65fc23"


def test_published_figures_stand_side_by_side_in_their_own_table():
    folder = TABLES[0].parent
    table = published_table(read_table(folder / "salvage_table1.yaml"), COLUMNS)
    assert table.cell("salvage", "WBC.r_srg").mean == 22.6
    assert math.isnan(table.cell("salvage", "Pet.rma").mean) is False
    assert [row.name for row in table.sections[0].rows][:3] == ["salvage", "vit_shapley", "rise"]
    vectors = published_table(read_table(folder / "vectors_table1.yaml"), COLUMNS)
    assert "0.886 ± 0.113" in as_markdown(sheet_of(vectors))
    assert published_table(TableParams(), COLUMNS) is None
    assert "Pet, salvage, srg is [1.0]" in refusal(Published, "a paper", {"Pet": {"salvage": {"srg": [1.0]}}})


def test_a_table_may_be_like_another(tmp_path):
    (tmp_path / "a.yaml").write_text("title: A\nabout: of a\nspread: deviation\ncolumns: [srg]\n")
    (tmp_path / "b.yaml").write_text("like: a\ntitle: B\ncolumns: [mif]\n")
    params = read_table(tmp_path / "b.yaml")
    assert (params.title, params.about, params.spread, params.columns) == ("B", "", "deviation", ["mif"])
    assert "c is not a known table: there are a, b" in refusal(read_table, tmp_path / "c.yaml")
    assert "did you mean columns" in refusal(build, TableParams, {"colums": []}, "a")
