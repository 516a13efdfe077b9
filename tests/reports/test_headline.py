import dataclasses
import math

import pytest

from xai.reports.headline import headline
from xai.results import Result

RESULT = Result(
    method="transfer",
    role="",
    data="mnist",
    source="digits",
    model="clip_tiny",
    seed=0,
    params={},
    metrics={},
    n_images=1200,
    seconds=1.0,
    peak_memory_bytes=1,
    split="test",
)


def rows(seed=0, **errors):
    """Results of one run, from their E-RMSE or (E-RMSE, accuracy) by role."""
    found = []
    for role, values in errors.items():
        error, *accuracy = values if isinstance(values, tuple) else (values,)
        metrics = {"e_rmse": error} | ({"accuracy": accuracy[0]} if accuracy else {})
        found.append(dataclasses.replace(RESULT, role=role, seed=seed, metrics=metrics))
    return found


GOOD = {"ft_target": (1.4, 0.95), "proposed": (0.9, 0.931), "ft_target_x": (0.65, 0.9)}


def test_what_the_table_shows_in_numbers():
    shown = headline(rows(**GOOD), 0.8)[0]
    # 1 - 0.9 / 1.4 = 35.7 %, 0.931 / 0.95 = 98.0 %, (1.4 - 0.9) / (1.4 - 0.65) = 66.7 %.
    for part in ("λ2 = 0.8", "36% lower", "0.900 against 1.400", "98.0% of the accuracy is kept", "67% of the way"):
        assert part in shown


@pytest.mark.parametrize(
    ("proposed", "said"),
    [(0.9, "is 36% lower"), (1.4, "about the same"), (1.405, "about the same"), (1.61, "is 15% higher")],
)
def test_the_verb_follows_the_comparison(proposed, said):
    assert said in headline(rows(ft_target=1.4, proposed=proposed), 1.0)[0]


@pytest.mark.parametrize(
    ("proposed", "bound", "said"),
    [
        (0.9, None, "no bound was trained"),
        (0.9, 0.95, "no worse than the bound"),
        (0.9, 1.45, "bounds nothing"),
        (1.5, 0.65, "reaches 0.650"),
        (0.9, math.nan, "no bound was trained"),
    ],
)
def test_the_bound_is_spoken_of_as_it_is(proposed, bound, said):
    shown = headline(rows(ft_target=1.4, proposed=proposed, **({} if bound is None else {"ft_target_x": bound})), 1.0)[
        0
    ]
    assert said in shown
    assert "of the way" not in shown


def test_controls_are_told_apart_by_the_error():
    said = headline(rows(**GOOD, ink=0.8, position_prior=1.2, constant=1.0), 0.8)[1]
    beaten, open_ = said.split("but not than")
    assert "position prior (1.200)" in beaten
    assert "constant (1.000)" in beaten
    assert "ink (0.800)" in open_
    assert "follow brightness" in open_


def test_beating_every_control_and_none():
    said = headline(rows(**GOOD, ink=1.1, constant=1.0), 0.8)[1]
    assert said.endswith("each control that was measured.")
    assert "rule out" not in said
    said = headline(rows(**GOOD, ink=0.5, constant=0.6), 0.8)[1]
    assert "beats no control" in said
    assert "ink (0.500) and constant (0.600)" in said or "constant (0.600)" in said
    assert "nothing is nearer" in said or "says nothing" in said


def test_a_control_that_is_about_the_same_is_not_beaten():
    said = headline(rows(**GOOD, ink=0.905), 0.8)[1]
    assert "beats no control" in said


def test_no_control_is_said():
    assert "No control was measured" in headline(rows(**GOOD), 0.8)[1]


def test_runs_that_disagree_are_counted():
    results = [*rows(0, **GOOD, ink=1.5), *rows(1, **GOOD, ink=0.8), *rows(2, **GOOD, ink=1.6)]
    assert "ink (1.300; better in 2 of 3 runs)" in headline(results, 0.8)[1]
    results = [*rows(0, **GOOD, ink=1.5), *rows(1, **GOOD, ink=1.2)]
    assert "better in" not in headline(results, 0.8)[1]


def test_only_runs_that_both_have_are_compared():
    results = [*rows(0, ft_target=1.4, proposed=0.7), *rows(1, proposed=1.4)]
    assert "50% lower, 0.700 against 1.400" in headline(results, 0.8)[0]
    results = [*rows(0, ft_target=1.4), *rows(1, proposed=0.7)]
    assert "do not compare" in headline(results, 0.8)[0]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (None, "was not measured"),
        (0.95, "90% of the gain is left"),
        (0.95, "hardly specific"),
        (1.15, "50% of the gain is left"),
        (1.15, "only partly specific"),
        (1.35, "largely specific"),
        (1.45, "the gain is gone"),
        (0.8, "all of the gain is left"),
    ],
)
def test_specificity_to_the_class_follows_the_other_column(other, said):
    limits = headline(rows(**GOOD, **({} if other is None else {"other_class": other})), 0.8)[2]
    assert said in limits


def test_no_gain_is_not_called_specific():
    assert "no gain" in headline(rows(ft_target=1.0, proposed=1.2, other_class=0.5), 0.8)[2]


def test_limits_name_seeds_images_and_the_reference():
    limits = headline(rows(**GOOD), 0.8, image_size=42)[2]
    for part in ("one seed", "1,200 small images of 42 × 42 pixels", "Kernel SHAP", "not the truth"):
        assert part in limits
    limits = headline([*rows(0, **GOOD), *rows(1, **GOOD)], 0.8, image_size=224)[2]
    assert "2 seeds" in limits
    assert "small" not in limits


@pytest.mark.parametrize("missing", ["proposed", "ft_target"])
def test_without_a_row_to_compare_nothing_is_claimed(missing):
    sentences = headline(rows(**{role: value for role, value in GOOD.items() if role != missing}), 0.8)
    assert len(sentences) == 3
    assert "Nothing can be said" in sentences[0]
    assert "lower" not in " ".join(sentences)
    assert len(headline([], 0.8)) == 3


def test_the_reference_is_called_by_its_name():
    found = [dataclasses.replace(row, lineage={"explainer": "grad_cam"}) for row in rows(**GOOD)]
    assert "the reference is Grad-CAM of the classifier" in headline(found, 0.8)[2]
    other = [dataclasses.replace(row, lineage={"explainer": "rise"}) for row in found]
    assert "the reference is Grad-CAM or rise of the classifier" in headline([*found, *other], 0.8)[2]
