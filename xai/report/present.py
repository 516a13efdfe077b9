"""What a person gets from a study: tables and verdicts in the terminal, and the same and the frames as files."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from xai.core.composing import config_file
from xai.core.files import write_atomically
from xai.core.progress import console
from xai.metrics import registry as metrics
from xai.report import sheets
from xai.report.layout import read_table
from xai.report.sheets import Sheet
from xai.report.tables import Reasons, Table, as_frame, build_tables, published_table
from xai.study.claims import Finding, judge, read_claims, table_of
from xai.study.files import write_frames
from xai.study.frame import Frames

OTHER_SETTINGS = "@"
"""In the name of a row that is another row at other settings: it is for figures, and no row of tables and claims."""


def present(
    frames: Frames,
    output: Path,
    tables: Sequence[str],
    claims: Sequence[str],
    unfit: Mapping[str, str],
) -> list[Sheet]:
    """Print what was measured, and write it into a folder: frames, tables, verdicts.

    Args:
        frames: What was measured.
        output: The folder.
        tables: Files of conf/table.
        claims: Files of conf/claims.
        unfit: Why rows were left out, by name.

    Returns:
        What was printed, for a page.
    """
    made = {name: tables_of(frames, name, unfit) for name in tables}
    findings = verdicts(frames, claims)
    shown = [sheets.sheet_of(table) for found in made.values() for table in found]
    shown += sheets.claim_sheets(findings)
    write_frames(output, frames)
    for name, found in made.items():
        _write_table(output / f"{name}", found)
    if findings:
        write_atomically(output / "claims.csv", table_of(findings).to_csv(index=False).encode())
    for sheet in shown:
        console.print(sheets.as_rich(sheet, console.width))
    for note in sheets.claim_notes(findings) if findings else ():
        console.print(note, highlight=False, style="dim")
    return shown


def tables_of(frames: Frames, name: str, unfit: Mapping[str, str]) -> list[Table]:
    """The tables of a file of conf/table, one a data set, and what the paper printed after them.

    Raises:
        UserError: There is no such file, or nothing of what it shows was measured.
    """
    params, columns = read_table(config_file("table", name)), metrics.columns()
    reasons = Reasons(frames.left_out, unfit, {column: metrics.metric_of(column).name for column in columns})
    published = published_table(params, columns)
    made = build_tables(usual(frames.scores), params, columns, usual(frames.costs), reasons)
    return made + ([] if published is None else [published])


def verdicts(frames: Frames, names: Sequence[str]) -> list[Finding]:
    """What the claims of some files of conf/claims come to."""
    columns, scores = metrics.columns(), usual(frames.scores)
    return [found for name in names for found in judge(scores, read_claims(config_file("claims", name)), columns)]


def usual(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of rows at their usual settings; what was asked in another case is told of the main case's data set."""
    if not len(frame):
        return frame
    lines = frame[~frame["explainer"].str.contains(OTHER_SETTINGS, regex=False)]
    main = lines[lines["case"] == "main"].drop_duplicates(["model", "seed"]).set_index(["model", "seed"])["data"]
    asked = pd.Series(pd.MultiIndex.from_frame(lines[["model", "seed"]]).map(main), lines.index)
    return lines.assign(data=lines["data"].where((lines["case"] == "main") | asked.isna(), asked))


def _write_table(stem: Path, tables: Sequence[Table]) -> None:
    texts = [sheets.as_markdown(sheets.sheet_of(table)) for table in tables]
    write_atomically(stem.with_suffix(".md"), "\n".join(texts).encode())
    values = pd.concat([as_frame(table).assign(table=table.title) for table in tables])
    write_atomically(stem.with_suffix(".csv"), values.to_csv(index=False).encode())
