import dataclasses

import numpy as np
import pytest
import torch

from xai.core.errors import UserError
from xai.reports import ranking_pictures, removal_pictures
from xai.reports.figures import normalised, overlay
from xai.reports.ranking_pictures import ShortcutPictures, picture_sheet, refinement_sheet, shortcut_sheet
from xai.reports.removal_pictures import Pictures

GENERATOR = torch.Generator().manual_seed(0)
ROWS = ("random", "ranking_t5", "rise", "ranking", "ranking_t3")
PICTURES = Pictures(
    images=torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8, generator=GENERATOR),
    labels=torch.tensor([0, 1]),
    predictions=torch.tensor([0, 2]),
    class_names=["cat", "dog", "hen"],
    maps={role: torch.randn(2, 2, 6, 6, generator=GENERATOR) for role in ROWS},
)
MARKS = torch.zeros(2, 6, 6, dtype=torch.bool)
MARKS[:, 1:4, 2:5] = True
SHORTCUT = ShortcutPictures(
    images=PICTURES.images,
    marks=MARKS,
    maps=torch.randn(2, 4, 6, 6, generator=GENERATOR),
    mass=torch.tensor([[0.04, 0.1, 0.2, 0.3], [0.05, 0.5, 0.6, 0.7]]),
)


@pytest.fixture
def drawn(monkeypatch):
    """Figures instead of their bytes."""
    for module in (ranking_pictures, removal_pictures):
        monkeypatch.setattr(module, "to_png", lambda figure: figure)


def test_the_sheet_of_all_rows_is_in_the_order_of_the_tables(drawn):
    figure = picture_sheet(PICTURES)
    assert [panel.get_title() for panel in figure.axes[:6]] == [
        "input",
        "Ranking",
        "Maps, T = 3",
        "Maps, T = 5",
        "RISE",
        "Random",
    ]


def test_figure_4_shows_the_refined_maps_by_their_steps(drawn):
    panels = np.array(refinement_sheet(PICTURES).axes[:12]).reshape(3, 4)
    assert [panel.get_title() for panel in panels[0]] == ["input", "T = 0", "T = 3", "T = 5"]
    for line, (image, asked) in enumerate([(0, 0), (1, 0), (1, 1)]):
        pixels = PICTURES.images[image].permute(1, 2, 0).numpy()
        for panel, role in zip(panels[line, 1:], ("ranking", "ranking_t3", "ranking_t5"), strict=True):
            expected = overlay(pixels, normalised(PICTURES.maps[role][image, asked]))
            np.testing.assert_allclose(panel.images[0].get_array(), expected)


def test_without_refined_maps_there_is_no_figure_4():
    maps = {role: PICTURES.maps[role] for role in ("ranking", "rise")}
    assert refinement_sheet(dataclasses.replace(PICTURES, maps=maps)) is None


def test_figure_5_shows_the_maps_of_marked_images_with_the_mark_framed_and_its_mass_below(drawn):
    panels = np.array(shortcut_sheet(SHORTCUT).axes[:10]).reshape(2, 5)
    assert [panel.get_title() for panel in panels[0]] == ["marked", "T = 0", "T = 1", "T = 2", "T = 3"]
    assert [panel.get_xlabel() for panel in panels[1]] == ["", "5 %", "50 %", "60 %", "70 %"]
    for row, line in enumerate(panels):
        pixels = SHORTCUT.images[row].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(line[0].images[0].get_array(), pixels)
        for steps, panel in enumerate(line[1:]):
            expected = overlay(pixels, normalised(SHORTCUT.maps[row, steps]))
            np.testing.assert_allclose(panel.images[0].get_array(), expected)
            outline = np.concatenate([path.vertices for c in panel.collections for path in c.get_paths()])
            # Half way between the centres of the pixels on both sides of the edge: rows 1 to 3, columns 2 to 4.
            assert (outline.min(0), outline.max(0)) == (pytest.approx((2 / 6, 1 / 6)), pytest.approx((5 / 6, 4 / 6)))


def test_a_sheet_is_a_png():
    for sheet in (refinement_sheet(PICTURES), shortcut_sheet(SHORTCUT)):
        assert sheet[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 6, 6, dtype=torch.uint8)}, r"marked images of shape \(2, 6, 6\)"),
        ({"maps": torch.zeros(2, 0, 6, 6)}, r"with maps of \(2, 0, 6, 6\)"),
        ({"maps": torch.zeros(3, 4, 6, 6)}, r"maps of shape \(3, 4, 6, 6\) for 2 images"),
        ({"mass": torch.zeros(2, 3)}, r"mass of shape \(2, 3\) for 2 images and their maps; wanted is \(2, 4\)"),
        ({"marks": torch.zeros(2, 6, 5, dtype=torch.bool)}, r"marks of shape \(2, 6, 5\)"),
    ],
)
def test_sizes_that_do_not_match_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        shortcut_sheet(dataclasses.replace(SHORTCUT, **changes))
