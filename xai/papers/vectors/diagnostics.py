"""What section 5 and Appendices A and C of Yoshikawa et al. say of a transfer before anybody looks at its maps."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from xai import vectors
from xai.core.files import write_atomically
from xai.core.store import Artifact
from xai.data.registry import load_images
from xai.data.splits import stratified_sample
from xai.methods.self_explainer import classification_loss
from xai.models.clip import SelfExplainingClip
from xai.models.weights import read_weights, write_weights
from xai.papers.vectors.base import Base
from xai.papers.vectors.fine_tuning import Domain, parameters
from xai.vectors import Parameters

FILE = "diagnostics.json"
_CURVATURE = "curvature.safetensors"
_IMAGES = 256
"""Target training images behind the curvature, drawn by class: its Hessian is a mean over images."""
_REVISION = 3
_CHUNK = 32
"""Images of it held in memory at a time, by a small network."""
_PARAMETERS = 1 << 29
"""Images times parameters, at most: a second derivative of ViT-B/32 keeps 350 MB an image."""
_SIGNS = 4
"""Vectors of random signs that each chunk's diagonal is estimated from."""


def diagnose(
    domain: Domain,
    seed: int,
    *,
    ft_source: Artifact,
    ft_source_x: Artifact,
    ft_target: Artifact,
    ft_target_x: Artifact | None,
) -> dict[str, float]:
    """Compare the vectors of a transfer into a domain.

    Returns:
        `similarity_ft`, the cosine of the two classification vectors, known before the transfer (Appendix C);
        `similarity_star`, that of the two explainability vectors, where the bound was trained; `risk`, equation 12,
        tau^T H tau of the explainability vector on the target's classification loss; `risk_random`, the same of a
        random vector with the same norm in every tensor; `risk_diagonal`, the first from the diagonal of H alone, by
        which Appendix A would have candidates ranked. Undefined ones are left out.
    """
    keys = {"ft_source": ft_source, "ft_source_x": ft_source_x, "ft_target": ft_target, "ft_target_x": ft_target_x}
    spec: dict[str, Any] = {name: artifact.key if artifact else None for name, artifact in keys.items()}
    drawn = _drawn(domain, seed)

    def make(workdir: Path) -> None:
        target_ft = parameters(ft_target)
        tau, found = _compared(domain.base, parameters(ft_source), parameters(ft_source_x), target_ft, ft_target_x)
        directions = [tau, vectors.random_like(tau, torch.Generator().manual_seed(0))]
        risks = _risks(domain.assemble(None), *_expansion(domain, target_ft, seed), directions, _chunk(domain))
        found |= dict(zip(("risk", "risk_random"), risks, strict=True))
        found["risk_diagonal"] = vectors.diagonal_curvature_risk(_curvature(domain, ft_target, seed), tau)
        defined = {name: value for name, value in found.items() if value == value}
        write_atomically(workdir / FILE, json.dumps(defined, indent=2).encode())

    artifact = domain.runtime.store.get("diagnostics", spec | drawn, make, title="diagnostics of the vectors")
    return dict(json.loads(artifact.file(FILE).read_text()))


def _curvature(domain: Domain, ft_target: Artifact, seed: int) -> dict[str, Tensor]:
    """The diagonal of H, which is the target's alone: whatever is transferred into it, from wherever, finds it kept."""

    def make(workdir: Path) -> None:
        expansion = _expansion(domain, parameters(ft_target), seed)
        drawn = torch.Generator().manual_seed(seed)
        diagonal = _diagonal(domain.assemble(None), *expansion, drawn, _chunk(domain))
        write_weights(workdir / _CURVATURE, diagonal, {})

    spec = {"ft_target": ft_target.key, **_drawn(domain, seed)}
    artifact = domain.runtime.store.get("curvature", spec, make, title=f"curvature of {domain.data.name}")
    return read_weights(artifact.file(_CURVATURE), what="curvature").tensors


def _chunk(domain: Domain) -> int:
    return max(1, min(_CHUNK, _PARAMETERS // sum(value.numel() for value in domain.base.theta.values())))


def _drawn(domain: Domain, seed: int) -> dict[str, int]:
    chunk = _chunk(domain)
    return {"seed": seed, "revision": _REVISION} | ({} if chunk == _CHUNK else {"chunk": chunk})


def _expansion(domain: Domain, theta: Parameters, seed: int) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Where the loss is expanded: theta on its device, and the images [N, C, H, W] and labels [N] it is a mean over."""
    source, device = domain.data.source, domain.runtime.trainer.device
    labels = source.labels("train")
    rows = stratified_sample(labels, _IMAGES, seed)
    pixels = load_images(source, "train", rows, 0, domain.model.image_size).pixels
    return {name: value.to(device) for name, value in theta.items()}, pixels, labels[rows]


def _compared(
    base: Base,
    source: dict[str, Tensor],
    source_x: dict[str, Tensor],
    target: dict[str, Tensor],
    target_x: Artifact | None,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """tau_* of the source, and the similarities; the other vectors are let go, each as large as the network."""
    tau = vectors.difference(source_x, source)
    task_vectors = [vectors.difference(theta, base.theta) for theta in (source, target)]
    found = {"similarity_ft": vectors.cosine_similarity(*task_vectors)}
    if target_x is not None:
        found["similarity_star"] = vectors.cosine_similarity(tau, vectors.difference(parameters(target_x), target))
    return tau, found


def _risks(
    network: SelfExplainingClip,
    theta: dict[str, Tensor],
    pixels: Tensor,
    labels: Tensor,
    directions: Sequence[Parameters],
    chunk: int = _CHUNK,
) -> list[float]:
    """tau^T H tau of each direction, over N images."""
    device = network.head.device
    moved = [{name: value.to(device) for name, value in tau.items()} for tau in directions]
    total = [0.0] * len(moved)
    for share, loss in _losses(network, pixels, labels, chunk):
        for n, (tau, product) in enumerate(vectors.hessian_products(loss, theta, moved)):
            total[n] += share * vectors.dot(product, tau)
    return total


def _diagonal(
    network: SelfExplainingClip,
    theta: dict[str, Tensor],
    pixels: Tensor,
    labels: Tensor,
    generator: torch.Generator,
    chunk: int = _CHUNK,
    samples: int = _SIGNS,
) -> dict[str, Tensor]:
    """The diagonal of H over N images, estimated, on the CPU."""
    total = {name: torch.zeros(value.shape) for name, value in theta.items()}
    for share, loss in _losses(network, pixels, labels, chunk):
        for name, value in vectors.hessian_diagonal(loss, theta, generator, samples).items():
            total[name] += share * value.cpu()
    return total


Loss = Callable[[dict[str, Tensor]], Tensor]


def _losses(network: SelfExplainingClip, pixels: Tensor, labels: Tensor, chunk: int) -> Iterator[tuple[float, Loss]]:
    """The classification loss of each chunk as a function of theta, and its share of the images: H is their mean."""
    for rows in torch.arange(len(labels)).split(chunk):
        images, classes = (value[rows].to(network.head.device) for value in (pixels, labels))

        def loss(at: dict[str, Tensor], images: Tensor = images, classes: Tensor = classes) -> Tensor:
            return classification_loss(functional_call(network, at, (images,)), classes)

        yield len(rows) / len(labels), loss
