"""What Learn to Rank claims (Schinagl et al. 2026), and what is asked of it here, as claims that results can decide."""

from collections.abc import Iterator
from itertools import pairwise

from xai.reports.claims import Claim, ahead, ahead_in_grid
from xai.reports.ranking_roles import ROLES, SCHEME, SHORTCUT, refined

METRICS = ("difference_auc", "difference_auc_true")
"""What rows are compared in."""
STEPS = (1, 3, 5)
"""The numbers T of gradient steps that are compared."""

_RIVALS = [
    name
    for name, role in ROLES.items()
    if role.kind in ("method", "control") and name != "ranking" and refined(name) is None
]


def _pairs() -> Iterator[tuple[str, str, str]]:
    """Rows that are claimed to be ahead of others, and where in the paper."""
    yield "ranking", "ranking_published", "Tables"
    for before, after in pairwise(["ranking", *(f"ranking_t{t}" for t in STEPS)]):
        yield after, before, "Figure 3a"
    for steps in STEPS:
        yield f"ranking_t{steps}", f"decoder_t{steps}", "Figure 3a"


def _against(ours: str, rivals: list[str]) -> list[Claim]:
    return [ahead_in_grid(ours, rival, metric, "Tables", SCHEME) for metric in METRICS for rival in rivals]


def _on_the_mark(text: str, metric: str, than: str) -> Claim:
    return Claim(text, "Figure 5", SHORTCUT, SHORTCUT, metric, their_metric=than)


CLAIMS = (
    *_against("ranking", _RIVALS),
    *_against("ranking_t3", ["ranking", "flat_t3", "rollout_t3", *_RIVALS]),
    *(ahead(ours, theirs, metric, source, SCHEME) for ours, theirs, source in _pairs() for metric in METRICS),
    Claim(
        "Ranking's maps of two classes correlate less than those as published (in hundredths)",
        "Tables",
        "ranking",
        "ranking_published",
        "class_correlation",
        direction=-1,
    ),
    *(
        _on_the_mark(f"More of the map lies on the mark after T = {t} than before refinement", f"mass_t{t}", "mass_t0")
        for t in STEPS
    ),
    _on_the_mark("After T = 3 more of the map lies on the mark than its share of the area", "mass_t3", "mark_area"),
    _on_the_mark(
        "After T = 3 more of the map lies on the mark than for the classifier before it", "mass_t3", "clean_mass_t3"
    ),
    _on_the_mark("After T = 3 more of the map lies on the mark than from a flat map", "mass_t3", "flat_mass_t3"),
)
"""Every claim that the results can decide."""
