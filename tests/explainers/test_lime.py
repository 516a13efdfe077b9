"""LIME, against scikit-learn's ridge and cosine distance, which the authors' package calls."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import pairwise_distances
from torch import Tensor

from tests.explainers.settings import explainer, small_clip, small_pictures
from tests.toolbox import randn, seeded
from xai.explainers.posthoc.lime import lime, proximity
from xai.models.maskable import Removal

TARGETS = torch.tensor([4, 1])


def drawn(samples: int, players: int, seed: int = 0) -> Tensor:
    rows = torch.rand(samples, players, generator=seeded(seed)) < 0.5
    rows[0] = True
    return rows


def by_sklearn(values: np.ndarray, rows: np.ndarray, width: float, ridge: float, features: int) -> np.ndarray:
    """The steps of `lime.lime_image.LimeImageExplainer` with `feature_selection='highest_weights'`, for one image."""
    data = rows.astype(float)
    distances = pairwise_distances(data, data[:1], metric="cosine").ravel()
    weights = np.sqrt(np.exp(-(distances**2) / width**2))
    first = Ridge(alpha=0.01, fit_intercept=True).fit(data, values, sample_weight=weights)
    used = np.argsort(-np.abs(first.coef_))[:features]
    fit = Ridge(alpha=ridge, fit_intercept=True).fit(data[:, used], values, sample_weight=weights)
    found = np.zeros(data.shape[1])
    found[used] = fit.coef_
    return found


@pytest.mark.parametrize("features", ["all", 3, 20])
@pytest.mark.parametrize(("width", "ridge"), [(0.25, 1.0), (1.5, 0.1)])
def test_it_is_the_ridge_of_the_authors_package(features: str | int, width: float, ridge: float) -> None:
    rows, values = drawn(50, 8), randn(3, 50)
    found = lime(values, rows, width, ridge, features)  # type: ignore[arg-type]
    number = 8 if features == "all" else int(features)
    expected = [by_sklearn(each, rows.numpy(), width, ridge, number) for each in values.numpy()]
    torch.testing.assert_close(found, torch.tensor(np.array(expected)), rtol=1e-9, atol=1e-12)


def test_the_weight_of_a_sample_falls_with_what_is_missing() -> None:
    rows = torch.tensor([[True] * 4, [True, True, True, False], [True, False, False, False], [False] * 4])
    weights = proximity(rows, 0.5)
    assert weights[0] == 1
    assert weights.diff().lt(0).all()
    assert weights[-1] == pytest.approx(np.exp(-1 / 0.25) ** 0.5)


def test_the_explainer_asks_the_classifier_with_its_samples() -> None:
    removal = Removal("pixels", "0.25")
    model, images = small_clip(removal), small_pictures(2)
    settings = {"samples": 40, "kernel_width": 0.4, "features": 4, "output": "logit"}
    found = explainer("lime", model, **settings).attribute(images, TARGETS, seeded(5))
    rows = drawn(40, 9, seed=5)
    for image, target in enumerate(TARGETS.tolist()):
        values = model(images[image].expand(40, -1, -1, -1), rows)[:, target].numpy().astype(float)
        expected = torch.tensor(by_sklearn(values, rows.numpy(), 0.4, 1.0, 4))
        torch.testing.assert_close(found[image].flatten().double(), expected, rtol=1e-4, atol=1e-6)
        assert int((found[image] != 0).sum()) == 4
