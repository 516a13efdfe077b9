"""Blocks of Markdown say what the results of a sweep say, and nothing else."""

import shutil
from pathlib import Path

import pandas as pd
import pytest
import yaml

from docs import tables as command
from docs.blocks import EARLIER, filled
from tests.study.frames import drawn, frame
from tests.toolbox import refusal
from xai.core.composing import config_file
from xai.metrics import registry as metrics
from xai.report.layout import read_table
from xai.report.present import Shown
from xai.report.results import Origin, write_results
from xai.report.sheets import as_markdown, sheet_of
from xai.report.tables import build_tables, published_table
from xai.study.claims import Claim, Claims, judge, table_of

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ORIGIN = Origin("python run.py -m sweep=toy", 6, [0, 1, 2], "0.1", "abc", "2 cores of a machine", "2026-01-01")
BLOCK = "<!-- results: {{sweep: toy, data: cluttered{more}}} -->\n{body}<!-- end of results -->\n"


@pytest.fixture
def results(tmp_path):
    """The results of a sweep over two data sets."""
    given = frame(*(drawn({"salvage": 0.5, "rise": 0.4, "random": 0.0}, data=name) for name in ("cluttered", "other")))
    params, columns = read_table(config_file("table", "salvage_table1")), metrics.columns()
    tables = build_tables(given, params, columns)
    published = published_table(params, columns)
    claims = table_of(judge(given, Claims([Claim(["srg"], ["salvage"], ["rise", "random"], "Table 1")]), columns))
    shown = Shown({"salvage_table1": [*tables, published]}, claims)
    write_results(tmp_path / "toy", shown, ORIGIN)
    return tmp_path, tables


def block(body: str = "", more: str = "") -> str:
    return f"before\n{BLOCK.format(body=body, more=more)}after\n"


def test_a_block_is_the_table_that_was_measured_with_what_made_it(results):
    folder, tables = results
    text = filled(block("| 99.9 |\n", ", table: salvage_table1"), folder)
    assert as_markdown(sheet_of(tables[0])) in text
    assert str(ORIGIN) in text
    assert "SALVAGE, Table 1 · cluttered" in text
    assert "99.9" not in text
    assert text.startswith("before\n<!-- results")
    assert text.endswith("<!-- end of results -->\nafter\n")


def test_a_number_that_was_written_by_hand_does_not_stay(results):
    folder, _ = results
    text = filled(block(more=", table: salvage_table1"), folder)
    assert filled(text, folder) == text
    (number,) = {line.split("|")[2].split()[0] for line in text.splitlines() if line.startswith("| SALVAGE ")}
    assert filled(text.replace(number, "**<ins>77.7"), folder) == text


def test_verdicts_are_a_block_too(results):
    folder, _ = results
    text = filled(block(), folder)
    assert "| SALVAGE is ahead of RISE in SRG | Table 1 | +" in text
    assert "Of 2 comparisons: 2 hold" in text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (block(more=", table: salvage_table2"), "no salvage_table2 of data 'cluttered'"),
        (block(more=", table: salvage_table1").replace("cluttered", "mnist"), "data 'mnist'"),
        (block().replace("data: cluttered", "table: salvage_table1"), "data"),
        (block().replace("<!-- end of results -->", ""), "has no end"),
        (block(body="| 1 |\n").replace("toy", "unheard_of"), "does not say what measured it"),
    ],
)
def test_a_block_of_what_there_is_not_is_refused(results, text, said):
    assert said in refusal(filled, text, results[0])


def test_a_sweep_that_was_not_run_leaves_what_was_measured_before(results):
    text = block(f"{EARLIER}abc1234; `make toy` measures it anew.\n\n| 1 |\n").replace("toy", "unheard_of")
    assert filled(text, results[0]) == text


def test_no_digit_is_lost_on_the_way(results):
    folder, tables = results
    kept = pd.read_csv(folder / "toy" / "tables.csv")
    cells = [cell.mean for table in tables for s in table.sections for row in s.rows for cell in row.cells]
    assert kept["mean"].dropna().tolist() == [value for value in cells if value == value]
    assert set(kept["table"]) == {"salvage_table1"}, "what the paper printed was not measured"
    assert yaml.safe_load((folder / "toy" / "about.yaml").read_text())["seeds"] == [0, 1, 2]


def test_the_origin_names_the_commits_that_made_the_runs_rather_than_todays():
    first, second = "a" * 40, "b" * 40
    assert Origin.here("make toy", 3, [0], [first, second, first]).commit == f"{first[:10]}, {second[:10]}"


def test_the_command_takes_what_is_newer_and_fills_every_document(results, tmp_path, monkeypatch, capsys):
    place = tmp_path / "clone"
    (place / "docs").mkdir(parents=True)
    monkeypatch.setattr(command, "ROOT", place)
    monkeypatch.setattr(command, "RESULTS", place / "docs" / "results")
    (place / "README.md").write_text(block(more=", table: salvage_table1"))
    (place / "docs" / "a.md").write_text("nothing to fill\n")
    measured = place / "outputs" / "toy" / "results"
    shutil.copytree(results[0] / "toy", measured)
    command.main()
    first = (place / "README.md").read_text()
    assert str(ORIGIN) in first
    assert "filled" in capsys.readouterr().out
    about = measured / "about.yaml"
    for date, taken in (("2025-12-31", False), ("2026-01-02", True)):
        about.write_text(
            about.read_text().replace("2 cores", "4 cores").replace(yaml.safe_load(about.read_text())["date"], date)
        )
        command.main()
        assert ("4 cores" in (place / "README.md").read_text()) == taken
    capsys.readouterr()
    whole = yaml.safe_load(about.read_text())
    for less in ({"runs": whole["runs"] - 1}, {"seeds": whole["seeds"][:-1]}):
        about.write_text(yaml.safe_dump({**whole, **less, "date": "2026-01-03", "machine": "8 cores"}))
        command.main()
        said = capsys.readouterr().out
        assert "left " in said
        assert f"{less.get('runs', whole['runs'])} run" in said
        assert "8 cores" not in (place / "README.md").read_text()


def test_figures_come_with_the_results_of_the_sweeps_that_are_named(results, tmp_path, monkeypatch, capsys):
    docs, outputs = tmp_path / "docs", tmp_path / "outputs"
    monkeypatch.setattr(command, "RESULTS", docs / "results")
    (docs / "images").mkdir(parents=True)
    for name in ("shown.png", "of_another.png", "renamed-digits.png", "renamed_more.png"):
        (docs / "images" / name).write_bytes(b"old")
    figures = {
        "vectors_figure2": ["shown.png", "not_shown.png", "renamed.png"],
        "vectors_figure2_paper": ["shown.png"],
        "mine": ["shown.png"],
        "vectors_figure5": ["of_another.png"],
    }
    for sweep, names in figures.items():
        shutil.copytree(results[0] / "toy", outputs / sweep / "results", dirs_exist_ok=True)
        (outputs / sweep / "figures").mkdir(exist_ok=True)
        for name in names:
            (outputs / sweep / "figures" / name).write_text(sweep)
    command.take(outputs, [sweep for sweep in figures if sweep != "vectors_figure5"])
    assert {path.name for path in (docs / "results").iterdir()} == {*figures} - {"vectors_figure5"}
    assert {path.name: path.read_text() for path in (docs / "images").iterdir()} == {
        "shown.png": "vectors_figure2",
        "of_another.png": "old",
        "renamed-digits.png": "old",
        "renamed_more.png": "old",
    }
    said = [line for line in capsys.readouterr().out.splitlines() if "earlier draw" in line]
    assert len(said) == 1
    assert "renamed-digits.png is of an earlier draw: the figure is renamed.png now" in said[0]


def test_a_picture_of_an_earlier_draw_is_named_once_with_all_that_came_of_it(results, tmp_path, monkeypatch, capsys):
    images, sweep = tmp_path / "docs" / "images", tmp_path / "outputs" / "vectors_figure2"
    monkeypatch.setattr(command, "RESULTS", images.with_name("results"))
    images.mkdir(parents=True)
    (images / "drawn.png").write_bytes(b"old")
    shutil.copytree(results[0] / "toy", sweep / "results")
    (sweep / "figures").mkdir()
    for name in ("drawn-b.png", "drawn-a.png"):
        (sweep / "figures" / name).write_bytes(b"new")
    command.take(sweep.parent)
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 2
    assert "drawn.png is of an earlier draw: the figure is drawn-a.png, drawn-b.png now" in said[0]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_the_documents_show_what_the_results_say(path):
    text = path.read_text(encoding="utf-8")
    assert filled(text, ROOT / "docs" / "results") == text, "make docs-tables writes the blocks"
