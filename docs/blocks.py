"""Blocks of Markdown that show results of a sweep.

A block is what lies between `<!-- results: {sweep: NAME, data: NAME, table: NAME} -->` and `<!-- end of results -->`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from xai.core.composing import config_file
from xai.core.errors import UserError
from xai.core.settings import build
from xai.metrics import registry as metrics
from xai.metrics.registry import Column
from xai.report import sheets
from xai.report.layout import Cell, Section, Table, TableParams, read_table
from xai.report.results import Origin, read_values
from xai.report.tables import row_of
from xai.study.claims import read_yaml
from xai.study.columns import column_of
from xai.study.ranks import PLACE, of_ranks

EARLIER = "Measured by commit "
"""What a block begins with whose sweep has not been run since blocks are generated."""
_BLOCK = re.compile(r"(<!-- results: (\{[^\n]*\}) -->\n)(.*?)(<!-- end of results -->)", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """Which results a block shows.

    Args:
        sweep: Whose.
        data: The data set, or source → data set, as the title of the table has it.
        table: The file of conf/table; empty: the verdicts of claims.
    """

    sweep: str
    data: str
    table: str = ""


def render(block: Block, folder: Path) -> str:
    """A block as Markdown, from the results of its sweep in `folder`.

    Raises:
        UserError: They have no such table, or none of this data set.
    """
    about = read_yaml(folder / "about.yaml", "file of results")
    notes: Mapping[str, list[str]] = about.pop("notes")
    origin = build(Origin, about, "about")
    if block.table:
        frame = read_values(folder / "tables.csv")
        frame = frame[frame["table"] == block.table] if len(frame) else frame
        parts: dict[str, Any] = (
            {str(title): part for title, part in frame.groupby("title", sort=False)} if len(frame) else {}
        )
        title = _of_data(parts, block)
        params = read_table(config_file("table", block.table))
        shown = [sheets.sheet_of(table_of_frame(parts[title], title, params, metrics.columns(), notes[title]))]
    else:
        claims = read_values(folder / "claims.csv")
        parts = {str(where): part for where, part in claims.groupby("where", sort=False)} if len(claims) else {}
        mine = parts[_of_data(parts, block)]
        shown = sheets.claim_sheets(mine, metrics.columns())
        shown[-1] = replace(shown[-1], notes=tuple(sheets.claim_notes(mine)))
    return "\n".join([*map(sheets.as_markdown, shown), f"{origin}\n"])


def filled(text: str, results: Path) -> str:
    """A text of Markdown with its blocks as the results say.

    A block whose sweep has no results of its data yet keeps what it has; its first line says what measured that, and
    how to anew.

    Args:
        text: The Markdown.
        results: A folder of results for each sweep.

    Raises:
        UserError: A block does not end, shows what nobody measured, or asks for what there is not.
    """
    if text.count("<!-- results:") != len(_BLOCK.findall(text)):
        raise UserError("a block of results has no end, or no {sweep: NAME, data: NAME} in its first line")

    def fill(found: re.Match[str]) -> str:
        block = build(Block, yaml.safe_load(found[2]), "results")
        earlier = found[3].startswith(EARLIER)
        if (results / block.sweep).is_dir():
            try:
                return f"{found[1]}{render(block, results / block.sweep)}{found[4]}"
            except UserError:
                if not earlier:
                    raise
        elif not earlier:
            raise UserError(f"the block {found[2]} has no results in {results}, and does not say what measured it")
        return found[0]

    return _BLOCK.sub(fill, text)


def _of_data(titles: Mapping[str, Any], block: Block) -> str:
    wanted = set(block.data.split(", "))
    found = [title for title in titles if any(wanted == set(part.split(", ")) for part in title.split(" · "))]
    if len(found) != 1:
        what = block.table or "claims"
        raise UserError(f"the results of {block.sweep} have no {what} of data {block.data!r}: there are {list(titles)}")
    return found[0]


def table_of_frame(
    frame: pd.DataFrame, title: str, params: TableParams, columns: Mapping[str, Column], notes: Sequence[str]
) -> Table:
    """The table that `as_frame` gave the frame of."""
    shown = tuple(column_of(name, columns) for name in frame["column"].unique())
    if params.ranked:
        shown = tuple(of_ranks([column for column in shown if column.name != PLACE.name]))
    names = ["mean", "low", "high", "spread", "n_images", "runs", "over", "mark"]
    sections = []
    for heading, part in frame.groupby("group", sort=False):
        rows = [
            row_of(str(name), str(label), tuple(Cell(*line) for line in lines[names].itertuples(index=False)), params)
            for (name, label), lines in part.groupby(["row", "label"], sort=False)
        ]
        sections.append(Section(str(heading), tuple(rows)))
    digits = tuple(params.after_point(column) for column in shown)
    return Table(title, shown, digits, tuple(sections), tuple(notes), params.spread)
