"""The main job, `method=transfer`: all that Table 1 and Figure 3 of Yoshikawa et al. need, for a pair of data sets."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from xai import vectors
from xai.core.runtime import Runtime
from xai.core.store import Artifact
from xai.data.catalogue import OpenData
from xai.data.registry import subset
from xai.models.clip import SelfExplainingClip, trainable
from xai.papers.vectors import base as base_stage
from xai.papers.vectors.base import ModelParams
from xai.papers.vectors.diagnostics import diagnose
from xai.papers.vectors.fine_tuning import assemble, fine_tune, parameters
from xai.papers.vectors.params import TransferParams, choose_lambda2
from xai.papers.vectors.vector import explainability_vector, transferred
from xai.results import read_result
from xai.stages import supervision as supervision_stage
from xai.stages.controls import ink, other_classes
from xai.stages.evaluation import Examination, Maps, evaluate, self_explanation
from xai.stages.supervision import Order, SupervisionParams, fine_tuned

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """What a transfer gave.

    Args:
        rows: The evaluations of the table, on the test split.
        sweep: The evaluations of every lambda2, on the test split.
        validation: The same on the validation split, where lambda2 was chosen.
        lambda2: The one of the table.
        was_chosen: Whether it was chosen on the validation split, rather than asked for.
        vector: The artifact that holds the explainability vector.
        network: The transferred model.
        examination: The test images.
        diagnostics: Similarities of vectors (Appendix C) and the risk of equation 12.
    """

    rows: list[Artifact]
    sweep: list[Artifact]
    validation: list[Artifact]
    lambda2: float
    was_chosen: bool
    vector: Artifact
    network: SelfExplainingClip
    examination: Examination
    diagnostics: Mapping[str, float]


class Transfer:
    """The stages of one transfer; each is computed when it is first asked for."""

    def __init__(
        self,
        runtime: Runtime,
        model: ModelParams,
        source: OpenData,
        target: OpenData,
        supervision: SupervisionParams,
        params: TransferParams,
        seed: int,
    ) -> None:
        self.runtime, self.model, self.source, self.target = runtime, model, source, target
        self.supervision, self.params, self.seed = supervision, params, seed

    # The stages, in the order of section 4.

    @cached_property
    def base(self) -> base_stage.Base:
        """theta_base."""
        return base_stage.load(self.model, base_stage.base_weights(self.runtime, self.model, self.seed))

    @cached_property
    def ft_source(self) -> Artifact:
        """theta_ft of the source."""
        p = self.params
        return fine_tune(
            self.runtime,
            self.model,
            self.base,
            self.source,
            p.source_fit,
            self.seed,
            images=p.source_images,
            fixed=True,
        )

    @cached_property
    def ft_target(self) -> Artifact:
        """theta_ft of the target."""
        p = self.params
        return fine_tune(
            self.runtime, self.model, self.base, self.target, p.target_fit, self.seed, images=p.target_images
        )

    @cached_property
    def source_supervision(self) -> Artifact:
        """Phi of the source's training images."""
        return self._supervise(self.ft_source, self.source, "train", self.params.source_images)

    @cached_property
    def ft_source_x(self) -> Artifact:
        """theta_ft* of the source."""
        p = self.params
        return fine_tune(
            self.runtime,
            self.model,
            self.base,
            self.source,
            p.source_fit,
            self.seed,
            images=p.source_images,
            alpha=p.alpha,
            supervision=self.source_supervision,
        )

    @cached_property
    def vector(self) -> Artifact:
        """tau_* of the source."""
        return explainability_vector(
            self.runtime,
            self.base,
            self.ft_source,
            self.ft_source_x,
            model=self.model.name,
            source=self.source.name,
            alpha=self.params.alpha,
            seed=self.seed,
        )

    @cached_property
    def ft_target_x(self) -> Artifact:
        """theta_ft* of the target: the bound, given as many images as ft target."""
        p = self.params
        reference = self._supervise(self.ft_target, self.target, "train", p.target_images, p.bound_coalitions)
        return fine_tune(
            self.runtime,
            self.model,
            self.base,
            self.target,
            p.bound_fit,
            self.seed,
            images=p.target_images,
            alpha=p.alpha,
            supervision=reference,
        )

    @cached_property
    def test(self) -> Examination:
        """The test images with the reference of ft target."""
        return self._examination("test", self.params.test_images)

    @cached_property
    def validation(self) -> Examination:
        """The validation images with the reference of ft target."""
        return self._examination("validation", self.params.validation_images)

    def run(self) -> Outcome:
        """Make every stage that is missing, choose lambda2, fill the table."""
        self._check_sizes()
        grid = self.params.lambda2_grid
        validation = [self.proposed(self.validation, value) for value in grid]
        was_chosen = self.params.lambda2 is None
        chosen = self._choose(validation) if self.params.lambda2 is None else self.params.lambda2
        sweep = [self.proposed(self.test, value) for value in grid]
        rows = [*self._model_rows(), self.proposed(self.test, chosen), *self._bound(), *self._controls(chosen)]
        network = self._network(self.theta(chosen))
        return Outcome(rows, sweep, validation, chosen, was_chosen, self.vector, network, self.test, self.diagnostics)

    # Rows of the table.

    def theta(self, lambda2: float) -> Parameters:
        """The transferred parameters, equation 8."""
        return self._moved(self._tau, lambda2)

    def proposed(self, examination: Examination, lambda2: float) -> Artifact:
        """The proposed model at one lambda2."""
        return self._row(
            examination, "proposed", self._made_from(lambda2), lambda: self.theta(lambda2), lambda2=lambda2
        )

    def _model_rows(self) -> list[Artifact]:
        models = {"ft_source": self.ft_source, "ft_source_x": self.ft_source_x, "ft_target": self.ft_target}
        zero = self._row(self.test, "zero_shot", {"base": self.base.artifact.key}, lambda: None)
        return [zero, *(self._fine_tuned_row(role, model) for role, model in models.items())]

    def _bound(self) -> list[Artifact]:
        return [self._fine_tuned_row("ft_target_x", self.ft_target_x)] if self.params.bound else []

    def _fine_tuned_row(self, role: str, model: Artifact, examination: Examination | None = None) -> Artifact:
        return self._row(examination or self.test, role, {"model": model.key}, lambda: parameters(model))

    def _controls(self, lambda2: float) -> list[Artifact]:
        made_from = self._made_from(lambda2)
        shape = self.test.reference.attributions.shape
        prior = supervision_stage.load(self.source_supervision).attributions.mean(0)

        def other_class() -> Maps:
            return self._explain(
                self.theta(lambda2), other_classes(self.test.reference.labels, len(self.target.source.classes))
            )

        maps: dict[str, tuple[dict[str, Any], Callable[[], Maps]]] = {
            "other_class": (made_from, other_class),
            "position_prior": (
                {"supervision": self.source_supervision.key},
                lambda: Maps(prior.expand(shape).contiguous()),
            ),
            "ink": ({}, lambda: Maps(ink(self.test.images.pixels, (shape[1], shape[2])))),
            "constant": ({}, lambda: Maps(torch.ones(shape))),
        }
        random = self._row(self.test, "random_vector", made_from, lambda: self._random_theta(lambda2), lambda2=lambda2)
        return [random, *(self._evaluate(self.test, role, made, compute) for role, (made, compute) in maps.items())]

    def _random_theta(self, lambda2: float) -> Parameters:
        return self._moved(vectors.random_like(self._tau, torch.Generator().manual_seed(self.seed)), lambda2)

    def _moved(self, tau: Parameters, lambda2: float) -> Parameters:
        base = trainable(self._network(None))
        return transferred(base, parameters(self.ft_target), tau, self.params.lambda1, lambda2)

    # Choices and diagnostics.

    def _choose(self, validation: list[Artifact]) -> float:
        """The lambda2 with the smallest validation E-RMSE among those that keep the accuracy; see `choose_lambda2`."""
        results = [read_result(artifact.path) for artifact in validation]
        reference = read_result(self._fine_tuned_row("ft_target", self.ft_target, self.validation).path)
        floor = (1 - self.params.accuracy_tolerance) * reference.metrics["accuracy"]
        return choose_lambda2(results, floor)

    @cached_property
    def diagnostics(self) -> dict[str, float]:
        """What the paper's theory says of this transfer: similarities of vectors, and the risk for the accuracy."""
        bound = self.ft_target_x if self.params.bound else None
        return diagnose(
            self.runtime,
            self.model,
            self.base,
            self.target,
            ft_source=self.ft_source,
            ft_source_x=self.ft_source_x,
            ft_target=self.ft_target,
            ft_target_x=bound,
        )

    # Plumbing.

    def _check_sizes(self) -> None:
        """Refuse more images than there are now, and not after hours of training."""
        p, source, target = self.params, self.source.source, self.target.source
        subset(source, "train", p.source_images, self.seed)
        for split, images in (("train", p.target_images), ("validation", p.validation_images), ("test", p.test_images)):
            subset(target, split, images, self.seed)

    @cached_property
    def _tau(self) -> Parameters:
        return vectors.load_vector(self.vector.file("explainability_vector.safetensors"))[0]

    def _made_from(self, lambda2: float) -> dict[str, Any]:
        keys = {"base": self.base.artifact.key, "ft_target": self.ft_target.key, "vector": self.vector.key}
        return {**keys, "lambda1": self.params.lambda1, "lambda2": lambda2}

    def _supervise(
        self, classifier: Artifact, data: OpenData, split: str, images: int | None, coalitions: int | None = None
    ) -> Artifact:
        subject = fine_tuned(self.runtime, self.model, self.base, data, classifier)
        params = self.supervision.of(split, coalitions)
        return Order(self.runtime, subject, data, split, params, self.seed, images).fill()

    def _examination(self, split: str, images: int | None) -> Examination:
        artifact = self._supervise(self.ft_target, self.target, split, images)
        return Examination(self.runtime, self.model, self.target, split, artifact)

    def _network(self, theta: Parameters | None) -> SelfExplainingClip:
        return assemble(self.runtime, self.model, self.base, self.target, theta)

    def _explain(self, theta: Parameters | None, columns: Tensor, examination: Examination | None = None) -> Maps:
        return self_explanation(self._network(theta), (examination or self.test).images.pixels, columns)

    def _row(
        self,
        examination: Examination,
        role: str,
        made_from: Mapping[str, Any],
        theta: Callable[[], Parameters | None],
        lambda2: float | None = None,
    ) -> Artifact:
        def compute() -> Maps:
            return self._explain(theta(), examination.reference.labels, examination)

        return self._evaluate(examination, role, made_from, compute, lambda2)

    def _evaluate(
        self,
        examination: Examination,
        role: str,
        made_from: Mapping[str, Any],
        maps: Callable[[], Maps],
        lambda2: float | None = None,
    ) -> Artifact:
        params = {"alpha": self.params.alpha}
        if lambda2 is not None:
            params |= {"lambda1": self.params.lambda1, "lambda2": lambda2}
        return evaluate(
            self.runtime,
            examination,
            role,
            made_from,
            maps,
            source=self.source.name,
            seed=self.seed,
            params=params,
            method="transfer",
        )
