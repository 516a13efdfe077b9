"""What section 5 and Appendices A and C of Yoshikawa et al. say of a transfer before anybody looks at its maps."""

import json
from collections.abc import Callable, Iterator
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
from xai.papers.vectors.base import Base
from xai.papers.vectors.fine_tuning import Domain, parameters

FILE = "diagnostics.json"
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
    chunk = max(1, min(_CHUNK, _PARAMETERS // sum(value.numel() for value in domain.base.theta.values())))
    spec |= {"seed": seed, "revision": _REVISION} | ({} if chunk == _CHUNK else {"chunk": chunk})

    def make(workdir: Path) -> None:
        network, device = domain.assemble(None), domain.runtime.trainer.device
        target_ft = parameters(ft_target)
        tau, found = _compared(domain.base, parameters(ft_source), parameters(ft_source_x), target_ft, ft_target_x)
        source = domain.data.source
        labels = source.labels("train")
        rows = stratified_sample(labels, _IMAGES, seed)
        pixels, labels = load_images(source, "train", rows, 0, domain.model.image_size).pixels, labels[rows]
        at = {name: value.to(device) for name, value in target_ft.items()}
        directions = {"risk": tau, "risk_random": vectors.random_like(tau, torch.Generator().manual_seed(0))}
        for name, direction in directions.items():
            moved = {key: value.to(device) for key, value in direction.items()}
            found[name] = _risk(network, at, moved, pixels, labels, chunk)
        diagonal = _diagonal(network, at, pixels, labels, torch.Generator().manual_seed(seed), chunk)
        found["risk_diagonal"] = vectors.diagonal_curvature_risk(diagonal, tau)
        defined = {name: value for name, value in found.items() if value == value}
        write_atomically(workdir / FILE, json.dumps(defined, indent=2).encode())

    artifact = domain.runtime.store.get("diagnostics", spec, make, title="diagnostics of the vectors")
    return dict(json.loads(artifact.file(FILE).read_text()))


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


def _risk(
    network: SelfExplainingClip,
    theta: dict[str, Tensor],
    tau: dict[str, Tensor],
    pixels: Tensor,
    labels: Tensor,
    chunk: int = _CHUNK,
) -> float:
    """tau^T H tau over N images."""
    parts = _losses(network, pixels, labels, chunk)
    return sum(share * vectors.curvature_risk(loss, theta, tau) for share, loss in parts)


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
