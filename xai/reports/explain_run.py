"""What `method=explain` leaves: the heat map beside the picture, and lines that say what was explained how well."""

from collections.abc import Sequence
from pathlib import Path

import torch
from rich.markup import escape
from rich.table import Table

from xai.core.files import explain_disk_errors, write_atomically
from xai.core.progress import console
from xai.reports.figures import heatmap_overlay
from xai.stages.explain import Explanation
from xai.stages.post_hoc import Measured


def present_explanation(found: Explanation, image: Path) -> Path:
    """Write the heat map and say what it is of; returns where it lies.

    Raises:
        UserError: The folder of the picture cannot be written to.
    """
    title = found.measured[-1].name if found.measured else ""
    picture = heatmap_overlay((found.pixels * 255).round().to(torch.uint8), found.attributions, title)
    file = image.with_name(f"{image.stem}.explained.png")
    with explain_disk_errors(
        file.parent, "the heat map is written beside the picture: copy that to a folder you can write to"
    ):
        write_atomically(file, lambda temporary: picture.save(temporary, format="PNG"))
    said = f"predicted: {found.predicted}; explained: {found.target} (probability {found.probability:.3f})"
    console.print(escape(said), highlight=False)
    if not found.explains:
        console.print("this classifier has not learned to explain itself: give it a vector first (method=apply_vector)")
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
