"""Results that the documentation shows: tables and verdicts of a sweep as CSV, and blocks of Markdown made of them.

A block is what lies between `<!-- results: {sweep: NAME, data: NAME, table: NAME} -->` and `<!-- end of results -->`.
"""

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import yaml

from xai.core.composing import config_file
from xai.core.errors import UserError
from xai.core.files import write_atomically
from xai.core.provenance import provenance
from xai.core.settings import build
from xai.metrics import registry as metrics
from xai.report import sheets
from xai.report.layout import read_table
from xai.report.parts import as_frame
from xai.report.present import Shown
from xai.report.tables import table_of_frame
from xai.study.claims import read_yaml

EARLIER = "Measured by commit "
"""What a block begins with whose sweep has not been run since blocks are generated."""
_TEXT = ("group", "row", "label", "over", "mark", "heading", "paper", "than", "why", "lacks")
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


@dataclass(frozen=True)
class Origin:
    """What made results.

    Args:
        command: That was typed.
        runs: How many.
        seeds: Of the runs.
        version: Of this framework.
        commit: Of its repository when the runs were made, or several; empty where there is none.
        machine: Cores and processor, or GPU.
        date: Of the day it was written, YYYY-MM-DD.
    """

    command: str
    runs: int
    seeds: list[int]
    version: str
    commit: str
    machine: str
    date: str

    @classmethod
    def here(cls, command: str, runs: int, seeds: list[int], commits: Sequence[str] = ()) -> "Origin":
        """This machine, today; of runs that have not kept by which `commits` they were made, today's."""
        made = provenance()
        commit = ", ".join(dict.fromkeys(each[:10] for each in commits or [made["commit"] or ""]))
        return cls(command, runs, seeds, made["versions"]["xai"], commit, machine(), f"{datetime.now(UTC):%Y-%m-%d}")

    def __str__(self) -> str:
        """One line of Markdown."""
        seeds = ", ".join(map(str, self.seeds))
        version = f"version {self.version}" + f", commit {self.commit}" * bool(self.commit)
        return f"`{self.command}`: {self.runs} runs, seeds {seeds}; {version}, {self.machine}, {self.date}."


def machine() -> str:
    """The device that works, in words: the GPU, or cores and processor."""
    if torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*:\s*(.+)", cpuinfo.read_text() if cpuinfo.is_file() else "")
    return f"{os.cpu_count()} cores of {named[1] if named else platform.processor() or platform.machine()}"


def write_results(folder: Path, shown: Shown, origin: Origin) -> None:
    """Write what blocks are made of: `tables.csv`, `claims.csv`, and in `about.yaml` what made them and the notes."""
    measured = [(name, table) for name, tables in shown.tables.items() for table in tables if not table.is_published]
    frames = [as_frame(table).assign(table=name, title=table.title) for name, table in measured]
    about = asdict(origin) | {"notes": {table.title: list(table.notes) for _, table in measured}}
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "tables.csv", (pd.concat(frames).to_csv(index=False) if frames else "").encode())
    write_atomically(folder / "claims.csv", (shown.claims.to_csv(index=False) if len(shown.claims) else "").encode())
    write_atomically(
        folder / "about.yaml", yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=120).encode()
    )


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


def read_values(path: Path) -> pd.DataFrame:
    """A file of cells or verdicts, as `write` and `write_results` leave them; empty where it holds none."""
    try:
        found = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, "str"), keep_default_na=False, na_values=[""])
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    return found.fillna(dict.fromkeys(_TEXT, ""))
