"""tis, against scikit-learn's k-means and a loop over masked passes of the libraries' own."""

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from tests.explainers.networks import TARGETS
from tests.explainers.own_passes import Own, own
from tests.explainers.settings import explainer
from tests.models.tiny_vit import masked_out
from tests.toolbox import randn
from xai.explainers.posthoc.tis import highest, kmeans, tis
from xai.models.maskable import Removal

MASKS = 7


def masks_by_hand(case: Own, image: int, start: Tensor, kept: int) -> np.ndarray:
    channels = torch.cat([layer[image, case.prefix :] for layer in case.tokens], 1).detach().T.numpy()
    centres = KMeans(MASKS, init=channels[start], n_init=1, tol=0, max_iter=100).fit(channels).cluster_centers_
    return np.stack([np.isin(np.arange(16), np.argsort(-centre)[:kept]) for centre in centres])


@pytest.mark.parametrize(("name", "ratio"), [("registers", 0.5), ("distilled", 0.3), ("average_fc_norm", 0.5)])
def test_a_map_is_the_mean_answer_to_the_masks_that_keep_a_token(name: str, ratio: float) -> None:
    case = own(name, Removal("tokens"))
    settings = {"masks": MASKS, "ratio": ratio}
    found = explainer("tis", case.model, **settings).attribute(case.images, TARGETS)
    plain = explainer("tis", case.model, **settings, normalise=False).attribute(case.images, TARGETS)
    start = torch.randperm(3 * 24, generator=torch.Generator().manual_seed(0))[:MASKS]
    for image in range(4):
        masks = masks_by_hand(case, image, start, kept=int(16 * ratio))
        repeated = case.images[image : image + 1].expand(MASKS, -1, -1, -1)
        logits = masked_out(case.model.network, repeated, torch.from_numpy(masks))
        scores = logits.softmax(1)[:, TARGETS[image]].numpy()
        kept = [scores[masks[:, token]] for token in range(16)]
        expected = np.array([each.mean() if len(each) else scores.mean() for each in kept])
        np.testing.assert_allclose(plain[image].flatten(), expected, rtol=1e-5)
        stretched = (expected - expected.min()) / (expected.max() - expected.min())
        np.testing.assert_allclose(found[image].flatten(), stretched, atol=1e-4)


def test_k_means_of_many_sets_is_that_of_each() -> None:
    points, start = randn(3, 40, 5), torch.tensor([3, 11, 0, 25])
    for each, centres in zip(points.numpy(), kmeans(points, start, 100), strict=True):
        expected = KMeans(4, init=each[start], n_init=1, tol=0, max_iter=100).fit(each).cluster_centers_
        np.testing.assert_allclose(centres, expected, rtol=1e-10)


def test_a_cluster_without_points_keeps_its_centre() -> None:
    points = torch.tensor([[[5.0], [5.0], [9.0]]])
    assert kmeans(points, torch.tensor([0, 1, 2]), 10).flatten().tolist() == [5, 5, 9]


def test_the_nearest_centre_is_as_near_under_mixed_precision() -> None:
    points = torch.tensor([[[1000.0], [1001.0], [1000.6]]])
    with torch.autocast("cpu", torch.bfloat16):
        found = kmeans(points, torch.tensor([0, 1]), 10)
    assert found.flatten().tolist() == pytest.approx([1000, 1000.8])


def test_the_first_of_equals_is_kept_and_one_token_at_least() -> None:
    assert highest(torch.tensor([[2.0, 3.0, 2.0, 2.0]]), 0.5).tolist() == [[True, True, False, False]]
    assert highest(torch.zeros(1, 4), 0.1).sum() == 1


def test_a_mask_that_does_not_count_changes_nothing() -> None:
    values, masks = torch.tensor([[1.0, 3.0, 8.0]]), torch.tensor([[[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 1]]]).bool()
    counted = torch.tensor([[True, True, False]])
    assert tis(values, masks, counted).tolist() == [[2, 1, 2, 2]]
