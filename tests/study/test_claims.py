from pathlib import Path

import numpy as np
import pytest

from tests.study.frames import COLUMNS, drawn, frame, lines, paired
from tests.toolbox import cases, refusal
from xai.core.errors import UserError
from xai.core.settings import build
from xai.study.claims import RULE, Claim, Claims, judge, read_claims, table_of
from xai.study.statistics import holm

CLAIMS = sorted((Path(__file__).resolve().parents[2] / "conf" / "claim").glob("*.yaml"))


def claim(**changes):
    return Claim(**({"metrics": ["srg"], "above": ["ours"], "below": ["rise"], "paper": "Table 1"} | changes))


def found(given, *claims, pool=()):
    return judge(given, Claims(list(claims), pool=list(pool)), COLUMNS)


def of_seeds(gains_of_seeds):
    """Our row, and a rival that gains nothing at all."""
    return frame(
        *(lines("ours", "srg", gains, seed) for seed, gains in enumerate(gains_of_seeds)),
        *(lines("rise", "srg", [0.0] * len(gains), seed) for seed, gains in enumerate(gains_of_seeds)),
    )


STEADY = [[0.30, 0.31, 0.29, 0.32], [0.28, 0.3, 0.31, 0.3], [0.3, 0.29, 0.31, 0.33]]


@pytest.mark.parametrize(
    ("gains", "verdict", "why"),
    [
        (STEADY, "holds", ""),
        ((-np.array(STEADY)).tolist(), "does not hold", ""),
        # The seeds disagree, though the interval over images is clear.
        ([[0.90, 0.91, 0.92, 0.93], [0.9, 0.91, 0.92, 0.91], [-0.01] * 4], "undecided", "the seeds disagree"),
        # The seeds agree, though one image carries all of it.
        ([[1.0, -0.01, -0.01, -0.01]] * 3, "undecided", "the interval holds the margin"),
        ([[0.0] * 4] * 3, "undecided", "the interval holds the margin"),
        (STEADY[:2], "undecided", "2 seeds, of at least 3"),
        (STEADY[:1], "undecided", "1 seed, of at least 3"),
    ],
)
def test_a_claim_holds_where_images_and_every_seed_of_three_agree(gains, verdict, why):
    (finding,) = found(of_seeds(gains), claim())
    assert (finding.verdict, finding.why) == (verdict, why)


def test_the_direction_is_what_is_better_unless_the_claim_says_so():
    lower = drawn({"ours": 0.2, "rise": 0.4}, "mif")
    assert found(lower, claim(metrics=["mif"]))[0].verdict == "holds"
    assert found(lower, claim(metrics=["mif"], direction="higher"))[0].verdict == "does not hold"
    with pytest.raises(UserError, match="direction"):
        found(drawn({"ours": 0.2, "rise": 0.4}, "time_of_day"), claim(metrics=["time_of_day"]))
    assert "direction=up is unknown: use higher or lower" in refusal(build, Claim, vars(claim()) | {"direction": "up"})


@pytest.mark.parametrize(
    ("margin", "direction", "verdict"),
    [
        (-0.03, "higher", "holds"),
        (0.0, "higher", "does not hold"),
        (0.03, "lower", "does not hold"),
        (0.01, "lower", "holds"),
    ],
)
def test_the_margin_is_in_the_unit_of_the_frame(margin, direction, verdict):
    close = drawn({"ours": 0.48, "rise": 0.5}, deviation=0.003)
    assert found(close, claim(margin=margin, direction=direction))[0].verdict == verdict


def test_the_numbers_are_those_of_the_pair_and_corrected_for_the_heading():
    given = drawn({"ours": 0.5, "rise": 0.48, "grad_cam": 0.49})
    findings = found(given, claim(heading="A"), claim(heading="A", below=["grad_cam"]), claim())
    pairs = [paired(given, "srg", "ours", below) for below in ("rise", "grad_cam")]
    assert findings[0].difference == pairs[0]
    assert [each.p for each in findings] == pytest.approx([*holm([each.p for each in pairs]), pairs[0].p])
    table = table_of(findings)
    assert table["difference"].tolist() == [each.difference.mean for each in findings]
    assert len(table) == 3


def test_holms_correction_can_leave_a_claim_undecided():
    spread = drawn({"ours": 0.5055, "rise": 0.5}, images=150, deviation=0.04)
    alone = found(spread, claim())[0]
    assert (alone.verdict, 0.001 < alone.p < 0.05) == ("holds", True)
    equal = drawn({f"rival{n}": 0.5 for n in range(60)}, images=150, deviation=0.04, start=1)
    many = found(frame(spread, equal), claim(below=["rise", *(f"rival{n}" for n in range(60))], metrics=["srg"]))
    assert (many[0].verdict, many[0].why) == ("undecided", "not after Holm's correction")


def test_without_values_of_images_the_interval_over_seeds_decides():
    def rows(values):
        return frame(
            *(lines(row, "mcc", v, s) for s, v in enumerate(values) for row, v in (("ours", v), ("rise", 0.0)))
        )

    assert found(rows([0.3, 0.31, 0.32]), claim(metrics=["mcc"]))[0].verdict == "holds"
    assert found(rows([0.9, 0.01, 0.01]), claim(metrics=["mcc"]))[0].verdict == "undecided"


def test_what_is_not_in_the_frame_is_said():
    given = frame(drawn({"ours": 0.5, "rise": 0.4}), lines("ours", "mif", [0.1]), lines("grad_cam", "srg", [0.1], 7))
    findings = found(
        given, claim(below=["vit_cx"]), claim(metrics=["mif"]), claim(metrics=["rma"]), claim(below=["grad_cam"])
    )
    assert {each.verdict for each in findings} == {"not measured"}
    reasons = [f"{each.why} {each.lacks}".strip() for each in findings]
    table = table_of(findings)
    assert (table["why"] + " " + table["lacks"]).str.strip().tolist() == reasons
    assert reasons == ["there is no row vit_cx", "RISE has no mif", "OURS has no rma", "no run has both"]


def test_a_kind_stands_for_all_its_rows_but_those_that_are_spared():
    given = drawn({"ours": 0.5, "rise": 0.4, "grad_cam": 0.3, "random": 0.0})
    findings = found(given, claim(below=["rise", "post-hoc", "control", "trained"], but=["grad_cam"]))
    assert [each.below for each in findings] == ["rise", "random"]
    assert findings[0].text == "OURS is ahead of RISE in SRG"


def test_each_data_set_is_judged_by_itself_unless_they_are_pooled():
    both = frame(
        drawn({"ours": 0.5, "rise": 0.4}, source="a"), drawn({"ours": 0.4, "rise": 0.5}, data="other", source="b")
    )
    assert [each.verdict for each in found(both, claim())] == ["holds", "does not hold"]
    assert [each.where for each in found(both, claim())] == ["a → cluttered · vit_tiny", "b → other · vit_tiny"]
    (pooled,) = found(both, claim(), pool=["data", "source"])
    assert (pooled.verdict, len(pooled.difference.by_run), pooled.difference.images) == ("undecided", 6, 80)


def test_a_row_may_be_compared_with_another_metric_of_its_own():
    given = frame(drawn({"ours": 0.1}, "spread_informed"), drawn({"ours": 0.3}, "spread_random", start=1))
    own = claim(metrics=["spread_informed"], than="spread_random", below=["ours"], direction="lower")
    assert found(given, own)[0].verdict == "holds"


@pytest.mark.parametrize("path", CLAIMS, ids=lambda path: path.stem)
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_with_one_seed_nothing_holds_however_clear_it_is(path, seeds):
    claims = read_claims(path)
    named = sorted({row for each in claims.claims for row in (*each.above, *each.below)})
    metrics = {name for each in claims.claims for name in (*each.metrics, *([each.than] if each.than else []))}
    # Every row is far from every other one, in every image and seed.
    given = frame(
        *(
            drawn({row: place + at / 2 for at, row in enumerate(named)}, name, seeds, deviation=1e-3)
            for place, name in enumerate(sorted(metrics))
        )
    )
    verdicts = {each.verdict for each in judge(given, claims, {m: COLUMNS["srg"] for m in metrics})}
    assert "undecided" in verdicts if seeds < 3 else verdicts & {"holds", "does not hold"}
    assert not verdicts & {"holds", "does not hold"} or seeds == 3


def test_salvage_is_compared_with_every_rival_but_never_with_the_object_itself_where_that_is_the_truth():
    (path,) = (path for path in CLAIMS if path.stem == "salvage")
    against = {metric: set(each.below) for each in read_claims(path).claims if each.heading for metric in each.metrics}
    assert set(against) == {"srg", "r_srg", "mif", "r_mif", "rma", "rra"}
    assert against["srg"] - against["rma"] == {"object_mask"}
    assert against["srg"] == against["r_mif"] >= {"vit_shapley", "rise", "vit_cx", "lrp", "random", "control"}


@pytest.mark.parametrize(("name", "metric", "above", "below", "paper"), cases(__file__, "claimed_by.txt"))
def test_what_a_paper_does_not_claim_is_not_said_to_be_its_own(name, metric, above, below, paper):
    (path,) = (path for path in CLAIMS if path.stem == name)
    found = [
        each.paper
        for each in read_claims(path).claims
        if metric in each.metrics and above in each.above and below in each.below
    ]
    assert found == [paper]


def test_a_row_that_one_claim_leaves_to_another_is_compared_once():
    (path,) = (path for path in CLAIMS if path.stem == "salvage")
    claims, given = read_claims(path), drawn({"salvage": 0.5, "saliency": 0.4, "rise": 0.3}, "rra")
    findings = judge(given, claims, {metric: COLUMNS["srg"] for each in claims.claims for metric in each.metrics})
    compared = [each.below for each in findings if each.claim.metrics == ["rra"]]
    assert compared.count("saliency") == compared.count("rise") == 1


def test_a_file_that_holds_no_claims_is_refused_in_one_line(tmp_path):
    assert "nothing is not a known file of claims" in refusal(read_claims, tmp_path / "nothing.yaml")
    (tmp_path / "bad.yaml").write_text("claims: [{metric: srg}]")
    with pytest.raises(UserError, match=r"bad\.claims\[0\]\.metric .*did you mean metrics"):
        read_claims(tmp_path / "bad.yaml")
    (tmp_path / "odd.yaml").write_text("claims: []\npool: [dataset]")
    assert "odd.pool[0]=dataset is unknown: use data, source or model" in refusal(read_claims, tmp_path / "odd.yaml")
    for text in ("{abov} wins", "{0} wins", "{", "{above.name} wins"):
        assert "has something else in braces than {above}, {below} and {metric}" in refusal(claim, text=text)
    (tmp_path / "worse.yaml").write_text("claims: [")
    assert "not valid YAML" in refusal(read_claims, tmp_path / "worse.yaml")


def test_the_rule_names_the_least_number_of_seeds():
    assert "at least 3" in RULE
