"""Task arithmetic: what fine-tuning did to a network, as vectors that can be added, compared, stored and lent.

Equation numbers are those of "Transferring visual explainability" (Yoshikawa et al.). Parameters theta and vectors tau
alike are mappings of names to floating-point tensors, and sums are accumulated in float64. Every function that takes
several raises UserError where their names or shapes differ, and every function where a tensor is of integers.
"""

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from xai.core.errors import UserError
from xai.core.settings import Share, build, settings
from xai.models.weights import check_finite, match_weights, printable, read_weights, write_weights

Vector = dict[str, Tensor]
Parameters = Mapping[str, Tensor]

FORMAT_VERSION = 1
METADATA_KEY = "xai.vector"


def difference(a: Parameters, b: Parameters) -> Vector:
    """Subtract parameters: a - b.

    The task vector of section 3 is tau = theta_ft - theta_base; the explainability vector, defined below equation 6, is
    tau_* = theta_ft* - theta_ft. Differences of half-precision parameters are float32, which half would round away.
    """
    return _combine([(1.0, a), (-1.0, b)])


def add(*vectors: Parameters) -> Vector:
    """Sum vectors: the sum over m of tau_m in equation 1."""
    return _combine([(1.0, vector) for vector in vectors])


def scale(vector: Parameters, factor: float) -> Vector:
    """Multiply a vector by a number, lambda in equations 1, 3 and 8.

    Raises:
        UserError: The factor is not finite.
    """
    return _combine([(factor, vector)])


def apply(base: Parameters, scaled_vectors: Sequence[tuple[float, Parameters]]) -> Vector:
    """Add scaled vectors to parameters: theta = theta_base + sum of lambda_m tau_m (equations 1, 3 and 8).

    Args:
        base: theta_base; the result has its types.
        scaled_vectors: Pairs (lambda_m, tau_m).

    Raises:
        UserError: A factor is not finite.
    """
    return _combine([(1.0, base), *scaled_vectors], types=base)


def analogy(tau_a: Parameters, tau_b: Parameters, tau_c: Parameters) -> Vector:
    """Complete "a is to b as c is to d": tau_d = tau_c - tau_a + tau_b (equation 2).

    With a = ft and b = ft* of the source, c = ft of the target, it is equation 7.
    """
    return _combine([(-1.0, tau_a), (1.0, tau_b), (1.0, tau_c)])


def transfer(
    base: Parameters, tau_target: Parameters, tau_star: Parameters, lambda1: float = 1.0, lambda2: float = 1.0
) -> Vector:
    """Give a target classifier the explanations of another domain (equation 8).

    Args:
        base: theta_base; the result has its types.
        tau_target: tau_ft^T, what fine-tuning for classification in the target domain did to theta_base.
        tau_star: tau_*^S, the explainability vector of the source domain.
        lambda1: How much of the classification.
        lambda2: How much of the explanation.

    Raises:
        UserError: A factor is not finite.
    """
    return apply(base, [(lambda1, tau_target), (lambda2, tau_star)])


def norm(v: Parameters) -> float:
    """Euclidean norm over all tensors."""
    return math.sqrt(dot(v, v))


def dot(u: Parameters, v: Parameters) -> float:
    """Inner product over all tensors."""
    _check_alike([u, v])
    return sum(float((_wide(u[name]) * _wide(v[name])).sum()) for name in u)


def cosine_similarity(u: Parameters, v: Parameters) -> float:
    """How far two vectors point the same way, between -1 and 1 (appendix C); NaN if one of them is zero."""
    inner, size = dot(u, v), norm(u) * norm(v)
    return max(-1.0, min(1.0, inner / size)) if size else math.nan


def random_like(v: Parameters, generator: torch.Generator) -> Vector:
    """Draw a direction at random and give it the norm of v in each tensor: the control that knows nothing.

    The order of the mapping makes no difference to the draw.

    Args:
        v: The vector to be matched.
        generator: On the CPU, so that the same seed draws the same on every device.
    """
    _check_alike([v])
    drawn = {}
    for name in sorted(v):
        noise = torch.randn(v[name].shape, generator=generator).to(v[name].device)
        size = torch.linalg.vector_norm(_wide(v[name]))
        drawn[name] = (_wide(noise) * (size / torch.linalg.vector_norm(_wide(noise)))).to(v[name].dtype)
    return {name: drawn[name] for name in v}


def hessian_product(loss: Callable[[Vector], Tensor], params: Parameters, tau: Parameters) -> Vector:
    """Multiply the Hessian of a loss at params with tau, by differentiating the gradient along tau.

    Args:
        loss: Maps parameters to a scalar, such as the classification loss over a batch.
        params: Where the loss is expanded, theta_ft^T in equation 12.
        tau: The direction.

    Raises:
        ValueError: The loss is not a scalar, or does not depend on the parameters.
    """
    return next(hessian_products(loss, params, [tau]))[1]


def hessian_products(
    loss: Callable[[Vector], Tensor], params: Parameters, directions: Iterable[Parameters]
) -> Iterator[tuple[Parameters, Vector]]:
    """Several directions, each with its `hessian_product`, from one gradient."""
    leaves = {name: value.detach().clone().requires_grad_() for name, value in params.items()}
    inputs = list(leaves.values())
    # The fused kernels of attention have no second derivative.
    with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
        value = loss(leaves)
        if value.ndim or not value.requires_grad:
            raise ValueError(f"the loss is to be a scalar that depends on the parameters, not {value}")
        gradient = torch.autograd.grad(value, inputs, create_graph=True, materialize_grads=True)
    for tau in directions:
        _check_alike([params, tau])
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            along = sum((g * tau[name].to(g)).sum() for name, g in zip(leaves, gradient, strict=True))
        if not isinstance(along, Tensor) or not along.requires_grad:  # a linear loss
            yield tau, {name: torch.zeros_like(value) for name, value in params.items()}
            continue
        products = torch.autograd.grad(along, inputs, retain_graph=True, materialize_grads=True)
        yield tau, dict(zip(leaves, products, strict=True))


def curvature_risk(loss: Callable[[Vector], Tensor], params: Parameters, tau: Parameters) -> float:
    """Risk to the classification of adding tau: R = tau^T H tau (equations 12 and 16), H the Hessian of the loss.

    To second order the loss grows by half of it, where the gradient is zero. For a loss that is a mean over images, the
    mean of R over batches of equal size is R over all of them.

    Raises:
        ValueError: The loss is not a scalar, or does not depend on the parameters.
    """
    return dot(hessian_product(loss, params, tau), tau)


def hessian_diagonal(
    loss: Callable[[Vector], Tensor], params: Parameters, generator: torch.Generator, samples: int = 16
) -> Vector:
    """Estimate the diagonal of the Hessian without bias (Hutchinson): the mean of z * Hz over random signs z.

    Exact from one sample where the Hessian is diagonal; otherwise entry i has variance 1/samples times the sum of
    H_ij^2 over j other than i. It is of the size of the parameters, and can be stored like them (appendix A).

    Raises:
        UserError: Fewer than one sample.
        ValueError: The loss is not a scalar, or does not depend on the parameters.
    """
    if samples < 1:
        raise UserError(f"samples={samples} gives no estimate of the diagonal: use at least 1")
    total = {name: torch.zeros_like(value) for name, value in params.items()}
    drawn = ({name: _signs(value, generator) for name, value in params.items()} for _ in range(samples))
    for signs, products in hessian_products(loss, params, drawn):
        for name, product in products.items():
            total[name] += signs[name] * product / samples
    return total


def _signs(value: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, value.shape, generator=generator).mul(2).sub(1).to(value)


def diagonal_curvature_risk(diagonal: Parameters, tau: Parameters) -> float:
    """Risk as in equation 16 with nothing but the diagonal of H, the approximation that appendix A proposes.

    It needs no data of the target domain: a diagonal that is kept with a classifier ranks the vectors it is offered.

    Args:
        diagonal: Diagonal of the Hessian of the classification loss, from `hessian_diagonal`.
        tau: The explainability vector.
    """
    _check_alike([diagonal, tau])
    return sum(float((_wide(diagonal[name]) * _wide(tau[name]).square()).sum()) for name in tau)


def optimal_perturbation(hessian: Tensor, gradient: Tensor, alpha: float) -> Tensor:
    """What the explainability vector is to second order: -(1 - alpha)/alpha H^-1 g (equations 11 and 15).

    It minimises alpha L_cls + (1 - alpha) L_exp, where L_cls is quadratic around its minimum and L_exp linear.

    Args:
        hessian: [D, D], of L_cls; positive definite.
        gradient: [D], of L_exp.
        alpha: In (0, 1].

    Raises:
        UserError: Alpha is outside (0, 1], or the Hessian is singular or not positive definite.
    """
    if not 0 < alpha <= 1:
        raise UserError(f"alpha={alpha} has no optimal perturbation: use a number in (0, 1]")
    factor, failed = torch.linalg.cholesky_ex(hessian)
    if failed:
        raise UserError("the Hessian is not positive definite, so there is no minimum: expand around a minimum")
    return -(1 - alpha) / alpha * torch.cholesky_solve(gradient[:, None], factor)[:, 0]


@settings
class VectorInfo:
    """Where an explainability vector comes from, kept in its file.

    Args:
        model: Name of the model configuration, such as clip_tiny.
        architecture: Hash of the names and shapes of its parameters.
        base: Fingerprint of theta_base.
        source: Name of the source data set.
        alpha: Weight of the classification loss (equation 4), in [0, 1].
        seed: Seed of the run.
        ft: Fingerprint of theta_ft.
        ft_star: Fingerprint of theta_ft*.
        xai_version: The version that wrote it.
        format_version: Of the metadata.
    """

    model: str
    architecture: str
    base: str
    source: str
    alpha: Share
    seed: int
    ft: str
    ft_star: str
    xai_version: str
    format_version: int = FORMAT_VERSION


def save_vector(path: str | Path, vector: Parameters, info: VectorInfo) -> None:
    """Write a vector and where it comes from as safetensors, atomically.

    Raises:
        UserError: The vector is not of floating point or has NaN or infinity in it, or the path cannot be written.
    """
    _check_alike([vector])
    check_finite(vector, "the vector")
    write_weights(path, vector, {METADATA_KEY: json.dumps(asdict(info), sort_keys=True, allow_nan=False)})


def load_vector(path: str | Path) -> tuple[Vector, VectorInfo]:
    """Read a vector and where it comes from.

    Raises:
        UserError: The file is missing, truncated, a checkpoint, written by a newer version, or its vector or metadata
            cannot be right.
    """
    label = f"vector {printable(str(path))}"
    weights = read_weights(path, what="vector", require_finite=True)
    if METADATA_KEY not in weights.metadata:
        raise UserError(f"{label} is a checkpoint, not an explainability vector: give one that study=vectors wrote")
    info = _read_info(weights.metadata[METADATA_KEY], label)
    _check_alike([weights.tensors])
    return weights.tensors, info


def check_compatible(
    info: VectorInfo,
    vector: Parameters,
    *,
    model: str,
    architecture: str,
    base: str | None,
    parameters: Parameters,
) -> str | None:
    """Check that a vector can be added to a model's parameters.

    Args:
        info: Where the vector comes from.
        vector: The vector.
        model: Name of the model's configuration.
        architecture: Hash of the names and shapes of its parameters.
        base: Fingerprint of the weights it was fine-tuned from; None if nobody knows.
        parameters: Its parameters.

    Returns:
        A warning, one line, if the base is unknown; otherwise None.

    Raises:
        UserError: The vector is of another architecture or another base, or does not have the parameters it claims.
    """
    if info.architecture != architecture:
        raise UserError(
            f"the vector is for model={printable(info.model)} ({printable(info.architecture)}), this is model={model} "
            f"({architecture}), another architecture: use a vector learned with model={model}"
        )
    shapes = {name: value.shape for name, value in parameters.items()}
    match_weights(vector, shapes, what="the vector", model=model)
    check_finite(vector, "the vector")
    if base is None:
        return f"nobody knows what this model={model} was fine-tuned from; the vector needs base {printable(info.base)}"
    if info.base != base:
        raise UserError(
            f"the vector starts from base {printable(info.base)}, this model={model} from base {base}: "
            "use a vector and a classifier that were fine-tuned from the same base weights"
        )
    return None


def _read_info(text: str, label: str) -> VectorInfo:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise UserError(f"{label} has metadata that cannot be read: get a whole copy")
    version = values.get("format_version")
    # Before the names: a later format may well have others.
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise UserError(f"{label} has format version {version}, this xai reads up to {FORMAT_VERSION}: use a newer xai")
    if version != FORMAT_VERSION:
        raise UserError(f"{label} has format version {printable(repr(version))}: use {FORMAT_VERSION}")
    names = {field.name for field in fields(VectorInfo)}
    if wrong := sorted(names ^ values.keys()):
        few = printable(", ".join(wrong))
        raise UserError(f"{label} has metadata with missing or unknown entries ({few}): get a whole copy")
    return build(VectorInfo, values, f"{label}: metadata")


def _wide(value: Tensor) -> Tensor:
    """The type sums are accumulated in; Apple's GPUs have no float64."""
    return value.detach().to(torch.float32 if value.device.type == "mps" else torch.float64)


def _combine(terms: Sequence[tuple[float, Parameters]], types: Parameters | None = None) -> Vector:
    """Weighted sum, at least float32 unless types are given: the one place where parameters are added."""
    _check_alike([vector for _, vector in terms])
    for factor, _ in terms:
        if not math.isfinite(factor):
            raise UserError(f"a vector cannot be scaled by {factor}: use a finite number")
    total = {}
    for name, first in terms[0][1].items():
        summed = torch.zeros_like(_wide(first))
        for factor, vector in terms:
            summed += _wide(vector[name].to(first.device)) * factor
        dtype = reduce(torch.promote_types, (vector[name].dtype for _, vector in terms), torch.float32)
        total[name] = summed.to(dtype if types is None else types[name].dtype)
    return total


def _check_alike(vectors: Sequence[Parameters]) -> None:
    """Refuse vectors of different names or shapes, and what is not of floating point."""
    if not vectors or not vectors[0]:
        raise UserError("there is no vector to compute with: give at least one, with at least one tensor")
    first = vectors[0]
    for vector in vectors:
        if strange := sorted(first.keys() ^ vector.keys()):
            few = ", ".join(strange[:3])
            raise UserError(f"vectors differ in {len(strange)} names ({few}): use vectors of the same architecture")
        for name, value in vector.items():
            if value.shape != first[name].shape:
                shapes = f"{list(first[name].shape)} and {list(value.shape)}"
                raise UserError(f"vectors differ in the shape of {name}, {shapes}: use the same architecture")
            if not value.is_floating_point():
                raise UserError(f"{name} is {value.dtype}: vectors are made of floating-point parameters only")
