"""The lines of the site's index."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from xai.report.site.found import Run

if TYPE_CHECKING:
    from xai.report.site.pages import Page


def index_lines(pages: "Sequence[Page]") -> Iterator[tuple["Page", str, str]]:
    """Each page, what it is called there, and the sweep it is of: the last one first, the runs of a sweep below it."""
    inside = {run.name for page in pages for run in page.run.runs}
    by_name = {page.run.name: page for page in pages}
    for page in pages:
        if page.run.name in inside:
            continue
        yield page, page.title, ""
        for run, name in zip(page.run.runs, page.run.called, strict=True):
            yield by_name[run.name], name, page.title


def what(run: Run) -> str:
    """The study of a run or a sweep, or the task of what is none; of a training its method."""
    config = next((each.config for each in (*run.runs, run) if each.config), {})
    task, method, study = (str(config.get(key) or "") for key in ("task", "method", "study"))
    if task == "train":
        return f"{task} {method}"
    return study if task in ("", "study") else task
