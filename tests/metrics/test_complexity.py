"""How concentrated maps are, against literal formulas and, where it is installed, Quantus."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from tests.metrics.test_registry import drawn, everything, values
from xai.metrics import functional as F


def test_gini_is_half_the_mean_difference_of_two_over_the_mean() -> None:
    maps = drawn(4, 30, seed=1).double()
    for found, sizes in zip(F.gini(maps), maps.abs().numpy(), strict=True):
        assert found.item() == pytest.approx(np.abs(sizes[:, None] - sizes).mean() / 2 / sizes.mean())
    assert F.gini(torch.ones(1, 7)).item() == pytest.approx(0)
    assert F.gini(torch.eye(8)[:1]).item() == pytest.approx(7 / 8)
    assert F.gini(torch.zeros(1, 7)).isnan().all()


def test_entropy_is_scipys_of_the_largest() -> None:
    maps = drawn(4, 30, seed=2).double()
    np.testing.assert_allclose(F.entropy(maps), entropy(maps.abs().numpy(), axis=1) / np.log(30))
    assert F.entropy(torch.eye(8)[:1]).item() == 0
    assert F.entropy(torch.zeros(1, 7)).isnan().all()


def test_both_are_those_of_quantus() -> None:
    quantus = pytest.importorskip("quantus", reason="Quantus is not installed: pip install quantus")
    maps = drawn(6, 1, 8, 8, seed=3).double()
    given = {"model": None, "x_batch": maps.numpy(), "y_batch": np.zeros(6, int), "a_batch": maps.abs().numpy()}
    quiet = {"disable_warnings": True, "display_progressbar": False, "normalise": False, "abs": False}
    sparse, complexity = quantus.Sparseness(**quiet)(**given), quantus.Complexity(**quiet)(**given)
    found = values("complexity", everything(maps=maps[:, 0]))
    np.testing.assert_allclose(found["sparseness"], sparse, rtol=1e-5)
    np.testing.assert_allclose(found["entropy"] * np.log(64), complexity, rtol=1e-5)
