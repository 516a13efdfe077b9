"""vit_cx, against a loop over masks in float64 with scikit-learn's clustering."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.cluster import AgglomerativeClustering
from torch import Tensor

from tests.explainers.networks import TARGETS
from tests.explainers.own_passes import Own, own
from tests.explainers.settings import explainer
from tests.toolbox import randn
from xai.explainers.posthoc.vit_cx import clusters, masks_of

THRESHOLD = 0.3


def features(case: Own) -> Tensor:
    """What the first norm of the last block gives, without the tokens before the patches."""
    model: Any = case.model
    norm = model.visual.transformer.resblocks[-1].ln_1 if case.name == "clip" else model.network.blocks[-1].norm1
    return norm(case.tokens[-2].detach())[:, case.prefix :]


def masks_by_hand(of_image: Tensor, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    maps = []
    for channel in of_image.T:
        pixels = F.interpolate(channel.reshape(1, 1, *grid), size, mode="bilinear")[0, 0].numpy()
        maps.append((pixels - pixels.min()) / (pixels.max() - pixels.min()))
    flat = np.stack(maps).reshape(len(maps), -1)
    cosine = flat @ flat.T / np.outer(np.linalg.norm(flat, axis=1), np.linalg.norm(flat, axis=1))
    clustering = AgglomerativeClustering(
        n_clusters=None, distance_threshold=THRESHOLD, metric="precomputed", linkage="complete"
    ).fit(1 - cosine)
    found = []
    for label in sorted(set(clustering.labels_)):
        joined = sum(each for each, mine in zip(maps, clustering.labels_, strict=True) if mine == label)
        found.append((joined - joined.min()) / (joined.max() - joined.min()))
    return np.stack(found)


def saliency_by_hand(case: Own, image: int, masks: np.ndarray, noise: list[Tensor]) -> np.ndarray:
    """The causal impact of each mask, shared over the pixels that it covers (the paper's section 3)."""
    model: Any = case.model
    mean, std = model.normalisation.mean, model.normalisation.std
    x, target = case.images[image], int(TARGETS[image])

    def answer(normalised: Tensor) -> float:
        return float(model((normalised * std + mean)[None]).softmax(1)[0, target])

    seen, total, covered = (x - mean) / std, 0, 0
    for mask, drawn in zip(torch.from_numpy(masks), noise, strict=False):
        hidden = 0.1 * drawn.double() * (1 - mask)
        impact = answer(seen * mask + hidden) - (answer(seen + hidden) - answer(seen))
        total, covered = total + impact * mask, covered + mask
    return (total / covered / len(masks)).numpy()  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["clip", "registers", "oblong"])
def test_a_map_is_the_causal_impact_of_masks_of_features(name: str) -> None:
    case = own(name)
    size: Any = case.images.shape[-2:]
    ours = explainer("vit_cx", case.model, threshold=THRESHOLD, resolution="pixel")
    pixels = ours.attribute(case.images, TARGETS)
    patches = explainer("vit_cx", case.model, threshold=THRESHOLD).attribute(case.images, TARGETS)
    assert pixels.shape == (4, *size)
    several = set()
    for image, of_image in enumerate(features(case)):
        masks = masks_by_hand(of_image, case.model.grid, size)
        several.add(len(masks))
        generator = torch.Generator().manual_seed(0)
        noise = [torch.randn(case.images.shape[1:], generator=generator) for _ in range(30)]
        expected = saliency_by_hand(case, image, masks_in_our_order(case, of_image, masks), noise)
        np.testing.assert_allclose(pixels[image], expected, rtol=1e-7, atol=1e-9)
        for (row, column), value in np.ndenumerate(patches[image].numpy()):
            corner = expected[4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
            assert value == pytest.approx(corner.mean(), rel=1e-7)
    assert min(several) > 1


def masks_in_our_order(case: Own, of_image: Tensor, masks: np.ndarray) -> np.ndarray:
    """The same masks in the order in which ours come, for the noise of the k-th is its own."""
    grid: Any = (-1, *case.model.grid)
    ours = masks_of(of_image.T.reshape(grid), case.images.shape[-2:], THRESHOLD, 128).numpy()
    order = [int(np.abs(masks - mask).sum((1, 2)).argmin()) for mask in ours]
    assert sorted(order) == list(range(len(masks)))
    np.testing.assert_allclose(ours, masks[order], atol=1e-12)
    return masks[order]


def test_channels_of_a_cluster_are_all_alike_and_there_are_no_more_clusters_than_asked_for() -> None:
    maps = randn(20, 9).abs()
    unit = maps / maps.norm(dim=1, keepdim=True)
    distance = 1 - unit @ unit.T
    found = clusters(distance, 0.2, 20)
    assert 1 < len(found.unique()) < 20
    for label in found.unique():
        members = found == label
        assert (distance[members][:, members] <= 0.2 + 1e-12).all()
    assert len(clusters(distance, 0.2, 3).unique()) == 3


def test_a_channel_that_is_the_same_everywhere_makes_no_mask_and_an_image_may_have_none() -> None:
    channels = torch.stack([torch.full((3, 3), 0.7), torch.arange(9.0).reshape(3, 3)])
    assert masks_of(channels, torch.Size((6, 6)), 0.1, 8).shape == (1, 6, 6)
    assert masks_of(channels[:1], torch.Size((6, 6)), 0.1, 8).shape == (0, 6, 6)
    case = own("clip")
    ours = explainer("vit_cx", case.model)
    ours._features = lambda images: (case.logits[: len(images)].detach(), torch.ones(len(images), 2, 4, 4))
    assert torch.equal(ours.attribute(case.images, TARGETS), torch.zeros(4, 4, 4).double())


def test_masks_are_as_fine_under_mixed_precision() -> None:
    features = randn(5, 3, 3).bfloat16()
    expected = masks_of(features.float(), torch.Size((12, 12)), 0.1, 4)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(masks_of(features, torch.Size((12, 12)), 0.1, 4), expected)
