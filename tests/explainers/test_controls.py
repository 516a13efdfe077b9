import numpy as np
import pytest
import torch
from scipy import ndimage

from tests.explainers.context import Context
from tests.explainers.settings import configured, explainer, small_clip, small_pictures
from tests.toolbox import there
from xai.core.errors import UserError
from xai.explainers.block import Block, explain
from xai.explainers.registry import entry, refusal
from xai.explainers.rows import load_row

TARGETS = torch.tensor([0, 1])


@pytest.mark.parametrize("name", ["random", "brightness", "edges", "constant"])
def test_controls_are_of_patches_or_of_pixels(name: str) -> None:
    images = small_pictures(2)
    assert explainer(name, small_clip()).attribute(images, TARGETS).shape == (2, 3, 3)
    row = load_row(f"{name}_pixels")
    assert row.params.of_pixels
    assert row.entry.build(small_clip(), row.params).attribute(images, TARGETS).shape == (2, 12, 12)


def test_random_maps_are_those_of_the_generator() -> None:
    found = explainer("random", small_clip()).attribute(small_pictures(2), TARGETS, torch.Generator().manual_seed(7))
    assert torch.equal(found, torch.rand(2, 3, 3, generator=torch.Generator().manual_seed(7)))


def test_brightness_is_the_distance_from_the_ground_whichever_is_brighter() -> None:
    images = torch.full((2, 3, 12, 12), 0.75)
    images[0, :, 4:8, 8:12], images[1, :, 4:8, 8:12] = 1.0, 0.25
    expected = torch.zeros(2, 3, 3)
    expected[0, 1, 2], expected[1, 1, 2] = 0.25, 0.5
    torch.testing.assert_close(explainer("brightness", small_clip()).attribute(images, TARGETS), expected)
    pixels = explainer("brightness", small_clip(), resolution="pixel").attribute(images, TARGETS)
    torch.testing.assert_close(pixels, expected.repeat_interleave(4, 1).repeat_interleave(4, 2))


def test_edges_are_the_length_of_sobels_gradient() -> None:
    images = small_pictures(2)
    lengths = [
        np.hypot(*(ndimage.sobel(grey, axis, mode="nearest") for axis in (0, 1))) for grey in images.mean(1).numpy()
    ]
    expected = torch.from_numpy(np.stack(lengths))
    pixels = explainer("edges", small_clip(), resolution="pixel").attribute(images, TARGETS)
    torch.testing.assert_close(pixels, expected)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(explainer("edges", small_clip(), resolution="pixel").attribute(images, TARGETS), pixels)
    patches = explainer("edges", small_clip()).attribute(images, TARGETS)
    torch.testing.assert_close(patches, expected.unflatten(2, (3, 4)).unflatten(1, (3, 4)).mean((2, 4)))


def test_the_object_mask_is_the_share_of_the_region_or_the_region() -> None:
    regions = torch.zeros(2, 12, 12, dtype=torch.bool)
    regions[0, :4, :2], regions[1, 8:, 4:8] = True, True
    block = Block(small_pictures(2), TARGETS, None, regions, torch.arange(2), torch.Generator())
    maps = there(explain(explainer("object_mask", small_clip()), block).maps)
    expected = torch.zeros(2, 3, 3)
    expected[0, 0, 0], expected[1, 2, 1] = 0.5, 1.0
    torch.testing.assert_close(maps, expected)
    pixels = there(explain(explainer("object_mask", small_clip(), resolution="pixel"), block).maps)
    assert torch.equal(pixels, regions.float())
    with pytest.raises(UserError, match="object_mask needs the regions"):
        explain(explainer("object_mask", small_clip()), block._replace(regions=None))


@pytest.mark.parametrize("images", [None, 3])
def test_the_position_prior_is_the_mean_of_another_rows_maps_over_validation_images(images: int | None) -> None:
    context = Context({"saliency": load_row("saliency")})
    params = configured("position_prior", of="saliency", images=images)
    prepared = entry("position_prior").prepare(context, params)
    assert prepared.made_from["of"] == entry("saliency").prepare(context, configured("saliency")).made_from
    found = prepared.build().attribute(small_pictures(2), TARGETS)  # type: ignore[union-attr]
    source = context.data.source
    maps = explainer("saliency", small_clip()).attribute(
        source.images("validation", torch.arange(4)[:images], 0).pixels, source.labels("validation")[:images]
    )
    torch.testing.assert_close(found, maps.float().mean(0).expand(2, -1, -1))


def test_a_position_prior_of_what_cannot_be_had_is_refused() -> None:
    rows = {"saliency": load_row("saliency"), "object_mask": load_row("object_mask")}
    prior = entry("position_prior")
    reason = there(refusal(prior, configured("position_prior", of="object_mask"), Context(rows)))
    assert reason.startswith("position_prior is made from object_mask, which cannot be had here: object_mask needs")
    reason = refusal(prior, configured("position_prior", of="saliency", resolution="pixel"), Context(rows))
    assert reason == "position_prior: the maps of saliency are of another kind, use resolution=patch"
    context = Context(rows)
    assert refusal(prior, configured("position_prior", of="saliency"), context) is None
    context.sizes = {"validation": 0}
    reason = refusal(prior, configured("position_prior", of="saliency"), context)
    assert reason == "position_prior is a mean over validation images, and data=pictures has none"
