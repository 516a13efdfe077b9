import pytest

from tests.reports.ranking_rows import evidence, row, shortcut
from xai.reports.claim_renderers import grids
from xai.reports.claims import judge
from xai.reports.measured import Evidence
from xai.reports.ranking_claims import CLAIMS, METRICS
from xai.reports.ranking_roles import ROLES, refined


def claims_of(ours, theirs):
    return [claim for claim in CLAIMS if (claim.ours, claim.theirs) == (ours, theirs)]


def test_with_and_without_refinement_the_explainer_is_compared_with_every_other_method_and_control():
    others = {
        name
        for name, role in ROLES.items()
        if role.kind in ("method", "control") and not refined(name) and name != "ranking"
    }
    for ours, more in (("ranking", set()), ("ranking_t3", {"ranking", "flat_t3", "rollout_t3"})):
        for metric in METRICS:
            against = [c.theirs for c in CLAIMS if c.ours == ours and c.metric == metric and c.cell is not None]
            assert sorted(against) == sorted(others | more)


def test_more_steps_the_map_rather_than_the_decoder_and_the_ablation_are_asked_about_in_both_classes():
    pairs = [("ranking_t1", "ranking"), ("ranking_t3", "ranking_t1"), ("ranking_t5", "ranking_t3")]
    pairs += [(f"ranking_t{t}", f"decoder_t{t}") for t in (1, 3, 5)]
    for pair in pairs:
        assert {(c.metric, c.source, c.direction) for c in claims_of(*pair)} == {(m, "Figure 3a", 1) for m in METRICS}
    ablation = {(c.metric, c.direction) for c in claims_of("ranking", "ranking_published")}
    assert ablation == {("difference_auc", 1), ("difference_auc_true", 1), ("class_correlation", -1)}
    assert {claim.source for claim in CLAIMS} == {"Tables", "Figure 3a", "Figure 5"}


def test_what_was_made_to_hold_holds_on_each_data_set():
    found = judge(evidence(data=("a", "b")), CLAIMS)
    assert [f.claim.text for f in found if f.verdict != "holds"] == []
    assert {(f.data, f.claim.source) for f in found} == {
        (d, s) for d in "ab" for s in ("Tables", "Figure 3a", "Figure 5")
    }
    assert {len(f.by_seed) for f in found} == {3}


@pytest.mark.parametrize(("theirs", "expected"), [(0.2, "holds"), (0.8, "does not hold")])
def test_a_row_that_is_ahead_of_the_explainer_is_said_to_be(theirs, expected):
    rows = tuple(one for seed in range(2) for one in (row("ranking", seed), row("rise", seed, quality=theirs)))
    found = judge(Evidence(rows), CLAIMS)
    assert {(f.claim.theirs, f.claim.metric, f.verdict) for f in found} == {("rise", m, expected) for m in METRICS}


def test_the_mark_is_judged_by_the_mass_of_the_maps_of_its_images():
    one = shortcut()
    found = judge(Evidence((row("ranking"),), shortcut=(one,)), CLAIMS)
    numbers = {(f.claim.metric, f.claim.their_metric): f.mean for f in found if f.claim.source == "Figure 5"}
    metrics = one.result.metrics
    for ours, theirs in (("mass_t1", "mass_t0"), ("mass_t3", "mark_area"), ("mass_t3", "flat_mass_t3")):
        assert numbers[ours, theirs] == pytest.approx(metrics[ours] - metrics[theirs])


def test_each_data_set_has_a_grid_without_and_one_with_refinement_and_one_of_the_other_claims():
    shown = grids(judge(evidence(seeds=1), CLAIMS))
    assert [grid.title for grid in shown] == [
        "Ranking less each other row · cluttered",
        "Ranking, maps refined, T = 3 less each other row · cluttered",
        "Other claims · cluttered",
    ]
    assert shown[0].head == shown[1].head == ("", "Difference ↑", "Difference, true ↑")
    rows = [{name for name, *_ in grid.rows} for grid in shown[:2]]
    assert rows[1] - rows[0] == {"Ranking", "Flat map, refined, T = 3", "Attention rollout, refined, T = 3"}
