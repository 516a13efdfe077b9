import numpy as np
import pytest
import torch
from scipy import stats

from tests.reports.removal_rows import measured
from xai.reports.claims import Claim, ahead, ahead_in_grid, judge
from xai.reports.measured import Evidence
from xai.reports.removal_roles import SCHEME

AHEAD = ahead("salvage", "rise", "srg", "Table 1", SCHEME)
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
    claim = ahead("salvage", "rise", "rma", "Table 1", SCHEME)
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


def test_a_result_of_other_images_is_not_paired_image_by_image():
    rows = [with_gain("salvage", [0.3] * 4), with_gain("rise", [0.1] * 4, labels=LABELS.flip(0))]
    (finding,) = judge(Evidence(tuple(rows)), [AHEAD])
    assert finding.images == 0
    assert finding.verdict == "undecided"


def test_a_metric_of_a_row_may_be_held_against_another_metric():
    tensors = {"late": torch.tensor([0.5, 0.6, 0.7]), "early": torch.tensor([0.1, 0.3, 0.2])}
    claim = Claim("late is more", "Figure 1", "rise", "rise", "late", their_metric="early")
    (finding,) = judge(Evidence((measured("rise", tensors=tensors),)), [claim])
    assert finding.over_images[0] == finding.mean == pytest.approx(0.4)
    assert finding.verdict == "holds"


def test_the_shortcut_is_judged_beside_the_rows():
    tensors = {"attributions": torch.zeros(2, 3, 3), "mass_t0": torch.zeros(2), "mass_t3": torch.tensor([0.5, 0.4])}
    claim = Claim("found", "Figure 5", "shortcut", "shortcut", "mass_t3", their_metric="mass_t0")
    found = Evidence((measured("rise"),), shortcut=(measured("shortcut", tensors=tensors),))
    (finding,) = judge(found, [claim])
    assert finding.mean == pytest.approx(0.45)


def test_of_a_metric_where_less_is_better_less_is_ahead():
    assert AHEAD.direction == 1
    assert ahead("salvage", "rise", "mif", "Table 2", SCHEME).direction == -1


def test_a_claim_of_many_says_where_it_stands():
    cell = ahead_in_grid("salvage", "rise", "mif", "Table 2", SCHEME).cell
    assert (cell.grid, cell.row, cell.column) == ("SALVAGE less each other row", "RISE", "MIF ↓")
