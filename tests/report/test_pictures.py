import numpy as np
import pytest
import torch

from xai.core.errors import UserError
from xai.report.figures import to_bytes
from xai.report.pictures import Gallery, overlay, sheets
from xai.report.vectors import first_patches, top_sheet


def gallery(rows: int = 2, images: int = 3, **more) -> Gallery:
    generator = torch.Generator().manual_seed(0)
    maps = {f"row {n}": torch.randn(images, 4, 4, generator=generator) for n in range(rows)}
    names = [f"class {n}" for n in range(images)]
    return Gallery(torch.rand(images, 3, 16, 16, generator=generator), maps, names, **more)


def picture(axes):
    return np.asarray(axes.get_images()[0].get_array())


def panels(figure):
    return [axes for axes in figure.axes if axes.get_images()]


def test_a_sheet_has_a_line_for_each_image_and_a_column_for_each_row():
    (figure,) = sheets(gallery())
    assert len(panels(figure)) == 3 * (1 + 2)
    assert [axes.get_title() for axes in panels(figure)[:3]] == ["input", "row 0", "row 1"]
    assert to_bytes(figure)[:4] == b"\x89PNG"


def test_several_images_may_stand_in_a_line():
    (figure,) = sheets(gallery(1), beside=2)
    assert [axes.get_title() for axes in figure.axes[:4]] == ["input", "row 0"] * 2
    alone = sheets(gallery(1))[0]
    assert [axes.get_xlabel() for axes in panels(figure)] == [axes.get_xlabel() for axes in panels(alone)]
    for beside, below in zip(panels(figure), panels(alone), strict=True):
        np.testing.assert_array_equal(picture(beside), picture(below))
    assert figure.get_figwidth() > alone.get_figwidth()
    assert figure.get_figheight() < alone.get_figheight()


def test_two_classes_stand_side_by_side_on_one_scale():
    first = gallery(1)
    second = {"row 0": 0.5 * first.maps["row 0"]}
    both = gallery(1, second=second, second_classes=["x", "y", "z"])
    (figure,) = sheets(both)
    line = panels(figure)[:3]
    assert [axes.get_xlabel() for axes in line[1:]] == ["for class 0", "for x"]
    scaled = first.maps["row 0"][0].double() / first.maps["row 0"][0].abs().max()
    pixels = (255 * first.images[0]).round().to(torch.uint8).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(picture(line[1]), overlay(pixels, scaled.numpy()), atol=1e-6)
    np.testing.assert_allclose(picture(line[2]), overlay(pixels, 0.5 * scaled.numpy()), atol=1e-6)


def test_signed_maps_are_drawn_around_zero_and_others_from_their_lowest_value():
    grey = torch.full((1, 3, 2, 2), 0.5)
    signed, positive = torch.tensor([[[-2.0, 0.0], [0.0, 1.0]]]), torch.tensor([[[0.4, 0.4], [0.4, 0.6]]])
    (figure,) = sheets(Gallery(grey, {"signed": signed, "positive": positive, "constant": torch.ones(1, 2, 2)}, ["a"]))
    around, above, nothing = (picture(axes) for axes in panels(figure)[1:4])
    red, blue = lambda at: at[0] - at[2] > 0.1, lambda at: at[2] - at[0] > 0.1
    assert blue(around[0, 0])
    assert red(around[1, 1])
    assert red(above[1, 1])
    for at in (around[0, 1], above[0, 0], *nothing.reshape(-1, 3)):
        assert np.ptp(at) < 1e-9, "where nothing is said the grey image is seen"


def test_more_maps_than_fit_are_put_on_further_sheets_and_pairs_stay_together():
    maps = gallery(5)
    paired = gallery(5, second=dict(maps.maps), second_classes=["x", "y", "z"])
    figures = sheets(paired, across=4)
    assert [len(panels(figure)) for figure in figures] == [3 * 5, 3 * 5, 3 * 3]


def test_regions_are_outlined_on_every_picture():
    regions = torch.zeros(3, 16, 16, dtype=torch.bool)
    regions[:2, 4:8, 4:12] = True
    (figure,) = sheets(gallery(regions=regions))
    outlined = [any(len(path.vertices) for c in axes.collections for path in c.get_paths()) for axes in panels(figure)]
    assert outlined == [True] * 6 + [False] * 3
    edges = np.concatenate([path.vertices for c in panels(figure)[0].collections for path in c.get_paths()])
    np.testing.assert_allclose([edges.min(0), edges.max(0)], [[0.25, 0.25], [0.75, 0.5]], atol=0.04)


def test_images_say_what_was_predicted_and_what_is_true():
    names = {"true": ["class 0", "b", "class 2"], "notes": {"row 1": ["✓ a", "✗ b", "30 %"]}}
    (figure,) = sheets(gallery(**names))
    assert [axes.get_xlabel() for axes in panels(figure)[::3]] == ["✓ class 0", "✗ class 1\ntrue: b", "✓ class 2"]
    assert [axes.get_xlabel() for axes in panels(figure)[2::3]] == ["✓ a", "✗ b", "30 %"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"true": ["only one"]},
        {"second": {"row 0": torch.ones(3, 4, 4)}},
        {"regions": torch.ones(2, 16, 16, dtype=torch.bool)},
        {"second": {"row 0": torch.ones(3, 4)}, "second_classes": ["x", "y", "z"]},
    ],
)
def test_what_does_not_belong_together_is_refused(wrong):
    with pytest.raises(UserError):
        gallery(**wrong)


def test_the_first_patches_are_bright_and_compared_with_those_of_the_reference():
    reference = torch.tensor([[[4.0, 3.0], [2.0, 1.0]]])
    other = torch.tensor([[[5.0, 0.0], [0.0, 0.0]]])  # a tie for the second place: the first one
    third = torch.tensor([[[0.0, 1.0], [2.0, 0.0]]])
    maps = {"reference": reference, "other": other, "third": third}
    for label, wanted in zip(maps, ([[1, 1], [0, 0]], [[1, 1], [0, 0]], [[0, 1], [1, 0]]), strict=True):
        assert first_patches(maps[label], 2)[0].int().tolist() == wanted
    gallery = Gallery(torch.full((1, 3, 4, 4), 0.8), maps, ["seven"])
    figure = top_sheet(gallery, 2, "reference")
    shown = [np.asarray(axes.images[0].get_array(), dtype=float)[..., 0] for axes in figure.axes]
    pixel = 204 / 255  # of the image, which the sheet reads as bytes
    np.testing.assert_allclose(shown[3], pixel * np.kron([[0.25, 1], [1, 0.25]], np.ones((2, 2))))
    assert [axes.get_xlabel() for axes in figure.axes] == ["for seven", "", "IoU 1.00", "IoU 0.33"]
