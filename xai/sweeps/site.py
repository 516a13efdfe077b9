"""`task=site`: one site over everything that was run, for a browser, without a server."""

from pathlib import Path

from xai.core.errors import UserError
from xai.core.folders import final_folder, shown
from xai.core.progress import bar, console
from xai.core.settings import settings
from xai.tasks.registry import Task


@settings
class SiteSettings:
    """Settings of task=site.

    Args:
        task: `site`.
        name: The folder below outputs/ that the site goes to.
        outputs: The folder, or several, whose runs and sweeps it shows.
        store: Where the artifacts lie that the numbers come from.
        stores: Further ones.
    """

    task: str
    name: str
    outputs: str | tuple[str, ...]
    store: str
    stores: tuple[str, ...]


def run(asked: SiteSettings, output: Path) -> None:
    """Write a page for each run and sweep, and an index of them."""
    folders = [Path(each) for each in ([asked.outputs] if isinstance(asked.outputs, str) else asked.outputs)]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(
                f"outputs={folder} is no folder: name the one that runs were written to, as in outputs=outputs"
            )
    # Here: a wrong name is refused before anybody waits for what makes pages.
    from xai.report.site.found import find
    from xai.report.site.lineage import Lineage
    from xai.report.site.pages import Site, plotly

    plotly()
    final = final_folder(output)
    found = [run for each in folders for run in find(each, final, f"{each}/" if len(folders) > 1 else "")]
    if not found:
        raise UserError(f"no run has ended in {', '.join(map(str, folders))} yet: start one, or give outputs=FOLDER")
    site = Site(output, final, Lineage([Path(each) for each in (asked.store, *asked.stores)]))
    pages = {}
    with bar("pages", len(found), "pages") as advance:
        # Sweeps last: their runs have been read then.
        for number, each in enumerate(sorted(found, key=lambda run: len(run.runs) > 0), start=1):
            pages[each.name] = site.page(each)
            advance(number)
    index = site.write([pages[each.name] for each in found])
    console.print(f"site: [bold]{shown(index)}[/], {len(pages)} pages", highlight=False, soft_wrap=True)


TASK = Task("task=site", SiteSettings, run)
