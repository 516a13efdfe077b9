import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from xai.core.errors import UserError
from xai.reports.figures import (
    BLUE,
    ORANGE,
    MapColumn,
    dimmed,
    explanation_grid,
    heatmap_overlay,
    lambda_sweep,
    overlay,
)
from xai.results import Result

PROPOSED = Result(
    method="transfer",
    role="proposed",
    data="mnist",
    source="digits",
    model="clip_tiny",
    seed=0,
    params={"lambda2": 0.8},
    metrics={"accuracy": 0.9, "e_rmse": 1.0, "iou@10": 0.4},
    n_images=4,
    seconds=1.0,
    peak_memory_bytes=1,
    split="test",
)


def of(role="proposed", seed=0, lambda2=0.8, **metrics):
    return dataclasses.replace(
        PROPOSED, role=role, seed=seed, params={"lambda2": lambda2}, metrics={**PROPOSED.metrics, **metrics}
    )


def decoded(png):
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB")).astype(int)


def near(pixels, colour, tolerance=12):
    """How many pixels have a colour."""
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels - rgb).max(-1) <= tolerance).sum())


def test_the_sweep_has_a_line_in_each_panel_and_marks_the_chosen_point():
    results = [of(lambda2=value, e_rmse=1.5 - value) for value in (0.4, 0.8, 1.2)]
    pixels = decoded(lambda_sweep(results, of("ft_target"), 0.8))
    height, width = pixels.shape[:2]
    assert 300 < height < 1200 < width < 3000
    thirds = [pixels[:, start : start + width // 3] for start in (0, width // 3, 2 * (width // 3))]
    assert all(near(third, BLUE) > 100 and near(third, ORANGE) > 50 for third in thirds)
    without = decoded(lambda_sweep(results, of("ft_target"), 7.0))
    assert near(without[: height - 60], ORANGE) == 0


def test_the_sweep_is_normalised_run_by_run():
    # Each run is exactly 0.8 of its own ft target, so mean and band collapse: dividing by a mean would spread them.
    results = [of(seed=seed, lambda2=v, e_rmse=0.8 * (1 + seed)) for seed in (0, 1) for v in (0.4, 0.8)]
    references = [of("ft_target", seed=seed, e_rmse=1.0 + seed) for seed in (0, 1)]
    together = lambda_sweep(results, references, 9.0, ["e_rmse"])
    spread = lambda_sweep(results, [references[0], of("ft_target", seed=1, e_rmse=1.0)], 9.0, ["e_rmse"])
    # The band is a pale blue.
    pale = "#d1e5f0"
    assert near(decoded(spread)[:400], pale, 8) > 20 * max(1, near(decoded(together)[:400], pale, 8))


def test_a_metric_that_is_missing_or_has_nothing_to_be_divided_by_leaves_an_empty_panel():
    for reference in (of("ft_target", **{"iou@10": 0.0}), of("ft_target", **{"iou@10": float("nan")})):
        pixels = decoded(lambda_sweep([of()], reference, 0.8, ["iou@10"]))
        assert near(pixels, BLUE) == 0
    assert near(decoded(lambda_sweep([of()], of("ft_target"), 0.8, ["rma"])), BLUE) == 0


def test_the_same_sweep_is_the_same_bytes():
    assert lambda_sweep([of()], of("ft_target"), 0.8) == lambda_sweep([of()], of("ft_target"), 0.8)


@pytest.mark.parametrize(
    ("results", "references", "message"),
    [
        ([], of("ft_target"), "no results"),
        ([of()], [], "no results"),
        ([of(seed=1)], of("ft_target"), "seed 1"),
        ([dataclasses.replace(PROPOSED, params={})], of("ft_target"), "no lambda2"),
    ],
)
def test_a_sweep_that_cannot_be_drawn_is_refused(results, references, message):
    with pytest.raises(UserError, match=message):
        lambda_sweep(results, references, 0.8)


def pictures(count=2, size=12, grid=3):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    maps = torch.randn(count, grid, grid, generator=generator)
    return images, maps


def test_the_grid_grows_with_images_and_columns():
    images, maps = pictures()
    labels = torch.tensor([0, 1])
    columns = [MapColumn("reference", maps), MapColumn("proposed", maps, labels)]
    one = decoded(explanation_grid(images[:1], [MapColumn("reference", maps[:1])], labels[:1], ["a", "b"], 2)).shape
    two = decoded(explanation_grid(images, columns, labels, ["a", "b"], 2)).shape
    assert two[0] > 1.5 * one[0]
    assert two[1] > 1.3 * one[1]


def test_wrong_predictions_are_orange_and_right_ones_blue():
    # A constant map has no colour of its own that could be mistaken for the text.
    images, maps = torch.zeros(1, 3, 12, 12, dtype=torch.uint8), torch.zeros(1, 3, 3)
    label = torch.tensor([1])
    right = decoded(explanation_grid(images, [MapColumn("m", maps, label)], label, ["cat", "dog"], 1))
    wrong = decoded(explanation_grid(images, [MapColumn("m", maps, 1 - label)], label, ["cat", "dog"], 1))
    assert near(right, ORANGE) == 0 < near(wrong, ORANGE)


def test_class_names_that_look_like_mathematics_or_are_long_are_drawn_as_they_are():
    images, maps = pictures(1)
    label = torch.tensor([0])
    for name in ("$\\frac{$", "x" * 200, "<b> & \n"):
        decoded(explanation_grid(images, [MapColumn("$\\no{$", maps, label)], label, [name], 9))
    assert heatmap_overlay(images[0], maps[0], "$\\frac{$").width >= 900


@pytest.mark.parametrize("k", [0, 10])
def test_k_has_to_fit_the_map(k):
    images, maps = pictures()
    with pytest.raises(UserError, match="between 1 and 9"):
        explanation_grid(images, [MapColumn("m", maps)], torch.zeros(2, dtype=torch.long), ["a"], k)


def test_sizes_that_do_not_match_are_refused():
    images, maps = pictures()
    with pytest.raises(UserError, match="1 of labels for 2 images"):
        explanation_grid(images, [MapColumn("m", maps)], torch.zeros(1, dtype=torch.long), ["a"], 1)
    with pytest.raises(UserError, match="1 of short for 2 images"):
        explanation_grid(images, [MapColumn("short", maps[:1])], torch.zeros(2, dtype=torch.long), ["a"], 1)


def test_only_the_highest_patches_stay_bright():
    pixels = np.full((4, 6, 3), 200, dtype=np.uint8)
    attribution = torch.tensor([[0.0, 3.0, 1.0], [-5.0, 2.0, 0.5]])
    expected = np.full((4, 6, 3), 0.3 * 200 / 255)
    expected[0:2, 2:4] = 200 / 255
    expected[2:4, 2:4] = 200 / 255
    np.testing.assert_allclose(dimmed(pixels, attribution, 2), expected)


def test_patches_finer_than_pixels_are_all_drawn():
    picture = dimmed(np.full((2, 2, 3), 100, dtype=np.uint8), torch.arange(25.0).reshape(5, 5), 1)
    assert picture.shape == (6, 6, 3)
    np.testing.assert_array_equal(picture[-1, -1], 100 / 255)
    assert (picture[0] < 0.2).all()


def test_evidence_is_red_above_the_mean_blue_below_and_grey_at_it():
    picture = overlay(np.full((2, 3, 3), 128, dtype=np.uint8), np.array([[2.0, 0.0, -2.0]]))
    red, green, blue = np.moveaxis(picture, -1, 0)
    assert (red[:, 0] > blue[:, 0] + 0.2).all()
    assert (blue[:, 2] > red[:, 2] + 0.2).all()
    np.testing.assert_allclose(red[:, 1], green[:, 1])
    np.testing.assert_allclose(red[:, 1], blue[:, 1])
    assert picture.min() >= 0 <= picture.max() <= 1


@pytest.mark.parametrize("size", [(42, 42), (1, 1), (600, 1000), (10, 300)])
def test_a_heat_map_is_legible_at_every_size(size):
    image = heatmap_overlay(torch.full((3, *size), 90, dtype=torch.uint8), torch.tensor([[1.0, 0.0], [0.0, -1.0]]))
    assert image.mode == "RGB"
    assert image.width >= 900
    assert 150 <= image.height <= 3000
    pixels = np.asarray(image).astype(int)
    assert ((pixels[..., 0] - pixels[..., 2]) > 60).sum() > 100
    assert ((pixels[..., 2] - pixels[..., 0]) > 60).sum() > 100


def test_a_constant_heat_map_has_no_colour_beside_its_bar():
    pixels = np.asarray(heatmap_overlay(torch.full((3, 8, 8), 90, dtype=torch.uint8), torch.ones(2, 2))).astype(int)
    assert np.ptp(pixels[:, : int(0.9 * pixels.shape[1])], axis=-1).max() == 0


@pytest.mark.parametrize(("image", "attribution"), [((8, 8), (2, 2)), ((3, 8, 8), (2,)), ((3, 0, 8), (2, 2))])
def test_what_is_no_image_or_no_map_is_refused(image, attribution):
    with pytest.raises(UserError, match="wanted are"):
        heatmap_overlay(torch.zeros(image, dtype=torch.uint8), torch.zeros(attribution))
