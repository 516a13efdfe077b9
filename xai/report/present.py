"""What a person gets from a study: tables and verdicts in the terminal, files of everything, and one page."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
from torch import Tensor

from xai.core.composing import config_file
from xai.core.csv_files import write_csv
from xai.core.errors import UserError
from xai.core.files import write_atomically
from xai.core.overrides import command
from xai.core.progress import console
from xai.core.runtime import provenance
from xai.explainers.registry import Row
from xai.metrics import registry as metrics
from xai.report import sheets
from xai.report.album import write_album
from xai.report.figures import Drawn, Source, draw_all, open_figure, save
from xai.report.gallery import of_study
from xai.report.layout import Reasons, Table, TableParams, as_frame, read_table
from xai.report.page import Page, Part, Picture, write_page
from xai.report.pictures import Gallery
from xai.report.pictures import sheets as picture_sheets
from xai.report.tables import build_tables, published_table
from xai.report.tiles import Tiles, tiles_of
from xai.study.claims import judge, judge_pairs, read_claims, table_of
from xai.study.frame import NAMES, Frames, write_frames
from xai.study.study import Study, StudySettings

_GRID = (
    "Red speaks for the class that is named below the image, blue against it; a map without negative values is drawn "
    "from its lowest to its highest. The number behind a name is the mean over all images of what the grid is sorted "
    "by. Controls have a dashed border. The images are spread evenly over those that were measured; none was picked."
)
_MOST_LINES = 6
"""Lines of what is not there that a terminal is given."""
OTHER_SETTINGS = "@"
"""In the name of a row that is another row at other settings: it is for figures, and no row of tables and claims."""


@dataclass(frozen=True)
class Shown:
    """What a study is shown as: tables by the name of their file, verdicts, figures, sheets of maps, and its costs.

    `missing` has a line for each figure that could not be drawn and each row that was left out; `summary` says what it
    comes to, a sentence each; the page begins with the pictures of `opening`; `tiles` is the grid of the same images
    under all rows.
    """

    tables: Mapping[str, Sequence[Table]]
    claims: pd.DataFrame = field(default_factory=pd.DataFrame)
    figures: Sequence[Drawn] = ()
    missing: Sequence[str] = ()
    summary: Sequence[str] = ()
    pictures: Sequence[Picture] = ()
    costs: pd.DataFrame = field(default_factory=pd.DataFrame)
    opening: Sequence[Picture] = ()
    tiles: Tiles | None = None


@dataclass(frozen=True)
class Told:
    """What one study has to say besides what all of them have.

    Args:
        summary: What it comes to, a sentence each; printed first on the page.
        tables: Further ones, by the name of their file.
        made: How it was made, by name.
        pictures: Makes further sheets of maps, of so many images.
        opening: Makes the pictures that the page opens with, of so many images.
        grid: Whether the images stand under all rows in one grid that can be switched, and not on sheets.
        second: Whether the site's pictures have maps of a second class, which are made for them alone.
    """

    summary: Sequence[str] = ()
    tables: Mapping[str, Sequence[Table]] = field(default_factory=dict)
    made: Mapping[str, str] = field(default_factory=dict)
    pictures: Callable[[int], Iterable[Picture]] = lambda count: ()
    opening: Callable[[int], Iterable[Picture]] = lambda count: ()
    grid: bool = False
    second: bool = True


def present(study: Study, frames: Frames, asked: StudySettings, output: Path, told: Told) -> Path:
    """Print what was measured, and write it into a folder: frames, tables, verdicts, figures, pictures, a page."""
    shown = views(frames, asked.tables, asked.claims, asked.figures, study.unfit)
    shown = replace(
        shown,
        tables={**shown.tables, **{name: tables for name, tables in told.tables.items() if tables}},
        summary=told.summary,
        pictures=[*told.pictures(asked.pictures), *([] if told.grid else pictures_of(study, asked.pictures))],
        tiles=_tiles(study, frames, asked.pictures) if told.grid else None,
        opening=list(told.opening(asked.pictures)),
    )
    case = study.cases[0][0]
    model, data = case.model, case.data
    about = f"{model.name} on {data.name}, {len(case.rows)} images of the {case.split} split, seed {case.seed}"
    made = {**told.made, **made_here()}
    write_gallery(study, asked, output, told.second)
    if isinstance(model.identity, str):
        made["model, in the store"] = model.identity
    return hand_over(shown, frames, output, asked.title, about, made)


def made_here() -> dict[str, str]:
    """What makes numbers here, by name: versions, and the commit where there is a repository."""
    found = provenance()
    return found["versions"] | ({"commit": found["commit"]} if found["commit"] else {})


def check_views(tables: Iterable[str], claims: Iterable[str], figures: Iterable[str | Mapping[str, Any]]) -> None:
    """Refuse tables, claims and figures that there are not, before anything is measured for them."""
    for name in tables:
        if name in (*NAMES, "claims"):
            raise UserError(f"tables: a study writes a {name}.csv of its own: give the file of the table another name")
        read_table(config_file("table", name))
    for name in claims:
        read_claims(config_file("claim", name))
    for wanted in figures:
        open_figure(wanted)


def views(
    frames: Frames,
    tables: Sequence[str],
    claims: Sequence[str],
    figures: Sequence[str | Mapping[str, Any]],
    unfit: Mapping[str, str],
) -> Shown:
    """Tables, verdicts and figures of frames, which nothing is computed for; `unfit` says why rows were left out."""
    drawn, missing = draw_all(figures, source_of(frames))
    left = [f"{name} was left out: {why}" for name, why in unfit.items()]
    # As of a figure: what takes hours to measure is not lost for a table of something else.
    empty = [name for name in tables if not has_any_of(frames, name)]
    missing += [f"the table {name} is left out: none of its columns was measured" for name in empty]
    return Shown(
        {name: tables_of(frames, name, unfit) for name in tables if name not in empty},
        verdicts(frames, claims),
        drawn,
        [*left, *missing],
        costs=usual(frames.costs),
    )


def hand_over(
    shown: Shown, frames: Frames, output: Path, title: str, about: str, made: Mapping[str, str], whole: bool = False
) -> Path:
    """Print the first table or the `whole` of it, write the files and the page; returns the page."""
    write(shown, frames, output)
    (say_all if whole else say)(shown)
    return write_page(output / "report.html", as_page(shown, title, about, made))


def source_of(frames: Frames) -> Source:
    """What figures and sentences are made of."""
    return Source(of_main(frames.scores), of_main(frames.curves), of_main(frames.costs), metrics.columns())


def write(shown: Shown, frames: Frames, output: Path) -> None:
    """Everything but the page, as files."""
    output.mkdir(parents=True, exist_ok=True)
    write_frames(output, frames)
    for name, tables in shown.tables.items():
        texts = [sheets.as_markdown(sheets.sheet_of(table)) for table in tables]
        write_atomically(output / f"{name}.md", "\n".join(texts).encode())
        values = pd.concat([as_frame(table).assign(table=table.title) for table in tables])
        write_csv(output / f"{name}.csv", values)
    if len(shown.claims):
        write_csv(output / "claims.csv", shown.claims)
    for drawn in shown.figures:
        save(drawn.figure, output / "figures", drawn.name)
    pictures = [*shown.opening, *shown.pictures]
    if pictures:
        (output / "figures").mkdir(exist_ok=True)
    for number, picture in enumerate(pictures, start=1):
        write_atomically(output / "figures" / f"pictures{number}.png", picture.png)


def say_all(shown: Shown) -> None:
    """All tables and verdicts in the terminal."""
    tables = [sheets.sheet_of(table) for tables in shown.tables.values() for table in tables]
    _print([*tables, *sheets.claim_sheets(shown.claims, metrics.columns())], sheets.claim_notes(shown.claims))
    _print_lines(shown)


def say(shown: Shown) -> None:
    """What it comes to, in the terminal: the first table, how many claims came out which way, what is missing."""
    measured = [[each for each in tables if not each.is_published] for tables in shown.tables.values()]
    measured = [tables for tables in measured if tables]
    tally = [f"Claims: {note}" for note in sheets.claim_notes(shown.claims)[:1]]
    there = {
        ("more table", "more tables"): len(measured) - 1,
        ("figure", "figures"): len(shown.figures),
        ("sheet of maps", "sheets of maps"): len(shown.pictures),
    }
    listed = ", ".join(f"{count} {what[count != 1]}" for what, count in there.items() if count > 0)
    _print(
        [sheets.sheet_of(table) for table in (measured or [[]])[0]], tally + [f"On the page: {listed}."] * bool(listed)
    )
    _print_lines(shown)


def _print(printed: Sequence[sheets.Sheet], notes: Sequence[str]) -> None:
    for sheet in printed:
        console.print(sheets.as_rich(sheet, console.width))
    for note in notes:
        console.print(note, highlight=False, markup=False, style="dim")


def _print_lines(shown: Shown) -> None:
    lines = list(shown.missing)
    if len(lines) > _MOST_LINES:
        lines = [f"{len(lines)} rows, metrics and figures were left out: the page says which, and why"]
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, style="dim")
    for sentence in shown.summary:
        console.print(f"- {sentence}", highlight=False, markup=False)


def as_page(shown: Shown, title: str, about: str, made: Mapping[str, str]) -> Page:
    """The same as one page."""
    tables = [sheets.sheet_of(table) for tables in shown.tables.values() for table in tables]
    figures = [Picture.of_drawn(drawn) for drawn in shown.figures]
    parts = [
        Part("Two classes of one image", pictures=shown.opening),
        Part("The table" if len(tables) == 1 else "The tables", tables),
        Part(
            "The claims", sheets.claim_sheets(shown.claims, metrics.columns()), notes=sheets.claim_notes(shown.claims)
        ),
        Part("The figures", pictures=figures, notes=[f"Not shown: {line}." for line in shown.missing]),
        Part("What the maps look like", pictures=shown.pictures, tiles=shown.tiles, notes=[_GRID] * bool(shown.tiles)),
        Part("What it costs", sheets.cost_sheets(shown.costs)),
    ]
    return Page(title, about, shown.summary, parts, command(), made)


def _tiles(study: Study, frames: Frames, count: int) -> Tiles | None:
    """A few images of the main case under all of its rows, as a grid; None where no image is wanted."""
    rows = [row for row in study.measured_rows if OTHER_SETTINGS not in row.name]
    found = of_study(study, rows, count, second=False)
    return None if found is None else tiles_of(found, source_of(frames))


def pictures_of(study: Study, count: int) -> list[Picture]:
    """Sheets of a few images of the main case under all of its rows, the reference first."""
    found = _gallery(study, count)
    if found is None:
        return []
    alt = f"{len(found.images)} images, each with the maps of {', '.join(found.maps)}."
    caption = (
        "Red speaks for the class that is named, blue against it. Where two maps of one image stand side by side, the "
        "second is of the class named below it: the true one where the prediction is wrong, else the runner-up."
    )
    if study.reference is not None:
        caption += " Maps are drawn around their mean, as they are compared with the reference."
    return [Picture.of(figure, alt, caption, 900) for figure in picture_sheets(found)]


def write_gallery(study: Study, asked: StudySettings, output: Path, second: bool) -> None:
    """Write the pictures that the site shows: images of the sheets, with both classes, and further ones with one."""
    if not asked.gallery:
        return
    galleries = [_gallery(study, asked.pictures, second), _gallery(study, asked.gallery, second=False)]
    there = [each for each in galleries if each is not None]
    if there:
        write_album(output, there, {_label(study, row): row.name for row in _shown_rows(study)})


def _gallery(study: Study, count: int, second: bool = True) -> Gallery | None:
    """Images of the main case under all of its rows, the reference first."""
    rows = [replace(row, label=_label(study, row)) for row in _shown_rows(study)]
    found = of_study(study, rows, count, second)
    if found is None or study.reference is None:
        return found
    # As agreement with a reference reads them: what a map says is where it is above or below its mean.
    return replace(found, maps=_centred(found.maps), second=_centred(found.second))


def _shown_rows(study: Study) -> list[Row]:
    rows = [row for row in study.measured_rows if OTHER_SETTINGS not in row.name]
    return rows if study.reference is None else [study.reference, *rows]


def _label(study: Study, row: Row) -> str:
    return f"{row.label} (reference)" if row is study.reference else row.label


def _centred(maps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {label: values - values.mean((1, 2), keepdim=True) for label, values in maps.items()}


def table_params(frames: Frames, name: str) -> TableParams:
    """What a file of conf/table says; behind its columns those of a plug-in's metrics that were measured.

    Neither a table that leaves out rows which it does not name nor one of ranks has them.
    """
    params = read_table(config_file("table", name))
    if not params.columns or not params.others or params.ranked or frames.scores.empty:
        return params
    measured = set(frames.scores["metric"])
    more = [column for column in metrics.added() if column in measured and column not in params.columns]
    return replace(params, columns=[*params.columns, *more])


def has_any_of(frames: Frames, name: str) -> bool:
    """Whether a table has something to show; one that names no columns shows all there are."""
    columns = table_params(frames, name).columns
    return not columns or bool(set(columns) & set(frames.scores["metric"]))


def tables_of(frames: Frames, name: str, unfit: Mapping[str, str]) -> list[Table]:
    """The tables of a file of conf/table, one a data set, and what the paper printed after them.

    Raises:
        UserError: There is no such file, or nothing of what it shows was measured.
    """
    params, columns = table_params(frames, name), metrics.columns()
    reasons = Reasons(frames.left_out, unfit, metrics.families())
    published = published_table(params, columns)
    named = [row for group in params.groups for row in group.rows]
    made = build_tables(usual(frames.scores, named), params, columns, usual(frames.costs, named), reasons)
    return made + ([] if published is None else [published])


def verdicts(frames: Frames, names: Sequence[str]) -> pd.DataFrame:
    """What the claims of some files of conf/claim come to, on the images that are reported."""
    columns = metrics.columns()
    asked = [read_claims(config_file("claim", name)) for name in names]
    # A row at other settings may have been measured on those that something was chosen by, too.
    scores = Source(of_main(frames.scores)).reported().scores
    return table_of(
        [found for each in asked for found in judge(usual(scores, each.names()), each, columns)],
        [line for each in asked for line in judge_pairs(scores, each, columns)],
    )


def usual(frame: pd.DataFrame, named: Collection[str] = ()) -> pd.DataFrame:
    """The lines of rows at their usual settings, and of those that are named, as `of_main` tells them."""
    if not len(frame):
        return frame
    rows = frame["explainer"]
    return of_main(frame[~rows.str.contains(OTHER_SETTINGS, regex=False) | rows.isin(list(named))])


def of_main(frame: pd.DataFrame) -> pd.DataFrame:
    """The lines of a frame; what was asked in another case is told of the data set of the main case, its home."""
    if not len(frame):
        return frame
    main = frame[frame["case"] == "main"].drop_duplicates(["model", "seed"]).set_index(["model", "seed"])["data"]
    told = main.reindex(pd.MultiIndex.from_frame(frame[["model", "seed"]])).set_axis(frame.index)
    # Earlier versions have not written down what the home of a line is.
    told = frame["home"].fillna(told) if "home" in frame else told
    data = frame["data"].where((frame["case"] == "main") | told.isna(), told)
    return frame.assign(data=data, home=data)
