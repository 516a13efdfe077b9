import io
import re
from html.parser import HTMLParser

import pytest
from rich.console import Console

from tests.reports.removal_rows import evidence
from xai.reports.claim_renderers import claims_as_html, claims_as_markdown, claims_as_rich, grids, tally
from xai.reports.claims import RULE, Finding, ahead, ahead_in_grid, judge
from xai.reports.removal_claims import CLAIMS
from xai.reports.removal_roles import SCHEME
from xai.reports.renderers import number

AHEAD = ahead_in_grid("salvage", "rise", "srg", "Table 1", SCHEME)
NAN = float("nan")


def finding(verdict="holds", claim=AHEAD, mean=0.1234, images=4, data="cluttered"):
    over_images = (mean, mean - 0.05, mean + 0.05) if images else (NAN, NAN, NAN)
    return Finding(claim, data, (mean,), (NAN, NAN), images, over_images, verdict)


def everything():
    return judge(evidence(data=("a", "b")), CLAIMS)


def printed(findings, width):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(claims_as_rich(findings))
    return console.file.getvalue()


def test_each_data_set_has_a_grid_of_rivals_and_one_of_the_other_claims():
    shown = grids(everything())
    assert [grid.title for grid in shown] == [
        f"{what} · {data}" for data in "ab" for what in ("SALVAGE less each other row", "Other claims")
    ]
    assert shown[0].head == ("", "SRG ↑", "R-SRG ↑", "MIF ↓", "R-MIF ↓", "RMA ↑", "RRA ↑")
    assert [row[0] for row in shown[0].rows] == ["ViT-Shapley", "RISE", "Grad-CAM", "Random map", "Object mask"]
    assert len(shown[1].rows) == 6


def test_a_cell_is_the_difference_in_points_and_the_sign_of_its_verdict():
    rise = next(f for f in everything() if (f.claim.theirs, f.claim.metric, f.data) == ("rise", "mif", "a"))
    row = next(row for row in grids(everything())[0].rows if row[0] == "RISE")
    assert row[3] == f"{number(100 * rise.mean, 1)} ✓"
    for verdict, sign in (("holds", "✓"), ("does not hold", "✗"), ("undecided", "?")):
        assert grids([finding(verdict)])[0].rows == (("RISE", f"+12.3 {sign}"),)


def test_the_other_claims_show_the_interval_that_decided():
    claim = ahead("salvage", "salvage_uniform", "srg", "Figure 7", SCHEME)
    assert grids([finding(claim=claim)])[0].rows[0][2:] == ("+12.3 [+7.3, +17.3]", "holds ✓")
    assert grids([finding("undecided", claim, images=0)])[0].rows[0][2:] == ("+12.3", "undecided ?")


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (["holds"], "Of 1 claims 1 holds, 0 do not hold, 0 are undecided."),
        (["holds"] * 2 + ["does not hold", "undecided"], "Of 4 claims 2 hold, 1 does not hold, 1 is undecided."),
    ],
)
def test_the_tally_counts_verdicts(verdicts, expected):
    assert tally([finding(verdict) for verdict in verdicts]) == expected


@pytest.mark.parametrize("width", [100, 120])
def test_the_terminal_shows_every_cell_whole(width):
    text = printed(everything(), width)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    for cell in (cell for grid in grids(everything()) for row in grid.rows for cell in row[1:]):
        assert cell in text
    assert RULE.split()[-1] in text


def test_markdown_has_every_claim_with_both_intervals():
    found = everything()
    text = claims_as_markdown(found)
    tables = re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE)
    assert len(tables) == 5
    for table in tables:
        assert len({line.count("|") for line in table.splitlines()}) == 1
    lines = tables[-1].splitlines()[2:]
    assert len(lines) == len(found)
    for line, one in zip(lines, found, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[0] == one.claim.text
        assert [float(value) for value in re.findall(r"[-+]?\d+\.\d", cells[3])] == pytest.approx(
            [100 * value for value in (one.mean, *one.interval)], abs=0.051
        )
        assert (cells[4], cells[6], cells[7]) == ("3", str(one.images or "–"), one.verdict)
    assert tally(found) in text
    assert RULE in text


def test_html_is_well_formed_and_holds_the_same_cells():
    class Reader(HTMLParser):
        open, cells = (), ()

        def handle_starttag(self, tag, attrs):
            self.open = (*self.open, tag)

        def handle_endtag(self, tag):
            assert self.open[-1] == tag
            self.open = self.open[:-1]

        def handle_data(self, data):
            if self.open[-1] in ("td", "th"):
                self.cells = (*self.cells, data)

    reader = Reader()
    reader.feed(str(claims_as_html([*everything(), finding(data="<b>")])))
    assert reader.open == ()
    wanted = [cell.replace("-", "−") for grid in grids(everything()) for row in grid.rows for cell in row[1:]]
    assert [cell for cell in reader.cells if cell in wanted]
    assert set(wanted) <= set(reader.cells)
    assert "b" not in {cell.strip("<>") for cell in reader.cells}
