"""The lines of the site's index."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xai.report.site.pages import Page


def index_lines(pages: "Sequence[Page]") -> Iterator[dict[str, Any]]:
    """A line for each page, the last one first; the runs of a sweep below it."""
    inside = {run.name for page in pages for run in page.run.runs}
    by_name = {page.run.name: page for page in pages}
    for page in pages:
        if page.run.name in inside:
            continue
        yield _line(page, page.title)
        for run, name in zip(page.run.runs, page.run.called, strict=True):
            yield _line(by_name[run.name], name, page.title)


def _line(page: "Page", name: str, sweep: str = "") -> dict[str, Any]:
    run = page.run
    config = next((each.config for each in (run, *run.runs) if each.config), {})
    return {
        "name": name,
        "sweep": sweep,
        "href": f"{page.slug}.html",
        "is_sweep": bool(run.runs),
        "what": _what(config),
        "about": page.about,
        "runs": len(run.runs) or 1,
        "explainers": len(page.data.get("rows", ())),
        "columns": len(page.data.get("columns", ())),
        "tally": page.tally,
        "ended": run.ended,
        "commit": run.commit[:10],
    }


def _what(config: Mapping[str, Any]) -> str:
    """The study, or the task of what is none; of a training its method."""
    task, method, study = (str(config.get(key) or "") for key in ("task", "method", "study"))
    if task == "train":
        return f"{task} {method}"
    return study if task in ("", "study") else task
