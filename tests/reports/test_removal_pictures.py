import dataclasses

import numpy as np
import pytest
import torch

from xai.core.errors import UserError
from xai.reports import removal_pictures
from xai.reports.figures import BLUE, ORANGE, normalised, overlay
from xai.reports.removal_pictures import Pictures, picture_sheet

GENERATOR = torch.Generator().manual_seed(0)
PICTURES = Pictures(
    images=torch.randint(0, 256, (2, 3, 6, 6), dtype=torch.uint8, generator=GENERATOR),
    labels=torch.tensor([0, 1]),
    predictions=torch.tensor([0, 2]),
    class_names=["cat", "$dog$", "hen"],
    maps={role: torch.randn(2, 2, 3, 3, generator=GENERATOR) for role in ("random", "rise", "salvage")},
)


@pytest.fixture
def sheet(monkeypatch):
    """The panels [lines, columns] of the sheet."""
    monkeypatch.setattr(removal_pictures, "to_png", lambda figure: figure)
    figure = picture_sheet(PICTURES)
    return np.array(figure.axes[:12]).reshape(3, 4)


def test_an_image_has_a_second_line_where_the_classifier_is_wrong(sheet):
    names = [(panel.get_xlabel(), panel.xaxis.label.get_color()) for panel in sheet[:, 0]]
    assert names == [("✓ cat", BLUE), ("✗ hen", ORANGE), ("true: $dog$", BLUE)]


def test_columns_are_in_the_order_of_the_tables_and_hold_the_map_that_was_asked_for(sheet):
    assert [panel.get_title() for panel in sheet[0]] == ["input", "SALVAGE", "RISE", "Random"]
    for line, (image, asked) in enumerate([(0, 0), (1, 0), (1, 1)]):
        pixels = PICTURES.images[image].permute(1, 2, 0).numpy()
        np.testing.assert_array_equal(sheet[line, 0].images[0].get_array(), pixels)
        for column, role in enumerate(("salvage", "rise", "random"), start=1):
            expected = overlay(pixels, normalised(PICTURES.maps[role][image, asked]))
            np.testing.assert_allclose(sheet[line, column].images[0].get_array(), expected)


def test_a_sheet_is_a_png_of_the_same_bytes():
    assert picture_sheet(PICTURES)[:4] == b"\x89PNG"
    assert picture_sheet(PICTURES) == picture_sheet(PICTURES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(2, 6, 6, dtype=torch.uint8)}, r"images of shape \(2, 6, 6\)"),
        ({"maps": {}}, "maps of 0 rows"),
        ({"maps": {"lime": torch.zeros(2, 2, 3, 3)}}, "maps of 'lime', no row"),
        ({"maps": {"rise": torch.zeros(2, 3, 3)}}, r"maps of rise have shape \(2, 3, 3\); wanted is \[2, 2, h, w\]"),
        ({"labels": torch.tensor([0])}, "1 labels for 2 images"),
        ({"predictions": torch.tensor([0])}, "1 predictions for 2 images"),
    ],
)
def test_sizes_that_do_not_match_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        picture_sheet(dataclasses.replace(PICTURES, **changes))
