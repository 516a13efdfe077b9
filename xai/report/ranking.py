"""Figures 4 and 5 of Learn to Rank in pictures: what gradient steps for one image make of its map."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from xai.explainers.registry import Row
from xai.papers.ranking.explainers import RefinedSettings
from xai.papers.ranking.mark import mass_on_mark
from xai.papers.ranking.shortcut import Shortcut
from xai.papers.ranking.study import StudyWithShortcut
from xai.report.gallery import gallery, of_study
from xai.report.page import Picture
from xai.report.pictures import Gallery, sheets
from xai.report.present import Told
from xai.study.frame import Frames

_OF_RANKING = re.compile(r"ranking(_t\d+)?")
_STEPS = (
    "Figure 4. The map that the network draws (T = 0), and what T gradient steps of the training objective for the one "
    "image make of it, for the predicted class."
)
_MARK = (
    "Figure 5. Marked images that are called the marked class, those of other classes first. The explainer never saw "
    "the mark, which is outlined; below each map is the share of it that lies on the mark."
)


def told(study: StudyWithShortcut, frames: Frames, output: Path) -> Told:
    """The sheets of Figures 4 and 5."""
    return Told(pictures=partial(pictures_of_steps, study))


def pictures_of_steps(study: StudyWithShortcut, count: int) -> Iterator[Picture]:
    """The sheets of a study that refines maps, and of one that looks for the mark."""
    refined = [row for row in study.measured_rows if _OF_RANKING.fullmatch(row.name)]
    steps = of_study(study, _by_steps(refined), count, second=False) if len(refined) > 1 else None
    if steps is not None:
        yield _sheet(steps, _STEPS)
    mark = marked(study.shortcut, count) if study.shortcut is not None else None
    if mark is not None:
        yield _sheet(mark, _MARK)


def marked(shortcut: Shortcut, count: int) -> Gallery | None:
    """Images with the mark, the maps after every number of steps, and how much of each lies on the mark."""
    case = shortcut.studies[0].cases[0][0]
    found = gallery(case, _by_steps(shortcut.rows), count, second=False)
    if found is None or found.regions is None:
        return found
    shares = {label: mass_on_mark(maps, found.regions) for label, maps in found.maps.items()}
    return replace(found, notes={label: [f"{share:.0%}" for share in each.tolist()] for label, each in shares.items()})


def _by_steps(rows: Sequence[Row]) -> list[Row]:
    steps = [row.params.step if isinstance(row.params, RefinedSettings) else 0 for row in rows]
    named = zip(steps, rows, strict=True)
    return [replace(row, label=f"T = {step}") for step, row in sorted(named, key=lambda pair: pair[0])]


def _sheet(found: Gallery, caption: str) -> Picture:
    (figure,) = sheets(found)
    return Picture.of(figure, f"{len(found.images)} images with their maps at {', '.join(found.maps)}.", caption, 560)
