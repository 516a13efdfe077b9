import csv
import io
import json
import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from rich.console import Console

from xai.reports.columns import COLUMNS
from xai.reports.renderers import as_csv, as_html, as_markdown, as_rich, as_rows, cell_text, number
from xai.reports.roles import ROLES
from xai.reports.tables import Block, Cell, Row, Table, transfer_table
from xai.results import Result

PUBLISHED = {"proposed": {"accuracy": [0.886, 0.113]}}
ALL = {"zero_shot": -0.145, "ft_target": 0.94, "proposed": 0.93, "ft_target_x": 0.95, "ink": math.nan}


def result(role, seed, metrics):
    return Result(
        method="transfer",
        role=role,
        data="mnist",
        source="digits <b>|",
        model="tiny",
        seed=seed,
        params={},
        metrics=metrics,
        n_images=2,
        seconds=1.0,
        peak_memory_bytes=1,
        split="test",
        chance={"accuracy": 0.1},
        lineage={},
    )


def table(seeds=2, names=("accuracy", "e_rmse")):
    results = [
        result(role, seed, {name: value + seed * (0.02 if role == "proposed" else 0.01) for name in names})
        for role, value in ALL.items()
        for seed in range(seeds)
    ]
    return transfer_table(results, published=PUBLISHED, published_heading="Paper [1] | <i>")


class Tree(HTMLParser):
    """Rows of cells as (tags inside, text), and a check that tags close in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.tags = [], [], set()
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.open.append(tag)
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append([set(), "", dict(attributes)])
        elif self.rows and {"td", "th"} & set(self.open):
            self.rows[-1][-1][0].add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1][1] += data


def test_numbers():
    assert [number(v) for v in (0.12345, -0.5, -0.0004, 0.0, math.nan, 12)] == [
        "0.123",
        "-0.500",
        "0.000",
        "0.000",
        "–",
        "12.000",
    ]
    assert cell_text(Cell(0.5, 0.25, 2)) == "0.500 ± 0.250"
    assert cell_text(Cell(0.5)) == "0.500"
    assert cell_text(Cell()) == "–"


def printed(shown, width, **options):
    console = Console(width=width, file=io.StringIO(), color_system=None, **options)
    console.print(as_rich(shown, width))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 132, 200])
def test_terminal_shows_every_number_whole(width):
    full = table(names=list(COLUMNS))
    text = printed(full, width)
    assert "…" not in text
    assert all(len(line) <= width for line in text.splitlines())
    lines = text.splitlines()
    proposed = next(line for line in lines if line.strip().startswith("Proposed"))
    assert proposed.split().count(number(full.cell("proposed", "accuracy").mean)) == len(COLUMNS)
    assert ("θ_ft^T" in text) == (width > 80)
    assert "digits <b>|" in text
    assert "Paper" in text


def test_where_it_fits_mean_and_deviation_stand_on_one_line_with_long_names():
    shown = table()
    cell = shown.cell("proposed", "accuracy")
    wide = printed(shown, 100)
    assert f"{number(cell.mean)} ±{number(cell.deviation)}" in wide
    assert "Proposed (transferred)" in wide
    assert f"{number(cell.mean)} ±" not in printed(shown, 50)
    assert "Proposed (transferred)" not in printed(shown, 50)
    needed = max(map(len, (line.rstrip() for line in wide.splitlines() if "±" in line)))
    assert all(len(line) <= needed + 8 for line in printed(shown, needed + 8).splitlines())


def test_digits_are_those_of_the_column():
    column = replace(COLUMNS["rma"], digits=1)
    row = Row(ROLES["ink"], (Cell(64.92, 1.26, 3),), 3)
    shown = Table("", (column,), (Block("control", "", (row,)),), (), "interval")
    assert "64.9 ±1.3" in printed(shown, 80)
    assert "| 64.9 ± 1.3 |" in as_markdown(shown)
    assert "64.9 <span" in str(as_html(shown))
    assert "±&nbsp;1.3" in str(as_html(shown))
    assert as_csv(shown).splitlines() == [
        "block,role,label,runs,rma,rma_interval,rma_mark",
        "control,ink,Ink (brightness),3,64.92,1.26,",
    ]


def test_published_rows_without_a_heading_have_no_line_for_it():
    rows = (Row(ROLES["ink"], (Cell(0.5),), 0),)
    for heading, lines in (("", 3), ("Paper", 4)):
        shown = Table("", (COLUMNS["rma"],), (Block("published", heading, rows),), ())
        assert len(as_markdown(shown).splitlines()) == lines
        assert len([line for line in printed(shown, 80).splitlines() if line.strip()]) == lines


def test_terminal_marks_best_and_tied():
    console = Console(width=80, file=io.StringIO(), force_terminal=True, color_system="standard")
    shown = table()
    console.print(as_rich(shown, 80))
    text = console.file.getvalue()
    best, tied = shown.cell("ft_target", "accuracy"), shown.cell("proposed", "accuracy")
    assert (best.mark, tied.mark) == ("best", "tied")
    assert f"\x1b[1;4m{number(best.mean)}\x1b[0m" in text
    assert f"\x1b[1m{number(tied.mean)}\x1b[0m" in text


def test_markdown_has_a_cell_for_each_column_and_marks():
    shown = table()
    text = as_markdown(shown)
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {5}
    assert "| Fine-tuned on target | $\\theta_{\\mathrm{ft}}^{\\mathrm{T}}$ | **<ins>0.945 ± 0.007</ins>** |" in text
    assert "| Chance |  | 0.100 | – |" in text
    assert "Paper [1] \\| <i>" in text
    assert all(note in text for note in shown.notes)


def test_csv_keeps_full_precision_and_leaves_undefined_empty():
    shown = table()
    lines = list(csv.DictReader(io.StringIO(as_csv(shown))))
    assert [(line["block"], line["role"]) for line in lines][-1] == ("published", "proposed")
    proposed = next(line for line in lines if line["role"] == "proposed")
    cell = shown.cell("proposed", "accuracy")
    assert (float(proposed["accuracy"]), float(proposed["accuracy_deviation"])) == (cell.mean, cell.deviation)
    assert proposed["runs"] == "2"
    ink = next(line for line in lines if line["role"] == "ink")
    assert (ink["accuracy"], ink["accuracy_deviation"]) == ("", "")
    best = [line["role"] for line in lines if line["accuracy_mark"] == "best"]
    assert best == ["ft_target"]


def test_json_rows_are_strict():
    rows = json.loads(json.dumps(as_rows(table()), allow_nan=False))
    assert rows[0]["role"] == "zero_shot"
    assert next(row for row in rows if row["role"] == "ink")["metrics"]["accuracy"]["mean"] is None
    assert {row["block"] for row in rows} == {"method", "bound", "control", "chance", "published"}


def test_html_is_escaped_well_formed_and_marked():
    text = str(as_html(table()))
    tree = Tree(text)
    assert "<b>" not in text
    assert "<i>" not in text
    assert "digits &lt;b&gt;|" in text
    assert "http" not in text
    cells = {row[0][1]: row for row in tree.rows if len(row) == 4}
    assert {"strong", "u"} <= cells["Fine-tuned on target"][2][0]
    assert cells["Fine-tuned on target"][2][1].replace("\xa0", " ") == "0.945 ± 0.007"
    assert cells["Ink (brightness)"][2][1] == "–"
    assert "mover" in cells["Proposed (transferred)"][1][0]
    assert cells["Chance"][2][0] == set()
    assert all(row[0][2].get("scope") in ("row", "rowgroup", "col") for row in tree.rows)


def test_html_uses_a_true_minus_and_leaves_the_symbols_out_where_there_are_none():
    row = Row(ROLES["ink"], (Cell(-0.5, math.nan, 1, "tied"),), 1)
    text = str(as_html(Table("", (COLUMNS["kendall"],), (Block("control", "", (row,)),), ())))
    assert "<td><strong>−0.500</strong></td>" in text
    assert "Param." not in text
    assert "heading" not in text
    assert Tree(text).rows[-1][0][1] == "Ink (brightness)"


def test_every_role_and_metric_explains_itself_and_every_control_has_a_doubt():
    for entry in [*ROLES.values(), *COLUMNS.values()]:
        assert entry.explanation.endswith(".")
        assert len(entry.short) <= 16
    assert {role.name for role in ROLES.values() if role.doubt} == {
        role.name for role in ROLES.values() if role.kind == "control"
    }
    assert {role.name for role in ROLES.values() if role.symbol} == {
        role.name for role in ROLES.values() if role.kind in ("method", "bound")
    }
