import numpy as np
import pytest
import torch
from scipy import stats

from tests.reports.ranking_rows import POINTS, evidence, row, shortcut
from tests.reports.removal_rows import measured
from xai.core.errors import UserError
from xai.reports import ranking_figures
from xai.reports.drawings import draw_all
from xai.reports.measured import Evidence
from xai.reports.ranking_figures import DRAWINGS, curves, over_path_steps, over_refinement
from xai.reports.ranking_roles import REFERENCES


@pytest.fixture
def drawn(monkeypatch):
    """Figures instead of their bytes, so that what is in them can be asked."""
    monkeypatch.setattr(ranking_figures, "to_png", lambda figure: figure)


def bars(panel):
    """Label -> places, means, lower and upper ends of each line with bars."""
    found = {}
    for line in panel.containers:
        segments = np.array([segment[:, 1] for segment in line.lines[2][0].get_segments()]).T
        places, means = np.asarray(line.lines[0].get_data(), dtype=float)
        found[line.get_label()] = (places, means, *segments)
    return found


def interval(rows, metric):
    """Mean and ends over images, each averaged over seeds, in percent."""
    values = 100 * np.mean([one.tensors[metric].numpy() for one in rows], 0)
    half = stats.sem(values) * stats.t.ppf(0.975, len(values) - 1)
    return values.mean(), values.mean() - half, values.mean() + half


def test_figure_3a_is_the_area_over_the_steps_of_maps_and_decoder_for_both_classes(drawn):
    found = evidence()
    figure = over_refinement(found)
    everything = [*found.rows, *found.refinement]
    rows = {
        "maps": ["ranking", "ranking_t1", "ranking_t2", "ranking_t3", "ranking_t4", "ranking_t5"],
        "decoder": ["ranking", "decoder_t1", "decoder_t3", "decoder_t5"],
    }
    for panel, kind in zip(figure.axes, ("insertion", "deletion"), strict=True):
        lines = bars(panel)
        assert len(lines) == 4
        for start, roles in rows.items():
            for of_class, target in (("predicted", ""), ("true", "_true")):
                steps, *numbers = lines[f"{start} refined, {of_class} class"]
                np.testing.assert_allclose(
                    np.round(steps), [int(role.split("_t")[-1] if "_t" in role else 0) for role in roles]
                )
                expected = [
                    interval([one for one in everything if one.result.role == role], f"{kind}_auc{target}")
                    for role in roles
                ]
                np.testing.assert_allclose(np.transpose(numbers), expected, rtol=1e-5)
        assert panel.get_title().startswith(kind)


def test_figure_3a_takes_a_row_of_the_table_once_where_it_was_refined_again(drawn):
    rows = (row("ranking"), row("ranking_t3"))
    again = row("ranking_t3", quality=0.1)
    (panel, _) = over_refinement(Evidence(rows, refinement=(again,))).axes
    _, means, *_ = bars(panel)["maps refined, predicted class"]
    assert means[1] == pytest.approx(100 * rows[1].result.metrics["insertion_auc"], rel=1e-5)


def test_figure_3a_without_values_of_images_shows_the_interval_over_seeds(drawn):
    areas = [f"{kind}_auc{target}" for kind in ("insertion", "deletion") for target in ("", "_true")]
    rows = [
        measured(role, seed, metrics=dict.fromkeys(areas, value + 0.01 * seed))
        for role, value in (("ranking", 0.5), ("ranking_t1", 0.6))
        for seed in range(3)
    ]
    (panel, _) = over_refinement(Evidence(tuple(rows))).axes
    _, means, low, high = bars(panel)["maps refined, predicted class"]
    ends = stats.ttest_1samp([60, 61, 62], 0).confidence_interval(0.95)
    assert (means[1], low[1], high[1]) == pytest.approx((61, ends.low, ends.high))


def test_figure_3b_is_the_area_over_the_points_of_a_path(drawn):
    found = evidence()
    figure = over_path_steps(found)
    for panel, kind in zip(figure.axes, ("insertion", "deletion"), strict=True):
        for label, target in (("predicted class", ""), ("true class", "_true")):
            points, *numbers = bars(panel)[label]
            assert points.tolist() == [4, 8, 16]
            expected = [
                interval([o for o in found.steps if o.result.params["path_steps"] == s], f"{kind}_auc{target}")
                for s in (4, 8, 16)
            ]
            np.testing.assert_allclose(np.transpose(numbers), expected, rtol=1e-5)


def test_figure_5_is_the_mass_on_the_mark_from_both_starts_and_the_area_of_the_mark(drawn):
    found = [shortcut(seed) for seed in range(3)]
    (panel,) = ranking_figures.shortcut(Evidence((), shortcut=tuple(found))).axes
    for label, prefix in (("trained map", ""), ("flat map", "flat_"), ("classifier before", "clean_")):
        steps, *numbers = bars(panel)[label]
        assert np.round(steps).tolist() == [0, 1, 2, 3, 4, 5]
        expected = [interval(found, f"{prefix}mass_t{t}") for t in range(6)]
        np.testing.assert_allclose(np.transpose(numbers), expected, rtol=1e-5)
    (area,) = [line for line in panel.lines if line.get_label() == "area of the mark"]
    assert area.get_ydata()[0] == pytest.approx(4)


def test_figure_6_is_the_mean_over_references_images_and_seeds(drawn):
    found = evidence()
    figure = curves(found)
    titles = [panel.get_title().split(" (")[0] for panel in figure.axes]
    names = [(kind, of_class) for of_class in ("predicted", "true") for kind in ("deletion", "insertion")]
    assert titles == [f"{kind}, {of_class} class" for kind, of_class in names]
    rise = [one.tensors for one in found.rows if one.result.role == "rise"]
    for panel, (kind, of_class) in zip(figure.axes, names, strict=True):
        target = "_true" if of_class == "true" else ""
        (line,) = [line for line in panel.lines if line.get_label() == "RISE"]
        share, values = line.get_data()
        np.testing.assert_allclose(share, np.linspace(0, 100, POINTS))
        stacked = torch.stack([t[f"curve_{kind}{target}_{name}"] for t in rise for name in REFERENCES])
        np.testing.assert_allclose(values, 100 * stacked.double().mean((0, 1)), rtol=1e-5)


def test_the_rows_of_figure_6_differ_in_colour_and_in_stroke_with_marker(drawn):
    shown = curves(evidence(seeds=1)).axes[0].lines
    assert len(shown) == 7
    assert len({line.get_color() for line in shown}) == 7
    assert len({(line.get_linestyle(), line.get_marker()) for line in shown}) == 7


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.name)
def test_what_was_not_measured_is_refused_in_one_line(drawing):
    for nothing in (Evidence(()), Evidence((measured("ranking"), measured("rise")), shortcut=(measured("shortcut"),))):
        with pytest.raises(UserError, match=f"to draw Figure {drawing.name.removeprefix('figure')} from") as caught:
            drawing.draw(nothing)
        assert "\n" not in str(caught.value)


def test_each_data_set_has_figures_of_its_own(monkeypatch):
    monkeypatch.setattr(ranking_figures, "to_png", lambda figure: b"png")
    found, missing = draw_all(evidence(seeds=1, data=("a", "b")), DRAWINGS)
    assert missing == []
    assert [name for name, *_ in found] == [f"figure{n}-{data}" for n in ("3a", "3b", "5", "6") for data in "ab"]
