"""How far predicted maps agree with reference maps, image by image.

Maps are [N, M], N images of M patches. Every result is float64 [N] on the maps' device. A map holding NaN gives NaN.
"""

import math

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.rounding import at_least_float32, is_constant, tolerance

_PAIR_BUDGET = 2**20
"""Patch pairs held at once in `kendall`; below 2^24, so that float32 counts them exactly."""


def normalise(u: Tensor) -> Tensor:
    """Norm(u) of eq. 5 (explainability vectors): (u - mean) / population standard deviation over the last axis.

    A constant map carries no explanation and becomes all zeros, with zero gradient. Differentiable. The result does not
    change when u is shifted or scaled by a positive number.

    Args:
        u: [..., M], M >= 1; types narrower than float32 are computed and returned in float32.

    Raises:
        UserError: There is no patch to normalise over.
    """
    if u.ndim == 0 or u.shape[-1] == 0:
        raise UserError(f"cannot normalise maps of shape {tuple(u.shape)}; they need M >= 1 patches, [..., M]")
    wide = at_least_float32(u)
    return _standardise(wide, is_constant(wide))


def squared_explanation_error(pred: Tensor, ref: Tensor) -> Tensor:
    """L_exp of eq. 5 (explainability vectors) of each image: mean over patches of (Norm(pred) - Norm(ref))^2.

    Equation 5 writes the squared norm, a sum over patches. The E-RMSE = sqrt(L_exp) the paper prints (uncorrelated maps
    about sqrt 2, a constant map 1) is only possible with the mean over patches, so the mean it is. The value is
    2 - 2 r with r the Pearson correlation of the two maps.

    Args:
        pred: [N, M].
        ref: [N, M].

    Returns:
        [N] in [0, 4]; 1 when one of the maps is constant, 0 when both are.

    Raises:
        UserError: The shapes differ or are not [N, M].
    """
    _check_pair(pred, ref)
    difference = _standardise(pred.double(), is_constant(pred)) - _standardise(ref.double(), is_constant(ref))
    return difference.square().mean(-1)


def e_rmse(pred: Tensor, ref: Tensor) -> Tensor:
    """E-RMSE (explainability vectors, section 6.1): root of the mean `squared_explanation_error` over images, a scalar.

    NaN for no images.
    """
    return squared_explanation_error(pred, ref).mean().sqrt()


def kendall(pred: Tensor, ref: Tensor) -> Tensor:
    """Kendall's rank correlation tau-b (Kendall 1945) of each image, all M (M - 1) / 2 pairs of patches compared.

    Args:
        pred: [N, M].
        ref: [N, M].

    Returns:
        [N] in [-1, 1]; NaN where either map is constant.

    Raises:
        UserError: The shapes differ or are not [N, M].
    """
    _check_pair(pred, ref)
    images, patches = pred.shape
    x, tied_x = _ranks(pred)
    y, tied_y = _ranks(ref)
    excess = torch.zeros(images, dtype=torch.float64, device=pred.device)
    step, rows = max(1, _PAIR_BUDGET // patches**2), max(1, min(patches, _PAIR_BUDGET // patches))
    for first in range(0, images, step):
        part = slice(first, first + step)
        for row in range(0, patches, rows):
            block = slice(row, row + rows)
            order = (x[part, block, None] - x[part, None, :]).sign_()
            order *= (y[part, block, None] - y[part, None, :]).sign_()
            excess[part] += order.sum((1, 2))
    pairs = patches * (patches - 1) / 2
    tau = (excess / 2 / ((pairs - tied_x) * (pairs - tied_y)).sqrt()).clamp(-1, 1)
    return tau.masked_fill(is_constant(pred) | is_constant(ref) | _broken(pred, ref), torch.nan)


def iou_at_k(pred: Tensor, ref: Tensor, k: int) -> Tensor:
    """IoU@k (explainability vectors, section 6.2): |A and B| / |A or B| of the sets A, B of the k largest patches.

    Of patches with the same value the one that comes first in patch order (row by row from the top left) counts as the
    larger, so that the value is the same on every machine. A constant map has no largest patches: it is undefined.

    Args:
        pred: [N, M].
        ref: [N, M].
        k: From 1 to M.

    Returns:
        [N] in [0, 1]; NaN where either map is constant.

    Raises:
        UserError: The shapes differ or are not [N, M], or k is out of range.
    """
    _check_pair(pred, ref)
    if not 1 <= k <= pred.shape[1]:
        raise UserError(f"IoU@{k} of maps with {pred.shape[1]} patches; k has to be from 1 to {pred.shape[1]}")
    chosen = torch.zeros(pred.shape, dtype=torch.bool, device=pred.device).scatter_(1, largest(pred, k), True)
    shared = chosen.gather(1, largest(ref, k)).sum(1).double()
    undefined = _broken(pred, ref) | is_constant(pred) | is_constant(ref)
    return (shared / (2 * k - shared)).masked_fill(undefined, torch.nan)


def centred_correlation(pred: Tensor, ref: Tensor) -> Tensor:
    """Pearson correlation of each image after the mean map over the N images is taken off both sides.

    What position alone explains (objects sit in the middle) is in the mean maps, so a map that is the same for every
    image is undefined here instead of rewarded. Per-image scales count: the mean is that of the maps as they are.

    Args:
        pred: [N, M].
        ref: [N, M].

    Returns:
        [N] in [-1, 1]; NaN where either remainder is constant. One map that is not finite makes all NaN.

    Raises:
        UserError: The shapes differ or are not [N, M].
    """
    _check_pair(pred, ref)
    first, second = (_difference(maps, maps.double().mean(0, keepdim=True)) for maps in (pred, ref))
    return _correlation(*first, *second)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson correlation of two maps of each image.

    Args:
        a: [N, M].
        b: [N, M].

    Returns:
        [N] in [-1, 1]; NaN where either is constant.

    Raises:
        UserError: The shapes differ or are not [N, M].
    """
    _check_pair(a, b)
    return _correlation(a.double(), is_constant(a), b.double(), is_constant(b))


def contrast(pred: Tensor, pred_second: Tensor, ref: Tensor, ref_second: Tensor) -> Tensor:
    """How far maps differ between two classes as their references do: Pearson correlation of the two differences.

    corr(p_y - p_o, phi_y - phi_o) over patches. What maps of all classes have in common, such as where the object is,
    is in neither difference: a map that does not depend on the class is undefined here instead of rewarded.

    Args:
        pred: [N, M], maps of the class y.
        pred_second: [N, M], maps of the other class o.
        ref: [N, M], references of y.
        ref_second: [N, M], references of o.

    Returns:
        [N] in [-1, 1]; NaN where either difference is constant, or no more than rounding.

    Raises:
        UserError: The shapes differ or are not [N, M].
    """
    for other in (pred_second, ref, ref_second):
        _check_pair(pred, other)
    return _correlation(*_difference(pred, pred_second), *_difference(ref, ref_second))


def _check_pair(pred: Tensor, ref: Tensor) -> None:
    """Raise UserError unless both are [N, M] alike with M >= 1."""
    if pred.shape != ref.shape or pred.ndim != 2 or pred.shape[1] == 0:
        raise UserError(
            f"cannot compare maps of shape {tuple(pred.shape)} with a reference of shape {tuple(ref.shape)}; "
            "both have to be [N, M], N images of the same M >= 1 patches"
        )


def largest(u: Tensor, k: int) -> Tensor:
    """Indices [N, k] of the k largest entries of u [N, M], largest first, ties in patch order."""
    return u.sort(dim=1, descending=True, stable=True).indices[:, :k]


def _standardise(u: Tensor, constant: Tensor) -> Tensor:
    """(u - mean) / std over the last axis; zeros, with zero gradient, for the rows [...] that are `constant`."""
    flat = constant[..., None]
    # Shift and scale may be detached because the result depends on neither. They are taken off first so that squares
    # neither underflow nor cancel in float32, and masked before the root so that no infinite slope meets a zero.
    shifted = u - u.detach().mean(-1, keepdim=True)
    scale = shifted.detach().abs().amax(-1, keepdim=True).masked_fill(flat, 1.0)
    z = (shifted / scale).masked_fill(flat, 0.0)
    z = z - z.mean(-1, keepdim=True)
    variance = z.square().mean(-1, keepdim=True).masked_fill(flat, 1.0)
    return z / variance.sqrt()


def _ranks(u: Tensor) -> tuple[Tensor, Tensor]:
    """Ranks as float32 [N, M], equal for equal values, and the number of tied pairs as float64 [N]."""
    below, not_above = places(u)
    return below.float(), (not_above - below - 1).sum(-1).double() / 2


def places(u: Tensor) -> tuple[Tensor, Tensor]:
    """How many entries of a row of u [N, M] are below each of its entries, and how many are not above it."""
    values = at_least_float32(u.detach()).contiguous()
    ordered = values.sort(-1).values.contiguous()
    return torch.searchsorted(ordered, values), torch.searchsorted(ordered, values, right=True)


def _difference(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """The difference a - b of maps [N, M] and [N or 1, M], in float64, and where [N] it is no more than rounding."""
    rest = a.double() - b.double()
    magnitude = torch.maximum(a.abs().amax(-1), b.abs().amax(-1)).double()
    return rest, rest.amax(-1) - rest.amin(-1) <= tolerance(a) * magnitude


def _correlation(a: Tensor, flat_a: Tensor, b: Tensor, flat_b: Tensor) -> Tensor:
    """Pearson correlation [N] over the last axis, NaN where one of the two is said to be flat."""
    value = (_standardise(a, flat_a) * _standardise(b, flat_b)).mean(-1).clamp(-1, 1)
    return value.masked_fill(flat_a | flat_b, torch.nan)


def _broken(pred: Tensor, ref: Tensor) -> Tensor:
    return ~(pred.isfinite() & ref.isfinite()).all(-1)


def expected_iou(patches: int, k: int) -> float:
    """IoU@k expected of random maps: mean of i / (2k - i), the overlap i of two k-subsets being hypergeometric."""
    # Shares of all subsets, whose number is no float where patches are many.
    total = math.comb(patches, k)
    shares = (math.comb(k, i) * math.comb(patches - k, k - i) * i / ((2 * k - i) * total) for i in range(1, k + 1))
    return math.fsum(shares)
