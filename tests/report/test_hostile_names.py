"""Names from anywhere, such as a checkpoint of somebody else's, in the tables that a spreadsheet or a reader opens."""

import csv
import math
import re
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from tests.toolbox import refusal
from xai.core.csv_files import read_csv, write_csv
from xai.explainers.rows import open_row
from xai.models.spec import Lineage
from xai.report.sheets import Entry, Line, Part, Sheet, as_markdown
from xai.study.frame import NAMES, Frames, read_frames, write_frames

NAMES_OF_OTHERS = [
    '=HYPERLINK("http://localhost/?"&A1,"look")',
    "+1+cmd|' /C calc'!A0",
    "-2+3",
    "@SUM(1)",
    "'=already marked",
    "''-twice",
    "'quoted'",
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "../x",
    "a|b",
    "`code`",
    "[link](javascript:alert(1))",
    "back\\slash|",
    "a, b; c",
    "-0.5",
    "x" * 255,
]
UNSEEN = ["two\nlines", "carriage\rreturn", "\tindented", "\u202eright to left", "\x1b[2J", "nul\x00", "\x7f"]


def test_text_that_a_spreadsheet_would_run_is_marked_and_reads_back_equal(tmp_path: Path) -> None:
    written = pd.DataFrame({"label": NAMES_OF_OTHERS, "value": range(len(NAMES_OF_OTHERS)), "none": math.nan})
    written["value"] = -written["value"] / 7
    write_csv(tmp_path / "a.csv", written)
    with open(tmp_path / "a.csv", newline="") as file:
        cells = [cell for line in csv.reader(file) for cell in line]
    run = [cell for cell in cells if cell[:1] in ("=", "+", "-", "@") and not re.fullmatch(r"-[\d.e-]+", cell)]
    assert run == []
    pd.testing.assert_frame_equal(read_csv(tmp_path / "a.csv"), written, check_dtype=False)
    frames = Frames(*(pd.DataFrame({"label": NAMES_OF_OTHERS, "explainer": NAMES_OF_OTHERS}) for _ in NAMES))
    write_frames(tmp_path, frames)
    pd.testing.assert_frame_equal(read_frames(tmp_path).scores, frames.scores, check_dtype=False)


def test_a_name_that_pandas_takes_for_no_value_reads_back_equal(tmp_path: Path) -> None:
    names = ["NA", "null", "None", "nan"]
    written = pd.DataFrame({"explainer": names, "source": [math.nan, *names[1:]], "value": [0.5, math.nan, -1.0, 2.0]})
    write_frames(tmp_path, Frames(*(written for _ in NAMES)))
    pd.testing.assert_frame_equal(read_frames(tmp_path).scores, written, check_dtype=False)


def test_a_table_of_plain_text_is_what_pandas_writes(tmp_path: Path) -> None:
    plain = pd.DataFrame({"label": ["a", "b"], "value": [-1.5, float("nan")], "paper": ["-1.5", None]})
    write_csv(tmp_path / "a.csv", plain)
    assert (tmp_path / "a.csv").read_text() == plain.to_csv(index=False)


def test_a_name_in_markdown_is_one_cell_of_text() -> None:
    lines = tuple(Line((name,), (Entry("1"),)) for name in [*NAMES_OF_OTHERS, *UNSEEN])
    script, image = NAMES_OF_OTHERS[7:9]
    sheet = Sheet(image, (("", ""), (script, "")), 1, (Part("", lines),), (image,))
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(as_markdown(sheet))
    assert set(re.findall(r"<(\w+)", shown)) == {"p", "strong", "table", "thead", "tbody", "tr", "th", "td"}
    assert shown.count("<tr>") == len(lines) + 1
    assert shown.count("<td") == 2 * len(lines)
    assert all(f"<td>{name}</td>" in shown for name in ("a|b", "`code`", "back\\slash|", "../x"))


@pytest.mark.parametrize("name", UNSEEN)
def test_a_name_that_cannot_be_seen_on_one_line_is_refused(name: str) -> None:
    assert "one line" in refusal(open_row, "rise", {"label": name})
    with pytest.raises(ValueError, match="one line of characters that can be seen"):
        Lineage(base=name)
