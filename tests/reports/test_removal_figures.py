import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from tests.reports.removal_rows import CLASSES, IMAGES, PATCHES, evidence, likelihood, measured, row
from xai.core.errors import UserError
from xai.reports import removal_figures
from xai.reports.drawings import draw_all
from xai.reports.figures import BLUE, ORANGE
from xai.reports.measured import Evidence
from xai.reports.removal_figures import (
    DRAWINGS,
    ablations,
    mask_likelihood,
    masking_curves,
    overlap,
    training_length,
)


@pytest.fixture
def drawn(monkeypatch):
    """Figures instead of their bytes, so that what is in them can be asked."""
    monkeypatch.setattr(removal_figures, "to_png", lambda figure: figure)


def lines(panel):
    """Label -> x and y of each line that has one."""
    return {line.get_label(): line.get_xydata().T for line in panel.lines if not line.get_label().startswith("_")}


def interval(values):
    """Lower and upper end for values [seeds, ...]."""
    values = np.asarray(values, dtype=float)
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(0, ddof=1) / np.sqrt(len(values))
    return values.mean(0) - half, values.mean(0) + half


def test_figure_2_is_the_mean_over_images_and_seeds_by_the_number_of_masked_patches(drawn):
    found = evidence()
    figure = masking_curves(found)
    titles = [panel.get_title().split(" (")[0] for panel in figure.axes]
    assert titles == ["MIF", "LIF", "SRG", "R-MIF", "R-LIF", "R-SRG"]
    assert [panel.get_title().split(" (")[1][:5] for panel in figure.axes] == ["lower", "highe", "highe"] * 2
    rise = [one.tensors for one in found.rows if one.result.role == "rise"]
    for panel, name in zip(figure.axes[:3], ("mif", "lif", None), strict=True):
        assert set(lines(panel)) == {"RISE", "ViT-Shapley", "SALVAGE"}
        of_seeds = [(t[name] if name else t["lif"] - t["mif"]).numpy().mean(0) for t in rise]
        masked, values = lines(panel)["RISE"]
        assert masked.tolist() == list(range(PATCHES - 1, -1, -1))
        np.testing.assert_allclose(values, 100 * np.mean(of_seeds, 0), rtol=1e-5)
        low, high = 100 * np.array(interval(of_seeds))
        band = panel.collections[0].get_paths()[0].vertices[:, 1]
        assert (band.min(), band.max()) == pytest.approx((low.min(), high.max()), rel=1e-4)


def test_figure_2_of_one_seed_has_no_band_and_of_one_row_one_line(drawn):
    figure = masking_curves(Evidence((row("salvage"),)))
    assert [len(lines(panel)) for panel in figure.axes] == [1] * 6
    assert all(not panel.collections for panel in figure.axes)


def test_figure_3_compares_before_and_after_on_each_data_set(drawn):
    found = evidence(data=("a", "b"))
    figure = ablations(found)
    for panel, roles in zip(
        figure.axes, (("vit_shapley", "salvage_uniform"), ("salvage_uniform", "salvage")), strict=True
    ):
        heights = [bar.get_height() for bars in panel.containers for bar in getattr(bars, "patches", [])]
        values = {
            (role, data): [
                100 * one.result.metrics["r_srg"]
                for one in found.rows
                if (one.result.role, one.result.data) == (role, data)
            ]
            for role in roles
            for data in "ab"
        }
        np.testing.assert_allclose(heights, [np.mean(of_seeds) for of_seeds in values.values()], rtol=1e-6)
        segments = [path.vertices[:, 1] for collection in panel.collections for path in collection.get_paths()]
        np.testing.assert_allclose(segments, [interval(of_seeds) for of_seeds in values.values()], rtol=1e-6)
        assert [label.get_text() for label in panel.get_xticklabels()] == ["a", "b"]


def test_figure_3_of_one_seed_has_bars_without_intervals(drawn):
    figure = ablations(evidence(seeds=1))
    assert all(not panel.collections for panel in figure.axes)
    assert [len(panel.patches) for panel in figure.axes] == [2, 2]


def test_figure_4_counts_who_is_right_where_in_percent_of_the_images(drawn):
    right = torch.nn.functional.one_hot(torch.arange(IMAGES) % CLASSES, CLASSES).float()
    salvage = row("salvage")
    explainer, classifier = right.clone(), right.clone()
    explainer[:3] = right[:3].roll(1, 1)
    classifier[2:8] = right[2:8].roll(1, 1)
    tensors = {**salvage.tensors, "logits": explainer, "classifier_logits": classifier}
    figure = overlap(Evidence((measured("salvage", tensors=tensors),)))
    (panel,) = figure.axes
    # Of 12 images the explainer is wrong about 0 to 2, the classifier about 2 to 7, so both about one.
    np.testing.assert_allclose(panel.images[0].get_array(), 100 / 12 * np.array([[4, 5], [2, 1]]))
    assert [text.get_text() for text in panel.texts] == ["33.3 %", "41.7 %", "16.7 %", "8.3 %"]
    assert (panel.get_xlabel(), panel.get_ylabel()) == ("classifier", "explainer")


def test_figure_6_shows_both_kinds_of_masks_by_their_size(drawn):
    rows = tuple(likelihood(seed) for seed in range(3))
    figure = mask_likelihood(Evidence(rows))
    (panel,) = figure.axes
    for label, name in (("random masks", "random"), ("informed masks", "informed")):
        size, values = lines(panel)[label]
        assert size.tolist() == list(range(1, PATCHES + 1))
        expected = 100 * np.mean([one.tensors[name].numpy().mean(0) for one in rows], 0)
        np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_figure_7_takes_the_whole_training_from_the_table_where_it_was_not_run_again(drawn):
    found = evidence()
    shorter = tuple(one for one in found.length if one.result.params["share"] < 1)
    for length, whole in ((found.length, found.length), (shorter, found.rows)):
        (panel,) = training_length(Evidence(found.rows, length)).axes
        for bars, role in zip(panel.containers, ("salvage_uniform", "salvage"), strict=True):
            values = bars.lines[0].get_ydata()
            rows = [*shorter, *(one for one in whole if one.result.params["share"] == 1)]
            expected = [
                [100 * o.result.metrics["srg"] for o in rows if (o.result.role, o.result.params["share"]) == key]
                for key in ((role, 0.25), (role, 0.5), (role, 1.0))
            ]
            np.testing.assert_allclose(values, np.mean(expected, 1), rtol=1e-6)
            bounds = [segment[:, 1] for segment in bars.lines[2][0].get_segments()]
            np.testing.assert_allclose(bounds, np.transpose(interval(np.transpose(expected))), rtol=1e-6)
        assert panel.get_xticks().tolist() == [25, 50, 100]


@pytest.mark.parametrize("drawing", DRAWINGS, ids=lambda drawing: drawing.name)
def test_what_was_not_measured_is_refused_in_one_line(drawing):
    for nothing in (Evidence(()), Evidence((measured("rise"), measured("salvage")))):
        with pytest.raises(UserError, match=f"to draw Figure {drawing.name[-1]} from") as caught:
            drawing.draw(nothing)
        assert "\n" not in str(caught.value)


def test_all_figures_of_one_data_set_or_of_each():
    one, none = draw_all(evidence(), DRAWINGS)
    assert none == []
    assert [name for name, _, _ in one] == ["figure2", "figure3", "figure4", "figure6", "figure7"]
    assert one[0][2] == draw_all(evidence(), DRAWINGS)[0][0][2]
    for _, _, png in one:
        picture = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
        assert 400 < picture.shape[0] < 1000 < picture.shape[1] + 200 < 2000
    two, missing = draw_all(Evidence(evidence(seeds=1, data=("a", "b")).rows), DRAWINGS)
    assert [name for name, _, _ in two] == [
        "figure2-a",
        "figure2-b",
        "figure3",
        "figure4-a",
        "figure4-b",
        "figure6-a",
        "figure6-b",
    ]
    assert [line.split(":")[0] for line in missing] == ["figure7-a", "figure7-b"]


def test_lines_differ_in_colour_and_in_stroke(drawn):
    for figure in (masking_curves(evidence(seeds=1)), mask_likelihood(evidence(seeds=1))):
        shown = [line for line in figure.axes[0].lines if not line.get_label().startswith("_")]
        assert len({line.get_linestyle() for line in shown}) == len({line.get_color() for line in shown}) == len(shown)
        assert {BLUE, ORANGE} <= {line.get_color() for line in shown}
