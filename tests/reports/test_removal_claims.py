import numpy as np
import pytest

from tests.reports.removal_rows import evidence, likelihood, measured
from xai.reports.claims import judge
from xai.reports.measured import Evidence
from xai.reports.removal_claims import AGAINST_RIVALS, CLAIMS
from xai.reports.removal_roles import ROLES


def test_smaller_is_ahead_where_smaller_is_better():
    found = {
        f.claim.metric: f for f in judge(evidence(), CLAIMS) if (f.claim.ours, f.claim.theirs) == ("salvage", "rise")
    }
    assert set(found) == set(AGAINST_RIVALS)
    assert found["mif"].mean < 0 < found["srg"].mean
    assert {f.verdict for name, f in found.items() if name not in ("rma", "rra")} == {"holds"}


@pytest.mark.parametrize(
    ("ours", "expected"), [(0.98, "holds"), (0.955, "holds"), (0.945, "does not hold"), (0.5, "does not hold")]
)
def test_a_margin_of_three_points_below_the_surrogate(ours, expected):
    (keeps,) = [claim for claim in CLAIMS if (claim.ours, claim.theirs) == ("salvage", "surrogate")]
    rows = [
        measured(role, seed, metrics={"accuracy": accuracy + 0.0001 * seed * (role == "salvage")})
        for role, accuracy in (("salvage", ours), ("surrogate", 0.98))
        for seed in range(3)
    ]
    (finding,) = judge(Evidence(tuple(rows)), [keeps])
    assert finding.verdict == expected
    (loses,) = [claim for claim in CLAIMS if (claim.ours, claim.theirs) == ("vit_shapley", "surrogate")]
    swapped = [measured("vit_shapley", one.result.seed, metrics=one.result.metrics) for one in rows[:3]]
    (finding,) = judge(Evidence((*swapped, *rows[3:])), [loses])
    assert finding.verdict == {"holds": "does not hold", "does not hold": "holds"}[expected]


def test_informed_masks_are_flatter_by_their_mean_distance_from_one_half():
    (claim,) = [claim for claim in CLAIMS if claim.source == "Figure 6"]
    rows = [likelihood(seed) for seed in range(2)]
    (finding,) = judge(Evidence(tuple(rows)), [claim])
    expected = [
        np.abs(one.tensors["informed"].numpy() - 0.5).mean() - np.abs(one.tensors["random"].numpy() - 0.5).mean()
        for one in rows
    ]
    assert finding.by_seed == pytest.approx(tuple(expected), abs=1e-6)
    assert finding.verdict == "holds"
    assert finding.images == len(rows[0].tensors["informed"])


def test_salvage_is_compared_with_every_method_and_control_and_with_no_ablation_twice():
    rivals = {role.name for role in ROLES.values() if role.kind in ("method", "control")} - {"salvage"}
    for metric in AGAINST_RIVALS:
        against = [c.theirs for c in CLAIMS if c.ours == "salvage" and c.metric == metric and c.theirs in rivals]
        assert set(against) == rivals - ({"object_mask"} if metric in ("rma", "rra") else set())
    keys = [(claim.ours, claim.theirs, claim.metric) for claim in CLAIMS]
    assert len(keys) == len(set(keys))
    assert {c.source for c in CLAIMS} == {"Table 1", "Table 2", "Table 3", "Table 4"} | {
        f"Figure {number}" for number in ("3a", "3b", "6", "7")
    }


def test_the_ablations_and_every_data_set_are_judged():
    found = judge(evidence(data=("a", "b")), CLAIMS)
    assert {f.data for f in found} == {"a", "b"}
    ablations = [f for f in found if "uniform" in f.claim.theirs or "uniform" in f.claim.ours]
    assert [f.verdict for f in ablations] == ["holds"] * 6
