"""The fit of a Shapley distribution to one image, against a convex solver in float64."""

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax

from tests.explainers.settings import explainer, small_clip, small_pictures
from xai.games import PatchGame
from xai.models.clip import SelfExplainingClip
from xai.shapley.masks import random_masks, uniform_sizes


def best_fit(inside: np.ndarray, log_v: np.ndarray) -> np.ndarray:
    """What minimises the mean KL(v || u): phi+ - phi- [M, C], less its mean over classes."""
    players, classes = inside.shape[1], log_v.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        weights = flat.reshape(players + 1, classes)
        log_u = log_softmax(inside @ weights[:-1] + weights[-1], axis=1)
        slope = (np.exp(log_u) - np.exp(log_v)) / len(inside)
        gradient = np.concatenate([inside.T @ slope, slope.sum(0, keepdims=True)])
        return float((np.exp(log_v) * (log_v - log_u)).sum(1).mean()), gradient.ravel()

    found = minimize(loss, np.zeros((players + 1) * classes), jac=True, method="L-BFGS-B", options={"maxiter": 5000})
    phi = found.x.reshape(players + 1, classes)[:-1]
    return phi - phi.mean(1, keepdims=True)


def soft_clip() -> SelfExplainingClip:
    """A classifier that is sure of nothing, so that the minimum is not at infinity."""
    model = small_clip()
    model.logit_scale.mul_(0.1)
    return model


def test_the_fit_is_the_minimum_of_the_divergence() -> None:
    model, images, coalitions = soft_clip(), small_pictures(1), 200
    classes = model(images).shape[1]
    fit = explainer("shapley_distribution", model, coalitions=coalitions, steps=1500, learning_rate=0.05)
    # The same image once for each class: every fit is the same, and shows another column.
    found = fit.attribute(images.expand(classes, -1, -1, -1), torch.arange(classes)).flatten(1).T
    generator = torch.Generator().manual_seed(0)
    design = random_masks(1, model.players, uniform_sizes(model.players, coalitions, generator), generator)[0]
    log_v = PatchGame(model, images, output="logit").value(design)[0].double().log_softmax(1)
    expected = best_fit(design.double().numpy(), log_v.numpy())
    np.testing.assert_allclose(
        (found - found.mean(1, keepdim=True)).numpy(), expected, atol=2e-3 * np.abs(expected).max()
    )


def test_both_divergences_agree_where_the_fit_is_good() -> None:
    model, images, targets = soft_clip(), small_pictures(1), torch.tensor([2])
    maps = [
        explainer("shapley_distribution", model, coalitions=200, steps=800, learning_rate=0.02, divergence=divergence)
        .attribute(images, targets)
        .flatten()
        for divergence in ("jensen_shannon", "kullback_leibler")
    ]
    assert torch.corrcoef(torch.stack(maps))[0, 1] > 0.99
