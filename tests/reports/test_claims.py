import numpy as np
import pytest
import torch
from scipy import stats

from tests.reports.removal_rows import evidence, likelihood, measured
from xai.reports.claims import AGAINST_RIVALS, CLAIMS, ahead, judge
from xai.reports.measured import Evidence
from xai.reports.removal_roles import ROLES

AHEAD = ahead("salvage", "rise", "srg", "Table 1")
LABELS = torch.tensor([0, 1, 2, 3])


def with_gain(role, gains, seed=0, labels=LABELS, data="cluttered"):
    """A row whose SRG of each image is given."""
    lif = torch.tensor(gains, dtype=torch.float64)[:, None].expand(-1, 5)
    tensors = {"lif": lif, "mif": torch.zeros_like(lif), "labels": labels}
    return measured(role, seed, data, tensors, metrics={"srg": lif.mean().item()})


def verdict(claim, *rows):
    (finding,) = judge(Evidence(rows), [claim])
    return finding.verdict


def of_seeds(gains_of_seeds):
    """Rows of SALVAGE, and of a rival with no gain at all."""
    rows = []
    for seed, gains in enumerate(gains_of_seeds):
        rows += [with_gain("salvage", gains, seed), with_gain("rise", [0.0] * len(gains), seed)]
    return rows


@pytest.mark.parametrize(
    ("gains", "expected"),
    [
        ([[0.30, 0.31, 0.29, 0.32], [0.28, 0.3, 0.31, 0.3]], "holds"),
        ([[-0.30, -0.31, -0.29, -0.32], [-0.28, -0.3, -0.31, -0.3]], "does not hold"),
        # The seeds disagree, though the interval over images is clear.
        ([[0.90, 0.91, 0.92, 0.93], [-0.01, -0.01, -0.01, -0.01]], "undecided"),
        # The seeds agree, though one image carries all of it.
        ([[1.0, -0.01, -0.01, -0.01], [1.0, -0.01, -0.01, -0.01]], "undecided"),
        ([[0.0, 0.0, 0.0, 0.0]], "undecided"),
    ],
)
def test_a_claim_holds_where_images_and_every_seed_agree(gains, expected):
    assert verdict(AHEAD, *of_seeds(gains)) == expected


def test_the_numbers_are_scipys_of_differences_of_images_averaged_over_seeds():
    gains = np.random.default_rng(0).normal(0.2, 0.1, (3, 4))
    (finding,) = judge(Evidence(tuple(of_seeds(gains.tolist()))), [AHEAD])
    images = gains.mean(0)
    over_images = stats.ttest_1samp(images, 0).confidence_interval(0.95)
    over_seeds = stats.ttest_1samp(gains.mean(1), 0).confidence_interval(0.95)
    assert finding.by_seed == pytest.approx(tuple(gains.mean(1)))
    assert finding.mean == pytest.approx(gains.mean())
    assert finding.over_images == pytest.approx((images.mean(), over_images.low, over_images.high))
    assert finding.interval == pytest.approx((over_seeds.low, over_seeds.high))
    assert finding.images == 4


def test_images_that_differ_between_seeds_are_not_averaged():
    rows = of_seeds([[0.3, 0.31, 0.29, 0.32]])
    rows += [with_gain(role, [gain] * 4, 1, LABELS.flip(0)) for role, gain in (("salvage", 0.25), ("rise", 0.0))]
    (finding,) = judge(Evidence(tuple(rows)), [AHEAD])
    assert finding.images == 8


def test_pairs_are_of_one_seed_and_one_data_set():
    rows = [with_gain("salvage", [0.3] * 4, 0), with_gain("rise", [0.1] * 4, 1)]
    assert judge(Evidence(tuple(rows)), [AHEAD]) == []
    rows += [with_gain("rise", [0.2] * 4, 0, data="other")]
    assert judge(Evidence(tuple(rows)), [AHEAD]) == []


def test_without_values_of_images_the_interval_over_seeds_decides():
    claim = ahead("salvage", "rise", "rma", "Table 1")
    close = [
        measured(role, seed, metrics={"rma": value + 0.001 * seed * (role == "rise")})
        for role, value in (("salvage", 0.7), ("rise", 0.5))
        for seed in range(3)
    ]
    assert verdict(claim, *close) == "holds"
    assert verdict(claim, *close[:1], *close[3:4]) == "undecided"


def test_an_undefined_seed_is_left_out():
    rows = [*of_seeds([[0.3, 0.31, 0.3, 0.29]]), measured("salvage", 1), measured("rise", 1)]
    (finding,) = judge(Evidence(tuple(rows)), [AHEAD])
    assert len(finding.by_seed) == 1


def test_smaller_is_ahead_where_smaller_is_better():
    found = {f.claim.metric: f for f in judge(evidence()) if (f.claim.ours, f.claim.theirs) == ("salvage", "rise")}
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
    assert verdict(keeps, *rows) == expected
    (loses,) = [claim for claim in CLAIMS if (claim.ours, claim.theirs) == ("vit_shapley", "surrogate")]
    swapped = [measured("vit_shapley", one.result.seed, metrics=one.result.metrics) for one in rows[:3]]
    assert verdict(loses, *swapped, *rows[3:]) == {"holds": "does not hold", "does not hold": "holds"}[expected]


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
    found = judge(evidence(data=("a", "b")))
    assert {f.data for f in found} == {"a", "b"}
    ablations = [f for f in found if "uniform" in f.claim.theirs or "uniform" in f.claim.ours]
    assert [f.verdict for f in ablations] == ["holds"] * 6


def test_a_result_of_other_images_is_not_paired_image_by_image():
    rows = [with_gain("salvage", [0.3] * 4), with_gain("rise", [0.1] * 4, labels=LABELS.flip(0))]
    (finding,) = judge(Evidence(tuple(rows)), [AHEAD])
    assert finding.images == 0
    assert finding.verdict == "undecided"
