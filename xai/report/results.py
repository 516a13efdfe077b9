"""Results of a sweep as files, for the documentation and the site: tables and verdicts as CSV, and what made them."""

import os
import platform
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import torch
import yaml

from xai.core.csv_files import read_csv, write_csv
from xai.core.files import write_atomically
from xai.core.runtime import provenance
from xai.report.layout import as_frame
from xai.report.present import Shown
from xai.study.claims import RULE

_TEXT = ("group", "row", "label", "over", "mark", "heading", "paper", "than", "why", "lacks")


@dataclass(frozen=True)
class Origin:
    """What made results: the command that was typed, how many runs, of which seeds, by which version, where and when.

    `commit` is that of the repository when the runs were made, or several; empty where there is none. The machine is
    told by its cores and processor, or its GPU; the date is YYYY-MM-DD. `rule` is how claims were judged.
    """

    command: str
    runs: int
    seeds: list[int]
    version: str
    commit: str
    machine: str
    date: str
    rule: str = ""

    @classmethod
    def here(cls, command: str, runs: int, seeds: list[int], commits: Sequence[str]) -> "Origin":
        """This machine, today; of runs that have not kept by which `commits` they were made, today's."""
        made = provenance()
        commit = ", ".join(dict.fromkeys(each[:10] for each in commits or [made["commit"] or ""]))
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        return cls(command, runs, seeds, made["versions"]["xai"], commit, machine(), today, RULE)

    def __str__(self) -> str:
        """One line of Markdown."""
        seeds = f"seed{'s' * (len(self.seeds) != 1)} {', '.join(map(str, self.seeds))}"
        runs = f"{self.runs} run{'s' * (self.runs != 1)}"
        version = f"version {self.version}" + f", commit {self.commit}" * bool(self.commit)
        return f"`{self.command}`: {runs}, {seeds}; {version}, {self.machine}, {self.date}."


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
    write_csv(folder / "tables.csv", pd.concat(frames) if frames else pd.DataFrame())
    write_csv(folder / "claims.csv", shown.claims if len(shown.claims) else pd.DataFrame())
    write_atomically(
        folder / "about.yaml", yaml.safe_dump(about, sort_keys=False, allow_unicode=True, width=120).encode()
    )


def read_values(path: Path) -> pd.DataFrame:
    """A file of cells or verdicts, as `write` and `write_results` leave them; empty where it holds none."""
    try:
        found = read_csv(path, dtype=dict.fromkeys(_TEXT, "str"))
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    return found.fillna(dict.fromkeys(_TEXT, ""))
