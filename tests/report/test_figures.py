"""Figures draw what the frames hold: the numbers of their artists are looked at, not their pixels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from tests.report.study_frames import (
    COLUMNS,
    IMAGES,
    PLAYERS,
    curves,
    line,
    refined,
    removal_curves,
    scores,
    study,
    sweep,
)
from tests.study.frames import frame, lines
from tests.study.test_pairs import COLUMNS as PAIR_COLUMNS
from tests.study.test_pairs import PAIRS, measured
from tests.toolbox import refusal
from xai.report.figures import Source, draw, draw_all, names, open_figure, save, to_bytes
from xai.report.figures.style import grid, intervals, legend_below, words_of
from xai.study.pairs import correlation, of_pairs
from xai.study.statistics import t_interval


def lines_of(axes):
    """What is in a panel's lines, by label."""
    found = {line.get_label(): line for line in axes.get_lines()}
    found |= {bar.get_label(): bar[0] for bar in axes.containers if hasattr(bar, "has_yerr")}
    return {label: np.array(line.get_xydata(), dtype=float) for label, line in found.items()}


def test_every_figure_has_words_and_says_in_one_line_what_it_lacks():
    assert {
        "vectors_figure3", "vectors_alpha", "salvage_figure2", "salvage_figure3", "salvage_figure3a",
        "salvage_figure3b",
        "salvage_figure4", "salvage_figure6", "salvage_figure7", "ranking_figure3a", "ranking_figure3b",
        "ranking_figure5", "ranking_figure6", "cost_quality", "metric_agreement", "curves", "over", "bars", "overlap",
    } <= set(names())  # fmt: skip
    other = Source(scores({"unheard_of": {"nothing": 1.0}}), curves({"unheard_of": {"nothing": np.ones(3)}}))
    for source in (Source(), other):
        drawn, missing = draw_all([name for name in names() if name not in ("curves", "bars")], source)
        assert not drawn
        assert len(missing) == len(names()) - 2
        assert all("\n" not in text and len(text) < 220 for text in missing)
    assert all(info.alt and info.caption for info in map(open_figure, names()))


def test_an_unknown_figure_is_refused_with_what_there_is():
    assert "salvage_figure2" in refusal(open_figure, "salvage_figur2")


def test_curves_are_means_over_seeds_in_percent_against_masked_patches():
    figure = draw("salvage_figure2", study())
    frame = removal_curves()
    assert [axes.get_title() for axes in figure.axes][:3] == [
        "MIF (lower is better)", "LIF (higher is better)", "SRG (higher is better)",
    ]  # fmt: skip
    mif, lif, srg = (lines_of(axes)["salvage"] for axes in figure.axes[:3])
    np.testing.assert_allclose(mif[:, 0], np.arange(PLAYERS)[::-1], atol=1e-9)
    of_row = frame[(frame["explainer"] == "salvage") & (frame["curve"] == "curve_mif")]
    np.testing.assert_allclose(mif[:, 1], 100 * of_row.groupby("x")["value"].mean())
    np.testing.assert_allclose(srg[:, 1], lif[:, 1] - mif[:, 1])
    (band,) = (area for area in figure.axes[0].collections if area.get_facecolor()[0][2] > 0.6)
    low, high = t_interval([100 * (0.9 + 0.01 * seed) for seed in (0, 1, 2)])
    heights = band.get_paths()[0].vertices[:, 1]
    assert heights.max() == pytest.approx(high)
    assert low < mif[-1, 1] < high


def test_likelihood_of_masks_is_drawn_by_curve_over_the_patches_present():
    values = {
        row: {"likelihood_random": np.linspace(0.1, 0.9, 5), "likelihood_informed": np.full(5, level)}
        for row, level in (("salvage", 0.5), ("random", 0.1))
    }
    figure = draw("salvage_figure6", Source(curves=curves(values, seeds=(0,))))
    found = lines_of(figure.axes[0])
    np.testing.assert_allclose(found["random masks"], [[1, 10], [2, 30], [3, 50], [4, 70], [5, 90]])
    np.testing.assert_allclose(found["informed masks"][:, 1], 50)


def test_perturbation_curves_are_averaged_over_the_references():
    of_row = {
        f"curve_deletion_{name}": np.full(3, value) for name, value in (("black", 0.1), ("mean", 0.2), ("blur", 0.6))
    }
    figure = draw("ranking_figure6", Source(curves=curves({"rise": of_row}, seeds=(0,))))
    np.testing.assert_allclose(lines_of(figure.axes[0])["rise"], [[0, 30], [50, 30], [100, 30]])


def test_refinement_starts_with_the_row_without_a_step_and_keeps_classes_apart():
    figure = draw("ranking_figure3a", refined())
    insertion = lines_of(figure.axes[0])
    maps, true = insertion["maps refined, predicted class"], insertion["maps refined, true class"]
    np.testing.assert_allclose(np.round(maps[:, 0]), [0, 1, 3, 5])
    np.testing.assert_allclose(maps[:, 1], 100 * (0.6 + 0.03 * np.sqrt([0, 1, 3, 5])))
    np.testing.assert_allclose(true[:, 1], maps[:, 1] + 5)
    decoder = insertion["decoder refined, predicted class"]
    assert decoder[0, 1] == pytest.approx(maps[0, 1])
    assert decoder[0, 0] != maps[0, 0], "bars stand beside each other"


def test_no_line_averages_two_rows():
    source = refined()
    pooled = source.scores[source.scores["explainer"] == "ranking_t3"].assign(explainer="ranking_t3_pooled")
    both = Source(pd.concat([source.scores, pooled.assign(value=0.0)]), columns=source.columns)
    drawn, alone = (lines_of(draw("ranking_figure3a", each).axes[0]) for each in (both, source))
    for label, expected in alone.items():
        np.testing.assert_array_equal(drawn[label], expected)
    wanted = {"figure": "over", "x": "step", "metrics": ["insertion_auc"], "lines": [{"rows": ["ranking_t*"]}]}
    assert "ranking_t3 and ranking_t3_pooled would be one line at step=3" in refusal(draw, wanted, both)


def test_intervals_are_over_images_or_over_runs_as_asked():
    frame = refined().scores
    for over in ("images", "runs"):
        figure = draw({"figure": "ranking_figure3a", "over": over}, Source(frame, columns=refined().columns))
        bars = next(bar for bar in figure.axes[0].containers if bar.get_label() == "maps refined, predicted class")
        segment = bars[2][0].get_segments()[0][:, 1]
        values = 100 * (0.6 + np.linspace(-0.05, 0.05, IMAGES)) if over == "images" else [60.0] * 3
        np.testing.assert_allclose(segment, t_interval(list(values)), atol=1e-9)


def test_a_length_that_was_trained_again_replaces_the_row_of_the_table():
    parts = [scores({"salvage": {"srg": 0.5}}), scores({"salvage@0.5": {"srg": 0.4}}, share=0.5)]
    figure = draw("salvage_figure7", Source(pd.concat(parts), columns=COLUMNS))
    np.testing.assert_allclose(lines_of(figure.axes[0])["SALVAGE, informed masks"][:, 1], [40, 50])
    parts.append(scores({"salvage@1": {"srg": 0.6}}, share=1.0))
    figure = draw("salvage_figure7", Source(pd.concat(parts), columns=COLUMNS))
    np.testing.assert_allclose(lines_of(figure.axes[0])["SALVAGE, informed masks"][:, 1], [40, 60])


def test_paths_are_drawn_on_an_axis_that_doubles():
    parts = [scores({f"ranking@S={s}": {"insertion_auc": 0.1 * s}}, path_steps=s) for s in (2, 4, 8)]
    figure = draw("ranking_figure3b", Source(pd.concat(parts), columns=COLUMNS))
    assert figure.axes[0].get_xscale() == "log"
    np.testing.assert_allclose(lines_of(figure.axes[0])["predicted class"], [[2, 20], [4, 40], [8, 80]])


def test_the_mark_is_drawn_for_each_classifier_with_the_area_it_covers():
    parts = [
        scores({"ranking@t1" if step else "ranking": {metric: mass + 0.2 * step}}, step=step or None, case="marked")
        for metric, mass in (("mass", 0.3), ("mass_before", 0.05))
        for step in (0, 1)
    ]
    parts.append(scores({"ranking": {"mark_area": 0.06}}, case="marked"))
    figure = draw("ranking_figure5", Source(pd.concat(parts), columns=COLUMNS))
    found = lines_of(figure.axes[0])
    np.testing.assert_allclose(found["trained map"][:, 1], [30, 50])
    np.testing.assert_allclose(found["classifier before"][:, 1], [5, 25])
    np.testing.assert_allclose(found["Area of the mark"][:, 1], 6)
    assert figure.axes[0].get_ylim()[0] <= 0


def test_the_sweep_is_divided_by_the_reference_of_the_same_run_and_marks_the_choice():
    figure = draw("vectors_figure3", sweep())
    found = lines_of(figure.axes[0])
    frame = sweep().scores
    frame = frame[frame["explainer"].str.startswith("proposed@") & (frame["metric"] == "e_rmse")]
    np.testing.assert_allclose(found["proposed"][:, 1], frame.groupby("lambda2")["value"].mean() / 1.2)
    np.testing.assert_allclose(found["chosen on validation: 0.5"], [[0.5, found["proposed"][2, 1]]])
    shares = lines_of(draw({"figure": "vectors_figure3", "percent": True}, sweep()).axes[0])
    np.testing.assert_allclose(shares["chosen on validation: 50"], [[50, found["proposed"][2, 1]]])
    assert len(figure.axes) == 3
    assert not any(axes.get_title().startswith("E-RMSE, ") for axes in figure.axes)


def test_targets_of_a_sweep_are_lines_of_one_panel_with_a_band_over_alpha():
    one, parts = sweep().scores, []
    for data in ("here", "there"):
        for alpha, more in ((0.2, 0.0), (0.8, 1 / 9)):
            values = one["value"] * (1 + more * (one["explainer"] != "ft_target"))
            parts.append(one.assign(data=data, alpha=alpha, value=values))
    (figure,) = (drawn.figure for drawn in draw_all(["vectors_figure3"], Source(pd.concat(parts), columns=COLUMNS))[0])
    found = lines_of(figure.axes[0])
    assert {"proposed · here", "proposed · there"} <= set(found)
    assert not any(label.startswith("chosen") for label in found)
    single = lines_of(draw("vectors_figure3", sweep()).axes[0])["proposed"]
    np.testing.assert_allclose(found["proposed · here"][:, 1], single[:, 1] * (1 + 1 / 18))
    assert len(figure.axes[0].collections) == 2


def test_a_line_of_each_data_set_is_of_the_class_that_it_is_asked_for():
    one = refined()
    frame = pd.concat([one.scores.assign(data=data) for data in ("here", "there")])
    wanted = {"figure": "over", "x": "step", "metrics": ["insertion_auc"], "each_data": True, "joint": True}
    lines = [{"rows": ["ranking_t[0-9]"], "label": "true", "suffix": "_true"}]
    found = lines_of(draw({**wanted, "lines": lines}, Source(frame, columns=one.columns)).axes[0])
    for label in ("true · here", "true · there"):
        np.testing.assert_allclose(found[label][:, 1], 100 * (0.65 + 0.03 * np.sqrt([1, 3, 5])))


def test_bars_stand_for_runs_by_data_set():
    parts = [
        scores({"vit_shapley": {"r_srg": 0.2}, "salvage_uniform": {"r_srg": 0.3}, "salvage": {"r_srg": 0.4}}, data=data)
        for data in ("digits", "mnist")
    ]
    (drawn,), missing = draw_all(["salvage_figure3"], Source(pd.concat(parts), columns=COLUMNS))
    assert not missing
    heights = [[bar.get_height() for bar in axes.patches] for axes in drawn.figure.axes]
    np.testing.assert_allclose(heights, [[20, 20, 30, 30], [30, 30, 40, 40]])


def test_overlap_counts_images():
    own = pd.DataFrame(
        line("salvage") | {"metric": "accuracy", "image": i, "value": v} for i, v in enumerate([1, 1, 0, 0, 0])
    )
    other = own.assign(metric="classifier_accuracy", value=[1.0, 0.0, 1.0, 1.0, 0.0])
    figure = draw("salvage_figure4", Source(pd.concat([own, other]), columns=COLUMNS))
    np.testing.assert_allclose(figure.axes[0].get_images()[0].get_array(), [[20, 20], [40, 20]])


def test_cost_against_quality_names_each_row_once_and_joins_what_nothing_cheaper_beats():
    figure = draw({"figure": "cost_quality", "metric": "srg"}, study())
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.texts]
    assert sorted(labels) == sorted(study().scores["label"].unique())
    joined = lines_of(axes)["nothing cheaper is better"]
    np.testing.assert_allclose(joined, [[5.5, 45], [6.0, 52], [1500.0, 52]])


def test_cost_against_quality_of_an_rmse_is_the_root_of_the_mean_square_of_each_run():
    values = [[3.0, 4.0], [0.0, 2.0]]
    scores = pd.DataFrame(
        line("salvage", seed) | {"metric": "e_rmse", "image": image, "value": value}
        for seed, images in enumerate(values)
        for image, value in enumerate(images)
    )
    costs = pd.DataFrame([line("salvage") | {"milliseconds": 2.0}])
    columns = {"e_rmse": replace(COLUMNS["e_rmse"], quadratic=True)}
    (axes,) = draw({"figure": "cost_quality", "metric": "e_rmse"}, Source(scores, costs=costs, columns=columns)).axes
    means = [each.lines[0].get_ydata()[0] for each in axes.containers]
    found = intervals([("salvage", pd.Series([3.0, 4.0]))], quadratic=True).loc["salvage"]
    assert found.tolist() == pytest.approx([np.sqrt(12.5), 0.0, np.sqrt(t_interval([9.0, 16.0])[1])])
    assert means == pytest.approx([np.mean(np.sqrt(np.mean(np.square(values), axis=1)))])


def test_agreement_of_metrics_turns_each_so_that_higher_is_better_and_leaves_controls_out():
    figure = draw("metric_agreement", study())
    found = figure.axes[0].get_images()[0].get_array()
    labels = [text.get_text() for text in figure.axes[0].get_yticklabels()]
    assert labels == ["SRG", "R-SRG", "RMA", "Deletion"]
    np.testing.assert_allclose(found[0], [1, 1, 0.9, 1])
    few = study().scores
    few = few[few["explainer"].isin(["salvage", "rise", "random"])]
    assert "at least 4 explainers" in refusal(draw, "metric_agreement", Source(few, columns=COLUMNS))


def test_figures_of_several_data_sets_are_drawn_one_by_one_from_the_test_split():
    more = [curves({"rise": {"a": np.full(2, level)}}, data=data, split=split) for level, data, split in
            ((0.1, "digits", "test"), (0.2, "mnist", "test"), (0.9, "mnist", "validation"))]  # fmt: skip
    drawn, _ = draw_all([{"figure": "curves", "name": "mine"}], Source(curves=pd.concat(more)))
    assert [each.name for each in drawn] == ["mine-digits", "mine-mnist"]
    assert lines_of(drawn[1].figure.axes[0])["rise"][0, 1] == pytest.approx(21)


def test_figures_that_are_called_alike_have_names_of_their_own():
    wanted = [{"figure": "cost_quality", "metric": metric} for metric in ("srg", "rma", "deletion_auc")]
    drawn, missing = draw_all([*wanted, {**wanted[0], "name": "mine"}], study())
    assert not missing
    assert [each.name for each in drawn] == ["cost_quality", "cost_quality-2", "cost_quality-3", "mine"]
    assert [each.figure.axes[0].get_ylabel() for each in drawn] == ["SRG, %", "RMA, %", "Deletion, %", "SRG, %"]


def test_a_legend_of_many_lines_stands_below_the_panels():
    chart, (axes,) = grid(1, 1, (3.4, 2.9))
    for number in range(40):
        axes.plot([0, 1], [number, number], label=f"an explainer whose label is long, number {number}")
    legend_below(chart, [axes])
    to_bytes(chart)
    panel = axes.get_window_extent()
    assert chart.legends[0].get_window_extent().y1 <= panel.y0
    assert panel.height > 100


def test_files_are_the_same_bytes_each_time(tmp_path):
    save(draw("salvage_figure2", study()), tmp_path / "figures", "two")
    paths = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in paths] == ["two.png", "two.svg"]
    for path in paths:
        assert path.read_bytes() == to_bytes(draw("salvage_figure2", study()), path.suffix[1:])


PANEL = {"x": {"metric": "near"}, "y": {"metric": "far"}, "paper": "", "sign": 1}


def test_each_pair_is_a_mark_at_its_values_over_those_of_the_reference():
    given = measured(good=PAIRS[:11])
    undefined = (given["source"] == PAIRS[-1][0]) & (given["data"] == PAIRS[-1][1]) & (given["metric"] == "e_rmse")
    source = Source(given.assign(value=given["value"].where(~undefined)), columns=PAIR_COLUMNS)
    chart = draw(
        {"figure": "pairs", "rows": ["proposed"], "across": "mcc", "up": "e_rmse", "controls": ["ft_target", "nobody"]},
        source,
    )
    first, second, third = chart.axes
    marks = np.concatenate([line.get_xydata() for line in first.get_lines() if line.get_marker() != "None"])
    assert np.isfinite(marks).all(axis=1).sum() == 19
    np.testing.assert_allclose(marks[:, 0], 0.9)
    assert (marks[:, 1] < 1).sum() == 11
    assert "better in 11 of 19" in first.get_title()
    assert "ahead of it in 11 of 19" in second.get_title()
    told = {said for line in first.get_lines() for said in words_of(line)}
    assert told == {f"{source} → {data}" for source, data in PAIRS}
    (legend,) = chart.legends
    named = {f"from {source}" for source, _ in PAIRS} | {f"to {data}" for _, data in PAIRS}
    assert {text.get_text() for text in legend.get_texts()} == named
    assert "was not measured" in third.texts[0].get_text()
    assert "without rows" in refusal(draw, "pairs", source)


def test_a_relation_is_titled_with_its_correlation_and_drawn_with_its_line():
    source = Source(measured(), columns=PAIR_COLUMNS)
    (axes,) = draw({"figure": "relations", "panels": [PANEL]}, source).axes
    means = of_pairs(source.scores, PAIR_COLUMNS).groupby(level=["source", "data"]).mean()
    x, y = means["near", "proposed"], means["far", "proposed"]
    found = correlation(x, y)
    assert f"r = {found.r:.2f}" in axes.get_title()
    assert f"p (sets) = {found.permuted:.2g}" in axes.get_title()
    (line,) = (line for line in axes.get_lines() if line.get_color() == "purple")
    slope, start = np.polyfit(x, y, 1)
    np.testing.assert_allclose(line.get_ydata(), start + slope * np.asarray(line.get_xdata()))
    many = draw({"figure": "relations", "panels": [PANEL] * 10}, source).axes
    assert many[9].get_title().startswith("(j) r = ")
    assert "without panels" in refusal(draw, "relations", source)
    both = replace(source, scores=pd.concat([source.scores, source.scores.assign(model="another")]))
    drawn, (why,) = draw_all([{"figure": "relations", "panels": [PANEL]}], both)
    assert not drawn
    assert why == "relations: pairs of data sets are drawn of one model, and vit_tiny and another were measured"


def test_rows_are_drawn_over_what_they_cost_and_others_as_levels():
    parts, costs = [], []
    for seed in (0, 1):
        for row, value, passes in (("shap_10", 0.9, 12), ("shap_100", 0.3, 102), ("one", 0.6, 1)):
            parts.append(lines(row, "e_rmse", [value, value + 0.1 * seed], seed))
            costs.append({"explainer": row, "passes": passes})
    source = Source(frame(*parts), costs=pd.DataFrame(costs), columns=PAIR_COLUMNS)
    wanted = {"figure": "budget", "metrics": ["e_rmse", "mif"], "lines": [{"rows": ["shap_*"], "label": "SHAP"}]}
    first, second = draw({**wanted, "levels": [{"rows": ["one"], "label": "one pass"}]}, source).axes
    found = {line.get_label(): np.asarray(line.get_xydata(), dtype=float) for line in first.get_lines()}
    roots = [(value + np.sqrt((value**2 + (value + 0.1) ** 2) / 2)) / 2 for value in (0.9, 0.3, 0.6)]
    np.testing.assert_allclose(found["SHAP"], [[12, roots[0]], [102, roots[1]]])
    np.testing.assert_allclose(found["one pass"][:, 1], roots[2])
    assert first.get_xscale() == "log"
    assert not second.get_lines()
    assert "no e_rmse or mif of one at two costs" in refusal(draw, {**wanted, "lines": [{"rows": ["one"]}]}, source)
