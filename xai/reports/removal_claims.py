"""What SALVAGE claims (Naouar et al. 2025) as claims that the results can decide."""

from xai.reports import claims
from xai.reports.claims import Claim
from xai.reports.removal_roles import LIKELIHOOD, ROLES, SCHEME


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
        claims.ahead_in_grid("salvage", rival, metric, source, SCHEME)
        for metric, source in AGAINST_RIVALS.items()
        for rival in _rivals(metric)
    ),
    claims.ahead("salvage_uniform", "vit_shapley", "r_srg", "Figure 3a", SCHEME),
    claims.ahead("salvage", "salvage_uniform", "r_srg", "Figure 3b", SCHEME),
    claims.ahead("salvage", "salvage_uniform", "srg", "Figure 7", SCHEME),
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
        LIKELIHOOD,
        LIKELIHOOD,
        "spread_informed",
        direction=-1,
        their_metric="spread_random",
    ),
)
"""Every claim of the paper that the results can decide."""
