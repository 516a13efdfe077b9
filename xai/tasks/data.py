"""`task=data`: the data sets there are, whether they are on this machine, how many images, and where to have them."""

from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.markup import escape
from rich.table import Table

from xai.core.composing import choices, compose_choice
from xai.core.progress import console, print_table
from xai.core.settings import settings
from xai.data.facts import FACTS, counts, state
from xai.tasks.registry import Task

_COLOURS = {"here": "green", "to be fetched": "yellow", "to be asked for": "red"}


@settings
class DataSettings:
    """Settings of task=data.

    Args:
        task: `data`.
    """

    task: str


def run(asked: DataSettings, output: Path) -> None:
    """A line for each file of conf/data."""
    table = Table("data=", "state", "train", "validation", "test", "licence", "from", "folder", box=None)
    for name in choices("data"):
        # Sizes follow the model, which nobody has chosen here.
        config = OmegaConf.merge({"model": {"image_size": 224, "patch_size": 16}, "data": compose_choice("data", name)})
        node: Any = config.data
        registered, root = str(node.name), str(node.root) if node.get("root") else None
        if registered not in FACTS:
            table.add_row(name, "[dim]yours[/]", "", "", "", "", "", "")
            continue
        facts, said = FACTS[registered], state(registered, root)
        cells = [*(f"{images:,}" for images in (counts(node) or {}).values()), facts.licence, facts.place, root or ""]
        table.add_row(name, f"[{_COLOURS[said]}]{said}[/]", *map(escape, cells))
    print_table(table)
    console.print(
        "The licence's page has the last word. Sets go below $XAI_DATA, or data.root=FOLDER; layouts: docs/data.md.",
        highlight=False,
    )


TASK = Task("task=data", DataSettings, run, writes=False)
