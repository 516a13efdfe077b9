"""docs/results.md says what the results of sweeps say, and nothing of what was not run."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from docs.papers import NOT_RUN, Item, Paper, Papers, page, read_papers
from tests.report.test_results import ORIGIN
from tests.study.frames import drawn, frame
from xai.core.composing import config_file
from xai.core.errors import UserError
from xai.metrics import registry as metrics
from xai.report.layout import read_table
from xai.report.present import Shown
from xai.report.results import write_results
from xai.report.tables import build_tables
from xai.study.claims import RULE, Claim, Claims, judge, table_of

DOCS = Path(__file__).resolve().parents[2] / "docs"
ITEM = Item("SALVAGE wins.", "Table 1", "68.5 against 61.1", "toy", "srg", "salvage", "rise", controls=["random"])
PAPER = Paper("A paper", "large.", "small.", [ITEM])


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """The results of a sweep over two data sets, on one of which the claim does not hold."""
    folder = tmp_path_factory.mktemp("results")
    given = frame(
        drawn({"salvage": 0.5, "rise": 0.4, "random": 0.0}, data="good"),
        drawn({"salvage": 0.3, "rise": 0.4, "random": 0.0}, data="bad"),
    )
    columns = metrics.columns()
    tables = build_tables(given, read_table(config_file("table", "salvage_table1")), columns)
    claims = [Claim(["srg"], ["salvage"], [row], paper) for row, paper in (("rise", "Table 1"), ("random", "ours"))]
    claims.append(Claim(["srg"], ["rise"], ["random"], "ours", "{above} leads"))
    write_results(
        folder / "toy", Shown({"salvage_table1": tables}, table_of(judge(given, Claims(claims), columns))), ORIGIN
    )
    return folder


def rows(text):
    """The cells of the lines of tables, without their heads."""
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [line for line in lines if line[0] not in ("Claim", "Here")]


def test_a_claim_has_a_line_for_each_data_set_with_what_was_measured(results):
    good, bad = rows(page(Papers([PAPER]), results))
    assert good[:3] == ["SALVAGE wins.", "Table 1", "68.5 against 61.1"]
    ours, theirs = map(float, re.fullmatch(r"good · vit_tiny: ([\d.]+) against ([\d.]+)", good[3]).groups())
    assert (ours, theirs) == (pytest.approx(50, abs=3), pytest.approx(40, abs=3))
    difference, low, high = (float(number) for number in re.findall(r"[+-][\d.]+", good[4]))
    assert low < difference < high
    assert difference == pytest.approx(ours - theirs, abs=0.11)
    assert good[5:7] == ["**holds**", "3, 40"]
    assert re.fullmatch(r"RANDOM \+[45]\d\.\d ✓", good[7])
    assert bad[3].startswith("bad")
    assert bad[5] == "**does not hold**"
    assert len(rows(page(Papers([replace(PAPER, claims=[replace(ITEM, data=["bad"])])]), results))) == 1


@pytest.mark.parametrize("sweep", ["", "unheard_of"])
def test_what_was_not_run_has_no_number(results, sweep):
    text = page(Papers([replace(PAPER, claims=[replace(ITEM, sweep=sweep)], ours=["unheard_of"])]), results)
    (told,) = rows(text)
    assert told[5].startswith(NOT_RUN)
    assert not re.search(r"\d", "".join(told[3:]).replace(sweep, ""))
    assert f"`sweep=unheard_of`: {NOT_RUN}." in text
    assert "Measured by" not in text


def test_what_is_ours_is_told_apart_with_what_made_it(results):
    text = page(Papers([replace(PAPER, ours=["toy"], tried=["a thing"])]), results)
    paper, own = text.split("**Ours**")
    assert "ahead of RANDOM" not in paper
    good, bad, *others = rows(own)
    assert [line[:4] for line in (good, bad)] == [
        [f"{name} · vit_tiny", "SALVAGE", "RANDOM", "3, 40"] for name in ("good", "bad")
    ]
    assert re.fullmatch(r"\+[45]\d\.\d \[\+\d\d\.\d, \+\d\d\.\d\] ✓", good[4])
    assert [line[0] for line in others] == ["RISE leads"] * 2
    assert "* a thing\n" in own
    assert str(ORIGIN) in own


def test_a_comparison_that_was_not_made_is_refused(results):
    with pytest.raises(UserError, match=r"'SALVAGE wins\.'.* no comparison of srg, salvage, lime"):
        page(Papers([replace(PAPER, claims=[replace(ITEM, below="lime")])]), results)


@pytest.mark.parametrize(("rule", "is_named"), [(RULE, False), ("another", True)])
def test_what_was_judged_by_an_earlier_rule_is_named(results, tmp_path, rule, is_named):
    shutil.copytree(results, tmp_path, dirs_exist_ok=True)
    about = tmp_path / "toy" / "about.yaml"
    about.write_text(yaml.safe_dump({**yaml.safe_load(about.read_text()), "rule": rule}))
    assert ("number of seeds): toy." in page(Papers([PAPER]), tmp_path)) == is_named


def test_the_page_is_what_the_results_say():
    text = (DOCS / "results.md").read_text(encoding="utf-8")
    assert page(read_papers(DOCS / "papers.yaml"), DOCS / "results") == text, "make docs-tables writes it"
