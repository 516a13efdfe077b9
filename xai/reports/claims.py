"""What SALVAGE claims (Naouar et al. 2025), and what the results say of it: holds, does not hold, or undecided.

Every claim is of one form: a metric of one row less that of another lies beyond a margin. It is judged on each data set
by itself, on pairs of the same seed and the same images.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from xai.metrics.significance import confidence_interval
from xai.reports.measured import Evidence, Measured, by_run
from xai.reports.removal_roles import COLUMNS, LIKELIHOOD, ROLES

Verdict = Literal["holds", "does not hold", "undecided"]

RULE = (
    "A claim holds where the difference lies beyond its margin in every seed and the 95 % interval of the mean over "
    "images (differences of the same image, averaged over seeds that share their images; Student's t) does so too; it "
    "does not hold where both lie on the other side; else it is undecided. Where a result keeps no values of single "
    "images, the interval is that over the seeds. Nothing is corrected for the number of comparisons."
)
"""How a verdict is reached, for a reader."""

IMBALANCE = "imbalance"
"""Mean distance of the likelihood from one half over the sizes of masks: 0 where masks of all sizes are balanced."""
_MASKS = {"informed_masks": "informed", "random_masks": "random"}
"""The two sides of Figure 6 as rows, with the tensors that hold them."""


@dataclass(frozen=True)
class Claim:
    """`direction` times (metric of `ours` less metric of `theirs`) is larger than `margin`.

    Attributes:
        text: The claim in words.
        source: Where in the paper.
        ours: A role.
        theirs: A role.
        metric: Of `result.json`, or the imbalance of masks.
        direction: 1 where ours is claimed to be larger, -1 where smaller.
        margin: In the unit of the metric, so 0.03 for three percentage points.
    """

    text: str
    source: str
    ours: str
    theirs: str
    metric: str
    direction: int = 1
    margin: float = 0.0


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


def ahead(ours: str, theirs: str, metric: str, source: str) -> Claim:
    """The claim that one row is better than another, whichever way is better."""
    column = COLUMNS[metric]
    text = f"{ROLES[ours].label} is ahead of {ROLES[theirs].label} in {column.label}"
    return Claim(text, source, ours, theirs, metric, 1 if column.larger_is_better else -1)


def _rivals(metric: str) -> list[str]:
    rivals = [role.name for role in ROLES.values() if role.kind in ("method", "control") and role.name != "salvage"]
    # The object's own mask is what RMA and RRA compare with: nothing can be ahead of it.
    return [name for name in rivals if metric not in ("rma", "rra") or name != "object_mask"]


AGAINST_RIVALS = {
    "srg": "Table 1",
    "r_srg": "Table 1",
    "mif": "Table 2",
    "r_mif": "Table 3",
    "rma": "Table 1",
    "rra": "Table 1",
}
"""Metrics in which SALVAGE is compared with every rival, and the table of the paper that does so."""

CLAIMS = (
    *(
        ahead("salvage", rival, metric, source)
        for metric, source in AGAINST_RIVALS.items()
        for rival in _rivals(metric)
    ),
    ahead("salvage_uniform", "vit_shapley", "r_srg", "Figure 3a"),
    ahead("salvage", "salvage_uniform", "r_srg", "Figure 3b"),
    ahead("salvage", "salvage_uniform", "srg", "Figure 7"),
    Claim(
        "u(N) of SALVAGE keeps the accuracy of the surrogate within 3 points",
        "Table 4",
        "salvage",
        "surrogate",
        "accuracy",
        margin=-0.03,
    ),
    Claim(
        "ViT-Shapley's sum is further than 3 points below the accuracy of the surrogate",
        "Table 4",
        "vit_shapley",
        "surrogate",
        "accuracy",
        direction=-1,
        margin=0.03,
    ),
    Claim(
        "Informed masks are more balanced over their sizes than random ones",
        "Figure 6",
        "informed_masks",
        "random_masks",
        IMBALANCE,
        direction=-1,
    ),
)
"""Every claim of the paper that the results can decide."""


def judge(evidence: Evidence, claims: Sequence[Claim] = CLAIMS) -> list[Finding]:
    """What becomes of each claim on each data set; a claim whose rows were not measured there is left out."""
    found = [_judge(claim, data, part.rows) for data, part in evidence.by_data().items() for claim in claims]
    return [finding for finding in found if finding is not None]


def _judge(claim: Claim, data: str, rows: Sequence[Measured]) -> Finding | None:
    ours, theirs = _side(rows, claim.ours), _side(rows, claim.theirs)
    pairs = [(ours[run], theirs[run]) for run in sorted(ours.keys() & theirs.keys())]
    differences = [_mean(a, claim.ours, claim.metric) - _mean(b, claim.theirs, claim.metric) for a, b in pairs]
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


def _side(rows: Sequence[Measured], role: str) -> dict[tuple[str, int], Measured]:
    return by_run(rows, LIKELIHOOD if role in _MASKS else role)


def _mean(row: Measured, role: str, metric: str) -> float:
    if role in _MASKS:
        return float(_values(row, role, metric).nanmean())  # type: ignore[union-attr]
    return row.result.metrics.get(metric, math.nan)


def _values(row: Measured, role: str, metric: str) -> Tensor | None:
    """The metric of each image, float64 [N]."""
    if role in _MASKS:
        return (row.tensors[_MASKS[role]].double() - 0.5).abs().mean(1)
    return row.per_image(metric)


def _image_differences(pairs: Sequence[tuple[Measured, Measured]], claim: Claim) -> Tensor:
    """Differences of the same image, averaged over the seeds where these show the same images; NaN left out."""
    differences = []
    for ours, theirs in pairs:
        mine, other = _values(ours, claim.ours, claim.metric), _values(theirs, claim.theirs, claim.metric)
        if mine is None or other is None or not _same_images(ours, theirs):
            return torch.empty(0)
        differences.append(mine - other)
    first = pairs[0][0]
    if all(_same_images(first, ours) for ours, _ in pairs[1:]):
        images = torch.stack(differences).nanmean(0)
    else:
        images = torch.cat(differences)
    return images[images.isfinite()]


def _same_images(a: Measured, b: Measured) -> bool:
    """Whether two results were measured on the same images, as far as labels and regions tell."""
    if a.result.n_images != b.result.n_images:
        return False
    shared = [name for name in ("labels", "regions") if name in a.tensors and name in b.tensors]
    return all(torch.equal(a.tensors[name], b.tensors[name]) for name in shared)
