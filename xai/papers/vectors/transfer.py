"""What Table 1 and Figure 3 of Yoshikawa et al. need trained, for a pair of data sets; each once, when asked for."""

from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from xai import __version__, vectors
from xai.core.files import write_atomically
from xai.core.optimisation import LastFit
from xai.core.runtime import Runtime
from xai.core.settings import Count, Distinct, EvenCount, settings
from xai.core.store import Artifact
from xai.data.catalogue import OpenData
from xai.data.registry import Split, subset
from xai.explainers.registry import Row
from xai.models import files
from xai.models.clip import SelfExplainingClip
from xai.models.weights import architecture_hash, fingerprint
from xai.papers.vectors import base as base_stage
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.diagnostics import diagnose
from xai.papers.vectors.fine_tuning import FILE, Domain, parameters
from xai.study.case import Case, CaseParams, ExplainedModel
from xai.study.maps import Maps, explain
from xai.study.study import together

Factor = Annotated[float, Field(ge=0, le=10)]
"""Of a task vector; the paper's lie between 0.4 and 1.2."""

Balance = Annotated[float, Field(ge=0, lt=1)]
"""Alpha of a model that learns to explain."""


@settings
class TransferParams:
    """What is trained for a transfer.

    Args:
        alpha: Balance of equation 4 for the explained models; at 1 they would learn no explanation. Null chooses it
            from the grid on the validation split.
        alpha_grid: The values it is chosen from; each costs a training on the source.
        lambda1: Factor of the target's task vector, equation 8.
        lambda2: Factor of the explainability vector; null chooses it from the grid on the validation split.
        lambda2_grid: The values of Figure 3; each costs one pass over the images.
        accuracy_tolerance: The largest share of ft target's validation accuracy that the choice may cost.
        source_images: Supervised source images; null takes all.
        target_images: Target images that ft target learns from; null takes all.
        fixed_target: Whether each of them stays as it looks in the first epoch, as the source's do. Where all else is
            the same too, a data set has one classifier, as source and as target.
        bound_images: Target images, all supervised, that the bound ft target+X learns from; null: those of ft target.
        validation_images: Images on which the choice is made; null takes all.
        other_column: Whether models that learn to explain are also told the map of one other class of each image, drawn
            at random, half of equation 5 each. Not in the paper: ours.
        bound_coalitions: P for the bound's supervision; explainers that have no P pass over it.
        source_fit: Optimisation of ft source and ft source+X.
        target_fit: Optimisation of ft target.
        bound_fit: Optimisation of ft target+X.
    """

    alpha: Balance | None
    alpha_grid: Annotated[tuple[Balance, ...], Field(min_length=1), Distinct]
    lambda1: Factor
    lambda2: Factor | None
    lambda2_grid: Annotated[tuple[Factor, ...], Field(min_length=1), Distinct]
    accuracy_tolerance: Annotated[float, Field(ge=0, lt=1)]
    source_images: Count | None
    target_images: Count | None
    fixed_target: bool
    bound_images: Count | None
    validation_images: Count | None
    other_column: bool
    bound_coalitions: EvenCount
    source_fit: LastFit
    target_fit: LastFit
    bound_fit: LastFit


VECTOR_FILE = "explainability_vector.safetensors"
Parameters = dict[str, Tensor]


@dataclass
class Transfer:
    """The networks of one transfer, in the order of section 4.

    Args:
        runtime: Where to work.
        model: The CLIP.
        source: The data set whose explanations are learned.
        target: The data set of the classifier that receives them.
        supervision: The row whose maps are learned from ("+X").
        block: Images that it explains together.
        params: How all is trained.
        alpha: Balance of equation 4 for the explained models.
        seed: Of everything that is drawn.
    """

    runtime: Runtime
    model: ModelParams
    source: OpenData
    target: OpenData
    supervision: Row
    block: int
    params: TransferParams
    alpha: float
    seed: int

    def __post_init__(self) -> None:
        """Refuse more images than there are now, and not after hours of training."""
        subset(self.source.source, "train", self.params.source_images, self.seed)
        for images in (self.params.target_images, self.params.bound_images):
            subset(self.target.source, "train", images, self.seed)

    def at(self, alpha: float) -> "Transfer":
        """The same transfer at another alpha; they share the networks that do not depend on it."""
        other = replace(self, alpha=alpha)
        shared = ("base", "ft_source", "ft_target", "_source_columns")
        other.__dict__ |= {name: self.__dict__[name] for name in shared if name in self.__dict__}
        return other

    def train_classifiers(self) -> None:
        """Train the two that wait for nothing but theta_base, side by side with whatever process does the same."""
        together([lambda: self.ft_target, lambda: self.ft_source], self.runtime.store.impatient)

    @cached_property
    def base(self) -> base_stage.Base:
        """theta_base."""
        return base_stage.load(self.model, base_stage.base_weights(self.runtime, self.model, self.seed))

    @cached_property
    def ft_source(self) -> Artifact:
        """theta_ft of the source."""
        return self._on_source()

    @cached_property
    def ft_target(self) -> Artifact:
        """theta_ft of the target."""
        p = self.params
        target = self._domain(self.target)
        return target.fine_tune(p.target_fit, self.seed, images=p.target_images, fixed=p.fixed_target)

    @property
    def source_supervision(self) -> Maps:
        """Phi of the source's training images."""
        return self._source_columns[0]

    @cached_property
    def _source_columns(self) -> tuple[Maps, Maps | None]:
        return self._columns(
            self.case(self.ft_source, self.source, "train", self.params.source_images), self.supervision
        )

    @cached_property
    def ft_source_x(self) -> Artifact:
        """theta_ft* of the source."""
        return self._on_source(**self._learned(*self._source_columns))

    @cached_property
    def vector(self) -> Artifact:
        """tau_* of the source: its explained classifier less the plain one (below equation 6)."""
        ft, ft_star = self.ft_source, self.ft_source_x

        def make(workdir: Path) -> None:
            plain, star = parameters(ft), parameters(ft_star)
            info = vectors.VectorInfo(
                model=self.model.name,
                architecture=architecture_hash(plain),
                base=self.base.fingerprint,
                source=self.source.name,
                alpha=self.alpha,
                seed=self.seed,
                ft=fingerprint(plain),
                ft_star=fingerprint(star),
                xai_version=__version__,
            )
            vectors.save_vector(workdir / VECTOR_FILE, vectors.difference(star, plain), info)

        title = f"explainability vector of {self.source.name}"
        return self.runtime.store.get("vector", {"ft": ft.key, "ft_star": ft_star.key}, make, title=title)

    @cached_property
    def ft_target_x(self) -> Artifact:
        """theta_ft* of the target: the bound, which has what the transfer does without."""
        p = self.params
        images = p.target_images if p.bound_images is None else p.bound_images
        case = self.case(self.ft_target, self.target, "train", images)
        row = with_coalitions(self.supervision, p.bound_coalitions)
        learned = self._learned(*self._columns(case, row))
        return self._domain(self.target).fine_tune(p.bound_fit, self.seed, images=images, **learned)

    def case(self, classifier: Artifact, data: OpenData, split: Split, images: int | None) -> Case:
        """The true classes of images of a split, asked of a fine-tuned classifier (section 6.1)."""
        return Case(
            self.runtime, self.explained(data, classifier), data, CaseParams(split, images, self.block), self.seed
        )

    def explained(self, data: OpenData, classifier: Artifact) -> ExplainedModel:
        """A fine-tuned classifier as what a case explains."""
        return self._domain(data).explained(classifier, self)

    def network(self, theta: Parameters | None) -> SelfExplainingClip:
        """A classifier of the target from parameters; None: theta_base."""
        return self._domain(self.target).assemble(theta)

    def theta(self, lambda2: float, is_random: bool = False) -> Parameters:
        """The transferred parameters, equation 8; or those moved by a random vector of the same length."""
        tau = vectors.load_vector(self.vector.file(VECTOR_FILE))[0]
        if is_random:
            tau = vectors.random_like(tau, torch.Generator().manual_seed(self.seed))
        return transferred(self.base.theta, parameters(self.ft_target), tau, self.params.lambda1, lambda2)

    def made_from(self, lambda2: float) -> dict[str, Any]:
        """All that determines `theta`."""
        keys = {"base": self.base.artifact.key, "ft_target": self.ft_target.key, "vector": self.vector.key}
        return {**keys, "lambda1": self.params.lambda1, "lambda2": lambda2}

    def diagnostics(self, bound: bool) -> dict[str, float]:
        """What the paper's theory says of this transfer: similarities of vectors, and the risk for the accuracy.

        Args:
            bound: Whether the bound is trained, whose explainability vector is compared too.
        """
        return diagnose(
            self._domain(self.target),
            self.seed,
            ft_source=self.ft_source,
            ft_source_x=self.ft_source_x,
            ft_target=self.ft_target,
            ft_target_x=self.ft_target_x if bound else None,
        )

    def hand_over(self, folder: Path, lambda2: float) -> None:
        """Write what a user can hold: the vector, the classifier it is added to, and the two together."""
        for artifact, name in ((self.vector, VECTOR_FILE), (self.ft_target, FILE)):
            write_atomically(folder / name, artifact.file(name).read_bytes())
        network = self.network(self.theta(lambda2)).cpu()
        spec = self._domain(self.target).described(True, self.seed)
        files.write(folder / "model.safetensors", network, spec)

    def _columns(self, case: Case, row: Row) -> tuple[Maps, Maps | None]:
        """Maps of images for their classes and, where they are asked for, for one wrong class each."""
        other = case.with_params(targets="wrong") if self.params.other_column else None
        return explain(case, row, other), None if other is None else explain(other, row)

    def _learned(self, maps: Maps, other: Maps | None) -> dict[str, Any]:
        """What a fine-tuning is told that learns to explain."""
        return {"alpha": self.alpha, "supervision": maps.artifact, "other": None if other is None else other.artifact}

    def _domain(self, data: OpenData) -> Domain:
        return Domain(self.runtime, self.model, self.base, data)

    def _on_source(self, **explaining: Any) -> Artifact:
        p = self.params
        source = self._domain(self.source)
        return source.fine_tune(p.source_fit, self.seed, images=p.source_images, fixed=True, **explaining)


def transferred(base: Parameters, ft: Parameters, tau: Parameters, lambda1: float, lambda2: float) -> Parameters:
    """Equation 8 for a fine-tuned classifier theta_ft: theta_base + lambda1 (theta_ft - theta_base) + lambda2 tau_*.

    The task vector is never rounded to float32 on the way, so that at lambda1 = 1 this is theta_ft + lambda2 tau_* to
    the last bit, which can be had without the base weights.
    """
    return vectors.apply(base, [(lambda1, ft), (-lambda1, base), (lambda2, tau)])


def with_coalitions(row: Row, coalitions: int) -> Row:
    """The same row with so many coalitions an image; as it is where it draws none."""
    if "coalitions" not in (field.name for field in fields(row.params)):
        return row
    return replace(row, params=replace(row.params, coalitions=coalitions))  # type: ignore[call-arg]
