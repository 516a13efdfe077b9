"""What a paper claims, and what the results say of it: holds, does not hold, or undecided.

Every claim is of one form: a metric of one row less that of another lies beyond a margin. It is judged on each data set
by itself, on pairs of the same seed and the same images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from xai.metrics.significance import confidence_interval
from xai.reports.data_tables import Scheme
from xai.reports.measured import Evidence, Measured, by_run, image_values, same_images

Verdict = Literal["holds", "does not hold", "undecided"]

RULE = (
    "A claim holds where the difference lies beyond its margin in every seed and the 95 % interval of the mean over "
    "images (differences of the same image, averaged over seeds that share their images; Student's t) does so too; it "
    "does not hold where both lie on the other side; else it is undecided. Where a result keeps no values of single "
    "images, the interval is that over the seeds. Nothing is corrected for the number of comparisons."
)
"""How a verdict is reached, for a reader."""


@dataclass(frozen=True)
class Cell:
    """Where a claim stands among those of one row against many others.

    Attributes:
        grid: Title of the grid.
        row: Name of the other row.
        column: The metric, with the arrow that says which way is better.
    """

    grid: str
    row: str
    column: str


@dataclass(frozen=True)
class Claim:
    """`direction` times (metric of `ours` less metric of `theirs`) is larger than `margin`.

    Attributes:
        text: The claim in words.
        source: Where in the paper.
        ours: A role.
        theirs: A role.
        metric: Of `result.json`.
        direction: 1 where ours is claimed to be larger, -1 where smaller.
        margin: In the unit of the metric, so 0.03 for three percentage points.
        their_metric: That of theirs where it is another one.
        cell: Where it stands among those of one row against many; None for a line of its own.
    """

    text: str
    source: str
    ours: str
    theirs: str
    metric: str
    direction: int = 1
    margin: float = 0.0
    their_metric: str = ""
    cell: Cell | None = None


@dataclass(frozen=True)
class Finding:
    """A claim on one data set.

    Attributes:
        claim: What was claimed.
        data: Where.
        by_seed: Differences ours - theirs of the seeds that both rows have, in the metric's unit.
        interval: 95 % interval of their mean; NaN for one seed.
        images: How many images, or pairs of seed and image, stand behind the interval over images; 0 for none.
        over_images: Mean and 95 % interval (low, high) of the differences image by image.
        verdict: What follows.
    """

    claim: Claim
    data: str
    by_seed: tuple[float, ...]
    interval: tuple[float, float]
    images: int
    over_images: tuple[float, float, float]
    verdict: Verdict

    @property
    def mean(self) -> float:
        """Of the differences over the seeds."""
        return math.fsum(self.by_seed) / len(self.by_seed)


def ahead(ours: str, theirs: str, metric: str, source: str, scheme: Scheme) -> Claim:
    """The claim that one row is better than another, whichever way is better."""
    column, roles = scheme.columns[metric], scheme.roles
    text = f"{roles[ours].label} is ahead of {roles[theirs].label} in {column.label}"
    return Claim(text, source, ours, theirs, metric, 1 if column.larger_is_better else -1)


def ahead_in_grid(ours: str, theirs: str, metric: str, source: str, scheme: Scheme) -> Claim:
    """The same as one of many, to be shown in a grid of other rows by metrics."""
    column, roles = scheme.columns[metric], scheme.roles
    cell = Cell(f"{roles[ours].label} less each other row", roles[theirs].label, f"{column.label} {column.arrow}")
    return replace(ahead(ours, theirs, metric, source, scheme), cell=cell)


def judge(evidence: Evidence, claims: Sequence[Claim]) -> list[Finding]:
    """What becomes of each claim on each data set; a claim whose rows were not measured there is left out."""
    parts = {data: (*part.rows, *part.shortcut) for data, part in evidence.by_data().items()}
    found = [_judge(claim, data, rows) for data, rows in parts.items() for claim in claims]
    return [finding for finding in found if finding is not None]


def _judge(claim: Claim, data: str, rows: Sequence[Measured]) -> Finding | None:
    ours, theirs = by_run(rows, claim.ours), by_run(rows, claim.theirs)
    pairs = [(ours[run], theirs[run]) for run in sorted(ours.keys() & theirs.keys())]
    differences = [a.mean(claim.metric) - b.mean(claim.their_metric or claim.metric) for a, b in pairs]
    by_seed = tuple(value for value in differences if math.isfinite(value))
    if not by_seed:
        return None
    interval = confidence_interval(by_seed)
    images = _image_differences(pairs, claim)
    over_images = (float(images.mean()), *confidence_interval(images.tolist())) if len(images) else (math.nan,) * 3
    decisive = over_images[1:] if len(images) else interval
    return Finding(claim, data, by_seed, interval, len(images), over_images, _verdict(claim, by_seed, decisive))


def _verdict(claim: Claim, by_seed: Sequence[float], interval: tuple[float, float]) -> Verdict:
    beyond = [claim.direction * value - claim.margin for value in (*by_seed, *interval)]
    if all(value > 0 for value in beyond):
        return "holds"
    return "does not hold" if all(value < 0 for value in beyond) else "undecided"


def _image_differences(pairs: Sequence[tuple[Measured, Measured]], claim: Claim) -> Tensor:
    """Differences of the same image, averaged over the seeds where these show the same images; NaN left out."""
    differences = []
    for ours, theirs in pairs:
        mine, other = ours.per_image(claim.metric), theirs.per_image(claim.their_metric or claim.metric)
        if mine is None or other is None or not same_images(ours, theirs):
            return torch.empty(0)
        differences.append(mine - other)
    return image_values([ours for ours, _ in pairs], differences)
