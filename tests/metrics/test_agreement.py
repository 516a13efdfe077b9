"""Agreement of maps with references, against scipy, numpy and plain loops in float64."""

import numpy as np
import pytest
import torch
from scipy import stats

from tests.toolbox import refusal
from xai.metrics import functional as F
from xai.metrics.functional import agreement


def maps(images, patches, seed=0, levels=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    if levels is not None:
        return torch.randint(levels, (images, patches), generator=generator).to(dtype)
    return torch.randn(images, patches, generator=generator, dtype=torch.float64).to(dtype)


def test_normalise_is_scipys_zscore():
    u = maps(5, 9, dtype=torch.float64) * 3 + 7
    np.testing.assert_allclose(F.normalise(u), stats.zscore(u.numpy(), axis=-1, ddof=0), rtol=1e-12)
    np.testing.assert_allclose(F.normalise(u.reshape(5, 3, 3)), stats.zscore(u.reshape(5, 3, 3).numpy(), axis=-1))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 1000.0), (1e-25, 0.0), (1e25, 0.0), (1e-3, -1.0)])
def test_normalise_in_float32_survives_offsets_and_extreme_scales(scale, shift):
    u = maps(4, 49) * scale + shift
    expected = stats.zscore(u.double().numpy(), axis=-1)
    assert F.normalise(u).dtype == torch.float32
    np.testing.assert_allclose(F.normalise(u), expected, atol=3e-6)


@pytest.mark.parametrize("value", [0.0, 0.1, -1234.567, 1e-30, 3e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_constant_map_becomes_zeros_with_zero_gradient(value, dtype):
    u = torch.full((2, 49), value, dtype=dtype, requires_grad=True)
    z = F.normalise(u)
    (z - 1).square().mean().backward()
    assert torch.equal(z, torch.zeros_like(z))
    assert torch.equal(u.grad, torch.zeros_like(u))


def test_a_map_constant_up_to_float32_rounding_counts_as_constant_everywhere():
    noisy = torch.full((1, 16), 0.3)
    noisy[0, 3] = torch.nextafter(noisy[0, 3], torch.tensor(1.0))
    ref = maps(1, 16)
    assert F.is_constant(noisy).item()
    assert not F.is_constant(noisy.double()).item()
    assert not F.normalise(noisy).any()
    assert F.squared_explanation_error(noisy, ref).item() == pytest.approx(1.0)
    assert F.kendall(noisy, ref).isnan().item()


def test_normalise_gradient_is_right_next_to_a_constant_row():
    u = maps(3, 6, dtype=torch.float64)
    assert torch.autograd.gradcheck(F.normalise, (u.clone().requires_grad_(),))
    u[1] = 2.0
    u.requires_grad_()
    (F.normalise(u) * maps(3, 6, seed=1, dtype=torch.float64)).sum().backward()
    assert u.grad.isfinite().all()
    assert u.grad.any(dim=1).tolist() == [True, False, True]


def test_normalise_keeps_nan_and_half_precision_in_view():
    u = maps(2, 5)
    u[0, 2] = torch.nan
    assert F.normalise(u).isnan().all(1).tolist() == [True, False]
    half = maps(2, 5).bfloat16()
    torch.testing.assert_close(F.normalise(half), F.normalise(half.float()), rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0)])
def test_normalise_refuses_maps_without_patches(shape):
    assert "M >= 1" in refusal(F.normalise, torch.zeros(shape))


def test_squared_error_against_a_loop_and_its_correlation_form():
    pred, ref = maps(6, 9), maps(6, 9, seed=1)
    loop = []
    for p, r in zip(pred.double().numpy(), ref.double().numpy(), strict=True):
        a, b = (p - p.mean()) / p.std(), (r - r.mean()) / r.std()
        loop.append(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) / 9)
    error = F.squared_explanation_error(pred, ref)
    assert error.dtype == torch.float64
    np.testing.assert_allclose(error, loop, rtol=1e-12)
    correlation = [stats.pearsonr(p, r).statistic for p, r in zip(pred.double(), ref.double(), strict=True)]
    np.testing.assert_allclose(error, 2 - 2 * np.array(correlation), rtol=1e-10)
    assert F.e_rmse(pred, ref).item() == pytest.approx(np.sqrt(np.mean(loop)), rel=1e-12)


def test_e_rmse_levels_of_uncorrelated_constant_perfect_and_opposite_maps():
    ref = maps(400, 64)
    assert F.e_rmse(maps(400, 64, seed=1), ref).item() == pytest.approx(2**0.5, abs=0.01)
    assert F.e_rmse(torch.full_like(ref, 0.7), ref).item() == pytest.approx(1.0, rel=1e-12)
    assert F.e_rmse(3 * ref - 2, ref).item() == pytest.approx(0.0, abs=1e-6)
    assert F.e_rmse(-ref, ref).item() == pytest.approx(2.0, rel=1e-6)
    assert F.squared_explanation_error(torch.ones(1, 4), torch.zeros(1, 4)).item() == 0.0
    assert F.e_rmse(ref[:0], ref[:0]).isnan()


@pytest.mark.parametrize("levels", [None, 2, 4, 30])
@pytest.mark.parametrize("budget", [1, 40, 2**20])
def test_kendall_is_scipys_tau_b(levels, budget, monkeypatch):
    monkeypatch.setattr(agreement, "_PAIR_BUDGET", budget)
    pred, ref = maps(7, 12, levels=levels), maps(7, 12, seed=1)
    ref[:3] = pred[:3] + (ref[:3] > 0.5)
    expected = [stats.kendalltau(p, r, variant="b").statistic for p, r in zip(pred, ref, strict=True)]
    np.testing.assert_allclose(F.kendall(pred, ref), expected, rtol=1e-12)


def test_kendall_orders_float64_values_that_float32_cannot_tell_apart():
    pred = 0.5 + 1e-12 * torch.tensor([[1.0, 2.0, 0.0, 3.0]], dtype=torch.float64)
    ref = torch.tensor([[1.0, 2.0, 0.0, 3.0]], dtype=torch.float64)
    assert F.kendall(pred, ref).item() == 1.0


def test_kendall_is_undefined_for_constant_single_or_broken_maps_only():
    pred, ref = maps(4, 9), maps(4, 9, seed=1)
    pred[0], ref[1], pred[2, 4] = 1.0, 0.0, torch.nan
    assert F.kendall(pred, ref).isnan().tolist() == [True, True, True, False]
    assert F.kendall(torch.ones(2, 1), torch.ones(2, 1)).isnan().all()
    assert F.kendall(pred[:0], ref[:0]).shape == (0,)


@pytest.mark.parametrize("levels", [None, 3])
@pytest.mark.parametrize("k", [1, 5, 12])
def test_iou_at_k_against_sets(levels, k):
    pred, ref = maps(20, 12, levels=levels), maps(20, 12, seed=1, levels=levels)
    expected = []
    for p, r in zip(pred.tolist(), ref.tolist(), strict=True):
        a, b = ({i for _, i in sorted((-value, i) for i, value in enumerate(u))[:k]} for u in (p, r))
        expected.append(len(a & b) / len(a | b))
    assert F.iou_at_k(pred, ref, k).tolist() == pytest.approx(expected)


def test_iou_at_k_breaks_ties_in_patch_order():
    pred, ref = torch.zeros(1, 300), torch.arange(300.0).flip(0)[None]
    pred[0, -1] = -1.0
    assert F.iou_at_k(pred, ref, 7).item() == 1.0
    assert F.iou_at_k(pred, -ref, 7).item() == 0.0


def test_iou_at_k_of_a_constant_map_is_undefined():
    ref = maps(2, 9)
    pred = torch.stack([torch.full((9,), 0.3), ref[1]])
    assert F.iou_at_k(pred, ref, 3).isnan().tolist() == [True, False]
    assert F.iou_at_k(ref, pred, 3).isnan().tolist() == [True, False]


def test_iou_at_k_of_broken_and_no_maps():
    pred, ref = maps(2, 9), maps(2, 9, seed=1)
    pred[0, 0] = torch.inf
    assert F.iou_at_k(pred, ref, 5).isnan().tolist() == [True, False]
    assert F.iou_at_k(pred[:0], ref[:0], 5).shape == (0,)


@pytest.mark.parametrize("k", [0, -1, 10])
def test_iou_at_k_refuses_k_out_of_range(k):
    assert "k has to be from 1 to 9" in refusal(F.iou_at_k, maps(2, 9), maps(2, 9), k)


def test_centred_correlation_against_numpy():
    position = 5 * maps(1, 9, seed=9)
    pred, ref = maps(6, 9) + position, maps(6, 9, seed=1) - position
    a, b = pred.double().numpy(), ref.double().numpy()
    expected = [np.corrcoef(p, r)[0, 1] for p, r in zip(a - a.mean(0), b - b.mean(0), strict=True)]
    np.testing.assert_allclose(F.centred_correlation(pred, ref), expected, rtol=1e-10)


@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_centred_correlation_gives_a_position_prior_nothing(scale):
    ref = maps(30, 16, seed=1) * scale
    prior = (maps(1, 16) * scale).expand(30, -1)
    assert F.centred_correlation(prior, ref).isnan().all()
    assert F.centred_correlation(ref, prior).isnan().all()
    assert F.centred_correlation(ref + prior, ref).min() > 0.999
    rounded = prior.clone()
    rounded[::2] = torch.nextafter(prior[::2], torch.tensor(torch.inf))
    assert not torch.equal(rounded, prior)
    assert F.centred_correlation(rounded, ref).isnan().all()


def test_centred_correlation_of_one_image_or_one_patch_is_undefined():
    assert F.centred_correlation(maps(1, 9), maps(1, 9, seed=1)).isnan().all()
    assert F.centred_correlation(maps(5, 1), maps(5, 1, seed=1)).isnan().all()
    assert F.centred_correlation(maps(0, 9), maps(0, 9)).shape == (0,)


@pytest.mark.parametrize("function", [F.squared_explanation_error, F.kendall, F.centred_correlation])
@pytest.mark.parametrize("shapes", [((3, 9), (3, 8)), ((3, 9), (2, 9)), ((3, 3, 3), (3, 3, 3)), ((3, 0), (3, 0))])
def test_shapes_that_do_not_belong_together_are_refused(function, shapes):
    assert "[N, M]" in refusal(function, torch.zeros(shapes[0]), torch.zeros(shapes[1]))
