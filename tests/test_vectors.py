import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.optimize
import scipy.spatial.distance
import torch
from torch import Tensor, nn

from tests import toolbox
from tests.toolbox import there
from xai import vectors
from xai.models.weights import fingerprint, write_weights
from xai.vectors import Vector, VectorInfo

SHAPES = {"visual.conv.weight": (3, 2, 2), "visual.scale": (), "visual.bias": (5,)}


def draw(seed: int, dtype: torch.dtype = torch.float32) -> Vector:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator).to(dtype) for name, shape in SHAPES.items()}


def flat(vector: Vector) -> np.ndarray:
    return np.concatenate([vector[name].double().numpy().ravel() for name in sorted(vector)])


def close(got: Vector, expected: np.ndarray, tolerance: float = 1e-6) -> None:
    assert got.keys() == SHAPES.keys()
    assert all(got[name].shape == shape for name, shape in SHAPES.items())
    np.testing.assert_allclose(flat(got), expected, rtol=tolerance, atol=tolerance)


def test_arithmetic_against_numpy_in_float64() -> None:
    a, b, c = draw(1), draw(2), draw(3)
    x, y, z = flat(a), flat(b), flat(c)
    close(vectors.difference(a, b), x - y)
    close(vectors.add(a, b, c), x + y + z)
    close(vectors.add(a), x)
    close(vectors.scale(a, -0.7), -0.7 * x)
    close(vectors.apply(a, [(0.3, b), (-2.0, c)]), x + 0.3 * y - 2.0 * z)
    close(vectors.apply(a, []), x, 0)
    close(vectors.transfer(a, b, c, 0.9, 0.4), x + 0.9 * y + 0.4 * z)
    close(vectors.transfer(a, b, c), x + y + z)
    close(vectors.analogy(a, b, c), z - x + y)


def test_equation_7_is_equation_8_with_both_lambdas_one() -> None:
    base, ft_source, star_source, ft_target = (draw(seed) for seed in range(4))
    tau = [vectors.difference(theta, base) for theta in (ft_source, star_source, ft_target)]
    by_analogy = vectors.apply(base, [(1.0, vectors.analogy(*tau))])
    tau_star = vectors.difference(star_source, ft_source)
    close(by_analogy, flat(vectors.transfer(base, tau[2], tau_star, 1.0, 1.0)))
    close(by_analogy, flat(ft_target) + flat(star_source) - flat(ft_source))


def test_inputs_are_left_alone_and_keep_no_graph() -> None:
    a = {name: nn.Parameter(value) for name, value in draw(1).items()}
    before = flat(vectors.scale(a, 1.0))
    got = vectors.apply(a, [(1.0, draw(2))])
    assert not any(value.requires_grad for value in got.values())
    for value in got.values():
        value.zero_()
    np.testing.assert_array_equal(flat(vectors.scale(a, 1.0)), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_wide_and_rounded_once(dtype: torch.dtype) -> None:
    base, ft = draw(1, dtype), draw(2, dtype)
    tau = vectors.difference(ft, base)
    assert {value.dtype for value in tau.values()} == {torch.float32}
    close(tau, flat(ft) - flat(base))
    back = vectors.apply(base, [(1.0, tau)])
    assert {value.dtype for value in back.values()} == {dtype}
    np.testing.assert_array_equal(flat(back), flat(ft))


def test_many_small_steps_are_not_lost_in_half_precision() -> None:
    base, step = {"w": torch.tensor([1.0], dtype=torch.bfloat16)}, {"w": torch.tensor([0.001], dtype=torch.bfloat16)}
    got = vectors.apply(base, [(1.0, step)] * 1000)["w"]
    assert got.item() == pytest.approx(2.0, rel=0.01)


def test_float64_stays_float64() -> None:
    a, b = draw(1, torch.float64), draw(2, torch.float64)
    assert {value.dtype for value in vectors.add(a, b).values()} == {torch.float64}
    np.testing.assert_array_equal(flat(vectors.difference(a, b)), flat(a) - flat(b))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_factors_have_to_be_finite(bad: float) -> None:
    a = draw(1)
    for call in (
        lambda: vectors.scale(a, bad),
        lambda: vectors.apply(a, [(1.0, a), (bad, a)]),
        lambda: vectors.transfer(a, a, a, bad, 1.0),
        lambda: vectors.transfer(a, a, a, 1.0, bad),
    ):
        assert "finite" in toolbox.refusal(call)


@pytest.mark.parametrize(
    "call",
    [
        vectors.difference,
        vectors.add,
        vectors.dot,
        vectors.cosine_similarity,
        vectors.diagonal_curvature_risk,
        lambda a, b: vectors.apply(a, [(1.0, b)]),
        lambda a, b: vectors.transfer(a, a, b),
        lambda a, b: vectors.analogy(a, a, b),
        lambda a, b: vectors.curvature_risk(lambda p: p["visual.scale"] ** 2, a, b),
    ],
)
def test_vectors_that_do_not_match_are_refused(call: Callable[[Vector, Vector], Any]) -> None:
    a = draw(1)
    less = {name: value for name, value in a.items() if name != "visual.bias"}
    # Shapes that broadcasting would let pass.
    broadcast = {**a, "visual.bias": torch.ones(1)}
    integers = {**a, "visual.bias": torch.ones(5, dtype=torch.int64)}
    assert "visual.bias" in toolbox.refusal(call, a, less)
    assert "visual.bias" in toolbox.refusal(call, less, a)
    assert "visual.bias, [5] and [1]" in toolbox.refusal(call, a, broadcast)
    assert "visual.bias is torch.int64" in toolbox.refusal(call, a, integers)


def test_nothing_is_no_vector() -> None:
    assert "no vector" in toolbox.refusal(vectors.add)
    assert "no vector" in toolbox.refusal(vectors.norm, {})


def test_norm_dot_and_similarity_against_scipy() -> None:
    u, v = draw(1), draw(2)
    x, y = flat(u), flat(v)
    assert vectors.norm(u) == pytest.approx(np.linalg.norm(x), rel=1e-12)
    assert vectors.dot(u, v) == pytest.approx(x @ y, rel=1e-12)
    assert vectors.cosine_similarity(u, v) == pytest.approx(1 - scipy.spatial.distance.cosine(x, y), rel=1e-12)


def test_similarity_at_its_ends() -> None:
    u = draw(1)
    zero = vectors.scale(u, 0.0)
    assert vectors.cosine_similarity(u, vectors.scale(u, 3.0)) == pytest.approx(1.0)
    assert vectors.cosine_similarity(u, vectors.scale(u, -3.0)) == pytest.approx(-1.0)
    assert all(abs(vectors.cosine_similarity(draw(seed), draw(seed))) <= 1 for seed in range(20))
    assert math.isnan(vectors.cosine_similarity(u, zero))
    assert vectors.norm(zero) == 0


def test_norms_are_accumulated_wide() -> None:
    assert vectors.norm({"w": torch.full((4,), 300.0, dtype=torch.float16)}) == 600


def test_random_like_has_the_norms_and_nothing_else() -> None:
    tau = {"big": torch.randn(200, 100) * 3, "small": torch.randn(2000) * 1e-3, "zero": torch.zeros(7)}
    got = vectors.random_like(tau, torch.Generator().manual_seed(0))
    for name, value in tau.items():
        assert got[name].shape == value.shape
        assert float(got[name].norm()) == pytest.approx(float(value.norm()), rel=1e-5)
    assert abs(vectors.cosine_similarity(tau, got)) < 0.05
    # Gaussian: the fourth moment is three times the square of the second.
    noise = got["big"].double()
    assert float(noise.pow(4).mean() / noise.pow(2).mean() ** 2) == pytest.approx(3, abs=0.15)


def test_random_like_depends_on_the_seed_alone() -> None:
    tau = draw(1)
    one = vectors.random_like(tau, torch.Generator().manual_seed(5))
    turned = vectors.random_like(dict(reversed(tau.items())), torch.Generator().manual_seed(5))
    other = vectors.random_like(tau, torch.Generator().manual_seed(6))
    assert list(one) == list(tau)
    np.testing.assert_array_equal(flat(one), flat(turned))
    assert not np.allclose(flat(one), flat(other))


def network_loss() -> tuple[Callable[[Vector], Tensor], Vector]:
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(6, 4, generator=generator).double(), torch.tensor([0, 1, 2, 0, 1, 2])
    params = {
        "first": torch.randn(4, 3, generator=generator).double(),
        "second": torch.randn(3, 3, generator=generator).double(),
    }

    def loss(p: Vector) -> Tensor:
        return nn.functional.cross_entropy((images @ p["first"]).tanh() @ p["second"], labels)

    return loss, params


def dense_hessian(loss: Callable[[Vector], Tensor], params: Vector) -> Tensor:
    shapes = {name: value.shape for name, value in params.items()}
    sizes = [value.numel() for value in params.values()]

    def of_flat(theta: Tensor) -> Tensor:
        parts = theta.split(sizes)
        return loss({name: part.reshape(shapes[name]) for name, part in zip(shapes, parts, strict=True)})

    start = torch.cat([value.reshape(-1) for value in params.values()])
    return torch.autograd.functional.hessian(of_flat, start)


def like(params: Vector, theta: Tensor) -> Vector:
    parts = theta.split([value.numel() for value in params.values()])
    return {name: part.reshape(params[name].shape) for name, part in zip(params, parts, strict=True)}


def test_curvature_risk_against_the_dense_hessian_and_its_eigenvalues() -> None:
    loss, params = network_loss()
    hessian = dense_hessian(loss, params)
    theta = torch.randn(len(hessian), generator=torch.Generator().manual_seed(1)).double()
    tau = like(params, theta)
    got = vectors.curvature_risk(loss, params, tau)
    assert got == pytest.approx(float(theta @ hessian @ theta), rel=1e-10)
    values, directions = torch.linalg.eigh(hessian)
    assert got == pytest.approx(float((values * (directions.T @ theta) ** 2).sum()), rel=1e-10)
    product = torch.cat([value.reshape(-1) for value in vectors.hessian_product(loss, params, tau).values()])
    np.testing.assert_allclose(product, hessian @ theta, rtol=1e-9, atol=1e-12)


def test_curvature_risk_leaves_parameters_and_outer_no_grad_alone() -> None:
    loss, params = network_loss()
    before = fingerprint(params)
    with torch.no_grad():
        inside = vectors.curvature_risk(loss, params, params)
        assert not torch.is_grad_enabled()
    assert inside == vectors.curvature_risk(loss, params, params)
    assert fingerprint(params) == before
    assert not any(value.requires_grad for value in params.values())


def test_curvature_of_linear_partial_and_constant_losses() -> None:
    params = {"used": torch.tensor([2.0, 3.0]), "unused": torch.tensor([1.0])}
    tau = {"used": torch.tensor([1.0, 2.0]), "unused": torch.tensor([9.0])}
    assert vectors.curvature_risk(lambda p: p["used"].sum() * 3, params, tau) == 0
    assert vectors.curvature_risk(lambda p: (p["used"] ** 2).sum(), params, tau) == 2 * (1 + 4)
    with pytest.raises(ValueError, match="depends"):
        vectors.curvature_risk(lambda p: torch.tensor(1.0), params, tau)
    with pytest.raises(ValueError, match="scalar"):
        vectors.curvature_risk(lambda p: p["used"], params, tau)


def test_curvature_through_fused_attention() -> None:
    generator = torch.Generator().manual_seed(0)
    queries = torch.randn(1, 2, 5, 8, generator=generator)
    params, tau = ({"keys": torch.randn(1, 2, 5, 8, generator=generator)} for _ in range(2))

    def fused(p: Vector) -> Tensor:
        return nn.functional.scaled_dot_product_attention(queries, p["keys"], p["keys"]).square().mean()

    def plain(p: Vector) -> Tensor:
        scores = (queries @ p["keys"].transpose(-1, -2) / math.sqrt(8)).softmax(-1)
        return (scores @ p["keys"]).square().mean()

    expected = vectors.curvature_risk(plain, params, tau)
    assert vectors.curvature_risk(fused, params, tau) == pytest.approx(expected, rel=1e-4)


def test_a_diagonal_hessian_is_found_exactly_from_one_sample() -> None:
    curvature = {"a": torch.tensor([1.0, 5.0]), "b": torch.tensor([[0.0, 2.0]])}
    params = {name: torch.ones_like(value) for name, value in curvature.items()}
    tau = {"a": torch.tensor([1.0, -1.0]), "b": torch.tensor([[3.0, 2.0]])}

    def loss(p: Vector) -> Tensor:
        return sum(((curvature[n] * p[n] ** 2).sum() / 2 for n in p), torch.tensor(0.0))

    diagonal = vectors.hessian_diagonal(loss, params, torch.Generator().manual_seed(0), samples=1)
    for name, value in curvature.items():
        np.testing.assert_allclose(diagonal[name], value, rtol=1e-6)
    assert vectors.diagonal_curvature_risk(diagonal, tau) == pytest.approx(1 + 5 + 0 + 2 * 4)
    assert vectors.curvature_risk(loss, params, tau) == pytest.approx(14)


def test_the_diagonal_of_a_dense_hessian_is_approached_without_bias() -> None:
    loss, params = network_loss()
    hessian, samples = dense_hessian(loss, params), 400
    got = vectors.hessian_diagonal(loss, params, torch.Generator().manual_seed(3), samples=samples)
    estimate = torch.cat([value.reshape(-1) for value in got.values()])
    off_diagonal = hessian - hessian.diagonal().diag()
    deviation = (off_diagonal.square().sum(1) / samples).sqrt()
    assert bool(((estimate - hessian.diagonal()).abs() < 4 * deviation).all())
    assert float((estimate - hessian.diagonal()).abs().max()) > 0
    assert "samples=0" in toolbox.refusal(vectors.hessian_diagonal, loss, params, torch.Generator(), samples=0)


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
def test_the_optimal_perturbation_minimises_equation_4_to_second_order(alpha: float) -> None:
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(5, 5, generator=generator).double()
    hessian, gradient = root @ root.T + torch.eye(5), torch.randn(5, generator=generator).double()
    h, g = hessian.numpy(), gradient.numpy()
    found = scipy.optimize.minimize(
        lambda t: alpha * (t @ h @ t) / 2 + (1 - alpha) * (g @ t), np.zeros(5), method="BFGS", options={"gtol": 1e-10}
    )
    got = vectors.optimal_perturbation(hessian, gradient, alpha)
    np.testing.assert_allclose(got.numpy(), found.x, atol=1e-6)


def test_the_optimal_perturbation_has_bounds() -> None:
    hessian, gradient = torch.eye(2), torch.ones(2)
    assert torch.equal(vectors.optimal_perturbation(hessian, gradient, 1.0), torch.zeros(2))
    for alpha in (0.0, -0.1, 1.1, math.nan):
        assert "alpha=" in toolbox.refusal(vectors.optimal_perturbation, hessian, gradient, alpha)
    for bad in (torch.zeros(2, 2), torch.diag(torch.tensor([1.0, -1.0]))):
        assert "not positive definite" in toolbox.refusal(vectors.optimal_perturbation, bad, gradient, 0.5)


def information(**changes: Any) -> VectorInfo:
    values: dict[str, Any] = {
        "model": "clip_tiny",
        "architecture": "a" * 16,
        "base": "b" * 20,
        "source": "digits_scattered",
        "alpha": 0.8,
        "seed": 3,
        "ft": "c" * 20,
        "ft_star": "d" * 20,
        "xai_version": "0.1.0",
    }
    return VectorInfo(**{**values, **changes})


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    vectors.save_vector(tmp_path / "v.safetensors", draw(1), information())
    return tmp_path / "v.safetensors"


def rewrite(path: Path, **changes: Any) -> None:
    values = {**json.loads(json.dumps(vars(information()))), **changes}
    values = {name: value for name, value in values.items() if value is not ...}
    write_weights(path, draw(1), {vectors.METADATA_KEY: json.dumps(values)})


def refusal(path: Path) -> str:
    message = toolbox.refusal(vectors.load_vector, path)
    assert str(path) in message
    return message


def test_a_vector_comes_back_as_it_went(stored: Path) -> None:
    vector, info = vectors.load_vector(stored)
    assert info == information()
    assert info.format_version == 1
    assert fingerprint(vector) == fingerprint(draw(1))


def test_a_checkpoint_is_no_vector(tmp_path: Path) -> None:
    write_weights(tmp_path / "w.safetensors", draw(1), {"model": "clip_tiny"})
    torch.save(draw(1), tmp_path / "w.pt")
    for name in ("w.safetensors", "w.pt"):
        assert "is a checkpoint, not an explainability vector" in refusal(tmp_path / name)


def test_a_truncated_vector_is_refused(stored: Path) -> None:
    stored.write_bytes(stored.read_bytes()[:-20])
    assert "truncated" in refusal(stored)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_vector_that_is_not_finite_is_refused_on_every_way(stored: Path, bad: float) -> None:
    broken = draw(1)
    broken["visual.bias"][2] = bad
    for told in (
        toolbox.refusal(vectors.save_vector, stored, broken, information()),
        toolbox.refusal(check, information(), vector=broken),
    ):
        assert "NaN or infinite values in visual.bias" in told
    write_weights(stored, broken, {vectors.METADATA_KEY: json.dumps(vars(information()))})
    assert "1 NaN or infinite values in visual.bias" in refusal(stored)


def test_integers_are_no_vector(tmp_path: Path) -> None:
    integers = {"a": torch.ones(2, dtype=torch.int64)}
    assert "int64" in toolbox.refusal(vectors.save_vector, tmp_path / "v", integers, information())


ABSENT: list[tuple[Any, str]] = [
    ({"format_version": ...}, "format version None"),
    ({"source": ...}, "missing or unknown entries (source)"),
]


@pytest.mark.parametrize(("changes", "expected"), [*toolbox.cases(__file__, "metadata.txt"), *ABSENT])
def test_metadata_that_cannot_be_right_is_refused(stored: Path, changes: dict[str, Any], expected: str) -> None:
    rewrite(stored, **changes)
    assert expected in refusal(stored)


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "null", "[" * 100_000])
def test_metadata_that_is_no_object_is_refused(stored: Path, text: str) -> None:
    write_weights(stored, draw(1), {vectors.METADATA_KEY: text})
    assert "metadata that cannot be read" in refusal(stored)


def check(info: VectorInfo, **changes: Any) -> str | None:
    vector = draw(1)
    values: dict[str, Any] = {
        "vector": vector,
        "model": "clip_tiny",
        "architecture": "a" * 16,
        "base": "b" * 20,
        "parameters": draw(4),
        **changes,
    }
    return vectors.check_compatible(info, values.pop("vector"), **values)


def test_what_fits_passes_in_silence() -> None:
    assert check(information()) is None
    assert check(information(), model="my_tiny") is None


def test_an_unknown_base_is_allowed_with_a_warning() -> None:
    warning = there(check(information(), base=None))
    assert "b" * 20 in warning
    assert warning.isprintable()


def test_another_architecture_base_or_parameters_are_refused() -> None:
    for changes, expected in [
        (
            {"architecture": "e" * 16, "model": "clip_vit_b32"},
            "model=clip_tiny (aaaaaaaaaaaaaaaa), this is model=clip_vit_b32",
        ),
        ({"architecture": "e" * 16, "base": None}, "another architecture"),
        ({"base": "f" * 20}, "the vector starts from base bbbbbbbbbbbbbbbbbbbb"),
        ({"parameters": {**draw(4), "more": torch.ones(1)}}, "1 of its 4 tensors are missing (more)"),
        ({"parameters": {**draw(4), "visual.bias": torch.ones(6)}}, "visual.bias is [5] here"),
    ]:
        assert expected in toolbox.refusal(check, information(), **changes)
