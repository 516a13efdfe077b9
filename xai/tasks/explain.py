"""`task=explain`: pictures, one class and one heat map each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.markup import escape
from rich.table import Table

from xai.core.files import explain_disk_errors, write_atomically
from xai.core.job import Common
from xai.core.progress import console
from xai.core.settings import settings
from xai.explainers.rows import load_row
from xai.papers.families import AnyModel
from xai.ranking.objective import ObjectiveParams
from xai.ranking.refinement import RefinementParams
from xai.report.figures import to_bytes
from xai.report.pictures import Gallery, sheets
from xai.tasks.picture import Explained, Measured, PostHocParams, explain_picture, open_classifier
from xai.tasks.registry import Task

_INCHES = 4.4


@settings
class ExplainSettings(Common):
    """Settings of task=explain.

    Args:
        model: The classifier.
        checkpoint: Its file; null takes one as it was published.
        image: A picture, or several.
        target: Name of the class that is explained; null takes the predicted one.
        row: The explainer of a classifier that does not explain itself: a file of conf/explainer.
        explainers: By row, settings that replace those of its file.
        refinement: How its map is refined.
        objective: What that improves, and by which references maps are measured.
    """

    model: AnyModel
    checkpoint: str | None
    image: str | tuple[str, ...]
    target: str | int | float | bool | None
    row: str
    explainers: dict[str, Any]
    refinement: RefinementParams
    objective: ObjectiveParams


def task(values: Mapping[str, Any]) -> Task:
    """There is one way to explain pictures."""
    return Task("task=explain", ExplainSettings, run)


def run(asked: ExplainSettings, output: Path) -> None:
    """Explain each picture, and write its heat map beside it."""
    row = load_row(asked.row, asked.explainers)
    how = PostHocParams(row, asked.objective, asked.refinement, asked.seed)
    checkpoint = None if asked.checkpoint is None else Path(asked.checkpoint)
    target = None if asked.target is None else str(asked.target)
    opened = open_classifier(asked.model, checkpoint, asked.trainer, how)
    for image in [asked.image] if isinstance(asked.image, str) else asked.image:
        found = explain_picture(opened, Path(image), target, asked.trainer, how)
        present(found, Path(image), explains=opened.explains)


def present(found: Explained, image: Path, *, explains: bool) -> Path:
    """Write the heat map and say what it is of; returns where it lies.

    Raises:
        UserError: The folder of the picture cannot be written to.
    """
    maps = {each.name: each.attributions[None] for each in found.measured} or {"its own": found.attributions[None]}
    shown = Gallery(found.pixels[None], maps, [found.target], predicted=[found.predicted])
    picture = to_bytes(sheets(shown, inches=_INCHES)[0])
    file = image.with_name(f"{image.stem}.explained.png")
    with explain_disk_errors(
        file.parent, "the heat map is written beside the picture: copy that to a folder you can write to"
    ):
        write_atomically(file, picture)
    said = f"predicted: {found.predicted}; explained: {found.target} (probability {found.probability:.3f})"
    console.print(escape(said), highlight=False)
    if not explains:
        console.print("this classifier has not learned to explain itself: give it a vector first (task=apply_vector)")
    if found.measured:
        console.print(_table(found.measured))
    console.print(f"heat map: [bold]{escape(str(file))}[/]", highlight=False)
    return file


def _table(measured: Sequence[Measured]) -> Table:
    """Areas under the curves of the class's probability, a row a map."""
    table = Table("map", "deletion ↓", "insertion ↑", "seconds", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in measured:
        table.add_row(escape(row.name), f"{row.deletion:.3f}", f"{row.insertion:.3f}", f"{row.seconds:.1f}")
    return table
