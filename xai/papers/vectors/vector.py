"""The explainability vector as an artifact: tau_* = theta_ft* - theta_ft (below equation 6)."""

from pathlib import Path

from torch import Tensor

from xai import __version__, vectors
from xai.core.runtime import Runtime
from xai.core.store import Artifact
from xai.models.weights import architecture_hash, fingerprint
from xai.papers.vectors.base import Base
from xai.papers.vectors.fine_tuning import parameters

FILE = "explainability_vector.safetensors"


def explainability_vector(
    runtime: Runtime, base: Base, ft: Artifact, ft_star: Artifact, *, model: str, source: str, alpha: float, seed: int
) -> Artifact:
    """Subtract a classifier from its explained twin.

    Args:
        runtime: Where to work.
        base: The base weights both were fine-tuned from.
        ft: theta_ft.
        ft_star: theta_ft*.
        model: Name of the model.
        source: Name of the source data set.
        alpha: Of the explained twin.
        seed: Of the run.

    Returns:
        An artifact with `explainability_vector.safetensors`.
    """

    def make(workdir: Path) -> None:
        plain, explained = parameters(ft), parameters(ft_star)
        tau = vectors.difference(explained, plain)
        info = vectors.VectorInfo(
            model=model,
            architecture=architecture_hash(plain),
            base=base.fingerprint,
            source=source,
            alpha=alpha,
            seed=seed,
            ft=fingerprint(plain),
            ft_star=fingerprint(explained),
            xai_version=__version__,
        )
        vectors.save_vector(workdir / FILE, tau, info)

    return runtime.store.get(
        "vector", {"ft": ft.key, "ft_star": ft_star.key}, make, title=f"explainability vector of {source}"
    )


def transferred(
    base: dict[str, Tensor], ft: dict[str, Tensor], tau: dict[str, Tensor], lambda1: float, lambda2: float
) -> dict[str, Tensor]:
    """Equation 8 for a fine-tuned classifier theta_ft: theta_base + lambda1 (theta_ft - theta_base) + lambda2 tau_*.

    The task vector is never rounded to float32 on the way, so that at lambda1 = 1 this is theta_ft + lambda2 tau_* to
    the last bit, which can be had without the base weights.
    """
    return vectors.apply(base, [(lambda1, ft), (-lambda1, base), (lambda2, tau)])
