"""The main job, `method=transfer`: all that Table 1 and Figure 3 of Yoshikawa et al. need, for a pair of data sets."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from xai import vectors
from xai.artifacts import Artifact
from xai.errors import UserError
from xai.methods.optimisation import FitParams
from xai.methods.self_explainer import check_alpha
from xai.models.clip import SelfExplainingClip, trainable
from xai.results import Result, read_result
from xai.stages import base as base_stage
from xai.stages import supervision as supervision_stage
from xai.stages.base import ModelParams
from xai.stages.classifier import assemble, fine_tune, parameters, subset
from xai.stages.context import Lab, OpenData
from xai.stages.evaluation import Examination, Maps, evaluate, self_explanation
from xai.stages.supervision import SupervisionParams, supervise
from xai.stages.vector import explainability_vector

Parameters = dict[str, Tensor]


@dataclass(frozen=True)
class TransferParams:
    """One transfer, and what it is compared with.

    Args:
        alpha: Balance of equation 4 for the explained models.
        lambda1: Factor of the target's task vector, equation 8.
        lambda2: Factor of the explainability vector; null chooses it from the grid on the validation split.
        lambda2_grid: The values of Figure 3; each costs one evaluation.
        accuracy_tolerance: The largest share of ft target's validation accuracy that the chosen lambda2 may cost.
        source_images: Supervised source images; null takes all.
        target_images: Target images that ft target, and so the bound ft target+X, learn from; null takes all.
        validation_images: Supervised validation images; null takes all.
        test_images: Test images; null takes all.
        bound: Whether to train the bound, ft target+X.
        bound_coalitions: P for the bound's supervision.
        source_fit: Optimisation of ft source and ft source+X.
        target_fit: Optimisation of ft target.
        bound_fit: Optimisation of ft target+X.
    """

    alpha: float
    lambda1: float
    lambda2: float | None
    lambda2_grid: tuple[float, ...]
    accuracy_tolerance: float
    source_images: int | None
    target_images: int | None
    validation_images: int | None
    test_images: int | None
    bound: bool
    bound_coalitions: int
    source_fit: FitParams
    target_fit: FitParams
    bound_fit: FitParams

    def __post_init__(self) -> None:
        """Refuse numbers out of range."""
        check_alpha(self.alpha)
        if self.alpha == 1:
            raise UserError(
                "transfer.alpha=1 learns no explanation, so there is no vector to transfer: use 0 < alpha < 1"
            )
        if not self.lambda2_grid:
            raise UserError("transfer.lambda2_grid is empty: give at least one value")
        chosen = [] if self.lambda2 is None else [("lambda2", self.lambda2)]
        for name, value in (
            ("lambda1", self.lambda1),
            *chosen,
            *(("lambda2_grid", value) for value in self.lambda2_grid),
        ):
            if not (math.isfinite(value) and 0 <= value <= 10):
                raise UserError(
                    f"transfer.{name}={value:g} is out of range: it must lie between 0 and 10 (the paper: 0.4 to 1.2)"
                )
        if not 0 <= self.accuracy_tolerance < 1:
            raise UserError(
                f"transfer.accuracy_tolerance={self.accuracy_tolerance} is a share: it must lie between 0 and 1"
            )
        if self.bound_coalitions < 2 or self.bound_coalitions % 2:
            raise UserError(
                f"transfer.bound_coalitions={self.bound_coalitions} must be an even number: coalitions come in pairs"
            )


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
        diagnostics: Similarities of vectors (Appendix C).
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
        lab: Lab,
        model: ModelParams,
        source: OpenData,
        target: OpenData,
        supervision: SupervisionParams,
        params: TransferParams,
        seed: int,
    ) -> None:
        self.lab, self.model, self.source, self.target = lab, model, source, target
        self.supervision, self.params, self.seed = supervision, params, seed

    # The stages, in the order of section 4.

    @cached_property
    def base(self) -> base_stage.Base:
        """theta_base."""
        return base_stage.load(self.model, base_stage.base_weights(self.lab, self.model, self.seed))

    @cached_property
    def ft_source(self) -> Artifact:
        """theta_ft of the source."""
        p = self.params
        return fine_tune(
            self.lab, self.model, self.base, self.source, p.source_fit, self.seed, images=p.source_images, fixed=True
        )

    @cached_property
    def ft_target(self) -> Artifact:
        """theta_ft of the target."""
        p = self.params
        return fine_tune(self.lab, self.model, self.base, self.target, p.target_fit, self.seed, images=p.target_images)

    @cached_property
    def source_supervision(self) -> Artifact:
        """Phi of the source's training images."""
        return self._supervise(self.ft_source, self.source, "train", self.params.source_images)

    @cached_property
    def ft_source_x(self) -> Artifact:
        """theta_ft* of the source."""
        p = self.params
        return fine_tune(
            self.lab,
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
            self.lab,
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
            self.lab,
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
        return Outcome(rows, sweep, validation, chosen, was_chosen, self.vector, network, self.test, self.diagnostics())

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
        base, ft, lambda1 = trainable(self._network(None)), parameters(self.ft_target), self.params.lambda1
        # The task vector ft - base is never rounded to float32, so that at lambda1 = 1 this is ft + lambda2 tau to the
        # last bit, which is what method=apply_vector computes without the base weights.
        return vectors.apply(base, [(lambda1, ft), (-lambda1, base), (lambda2, tau)])

    # Choices and diagnostics.

    def _choose(self, validation: list[Artifact]) -> float:
        """The lambda2 with the smallest validation E-RMSE among those that keep the accuracy; see `choose_lambda2`."""
        results = [read_result(artifact.path) for artifact in validation]
        reference = read_result(self._fine_tuned_row("ft_target", self.ft_target, self.validation).path)
        floor = (1 - self.params.accuracy_tolerance) * reference.metrics["accuracy"]
        return choose_lambda2(results, floor)

    def diagnostics(self) -> dict[str, float]:
        """Cosine similarities of Appendix C: of the classification vectors, and of the explainability vectors."""
        base = trainable(self._network(None))
        ft = [vectors.difference(parameters(model), base) for model in (self.ft_source, self.ft_target)]
        found = {"similarity_ft": vectors.cosine_similarity(*ft)}
        if self.params.bound:
            star = vectors.difference(parameters(self.ft_target_x), parameters(self.ft_target))
            found["similarity_star"] = vectors.cosine_similarity(self._tau, star)
        return found

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
        return supervise(
            self.lab, self.model, self.base, classifier, data, split, self.supervision, self.seed, images, coalitions
        )

    def _examination(self, split: str, images: int | None) -> Examination:
        artifact = self._supervise(self.ft_target, self.target, split, images)
        return Examination(self.lab, self.model, self.target, split, artifact)

    def _network(self, theta: Parameters | None) -> SelfExplainingClip:
        return assemble(self.lab, self.model, self.base, self.target, theta)

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
            self.lab, examination, role, made_from, maps, source=self.source.name, seed=self.seed, params=params
        )


def choose_lambda2(results: list[Result], accuracy_floor: float) -> float:
    """The lambda2 of the smallest E-RMSE among results at least as accurate as the floor, else of the most accurate."""
    kept = [result for result in results if result.metrics["accuracy"] >= accuracy_floor]
    if kept:
        return min(kept, key=lambda result: result.metrics["e_rmse"]).params["lambda2"]
    return max(results, key=lambda result: (result.metrics["accuracy"], -result.params["lambda2"])).params["lambda2"]


def other_classes(labels: Tensor, classes: int) -> Tensor:
    """For each image [N] a class that is not its own, drawn evenly and always the same."""
    generator = torch.Generator().manual_seed(0)
    return (labels + torch.randint(1, classes, labels.shape, generator=generator)) % classes


def ink(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """How far each patch is from the image's median brightness: an explanation that has never seen the classifier.

    Args:
        pixels: [N, 3, H, W] in [0, 1].
        grid: Patches down and across.

    Returns:
        [N, h, w].
    """
    grey = pixels.mean(1)
    median = grey.flatten(1).median(1).values[:, None, None]
    return F.adaptive_avg_pool2d((grey - median).abs(), grid)
