"""`method=ranking`: the ranking explainer and its refinement beside other explainers and controls, row by row."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from xai.classifiers.params import SalvageParams, VitShapleyParams
from xai.classifiers.vit import VitStages
from xai.core.errors import UserError
from xai.core.settings import unknown
from xai.core.store import Artifact
from xai.data.registry import Images
from xai.explainers import registry
from xai.explainers.controls.brightness import distance_from_ground
from xai.explainers.learned.vit_shapley import VitShapleyExplainer
from xai.models.explainer import SalvageNetwork, ShapleyNetwork
from xai.papers.ranking.networks import RankingStages
from xai.papers.ranking.params import PerturbationParams, RankingParams, RefinementSettings
from xai.papers.ranking.shortcut import Shortcut, ShortcutParams
from xai.stages.perturbation import Draw, PerturbationExamination, PerturbationRow
from xai.stages.refined import Refinement, Start
from xai.stages.supervision import SupervisionParams

LEARNED = ("ranking", "ranking_published")
RIVALS = ("salvage", "vit_shapley")
CONTROLS = ("random", "brightness", "position_prior", "object_mask")
STARTS = ("ranking", "decoder", "flat", "rollout")
"""What is refined: the maps of the explainer, its decoder, and as controls nothing at all and attention rollout."""

_REFINED = re.compile(rf"({'|'.join(STARTS)})_t([1-9]\d*)")
_PRIOR_IMAGES = 200
_FOREIGN_SCALE = 4.0
"""Deviation that maps of another explainer are brought to before they are refined: about that of trained maps."""


@dataclass(frozen=True)
class Rivals:
    """The learned explainers of the other paper, which stand in the table too.

    Args:
        stages: Their networks; None where the classifier is no vision transformer.
        salvage: How SALVAGE is trained.
        vit_shapley: How ViT-Shapley is trained.
    """

    stages: VitStages | None
    salvage: SalvageParams
    vit_shapley: VitShapleyParams


@dataclass
class RankingStudy:
    """The rows of one model, one data set and one seed; each is computed when it is first asked for.

    Args:
        networks: The explainers.
        examination: The images.
        refinement: How maps are refined.
        rivals: SALVAGE and ViT-Shapley.
        baselines: Post-hoc explainers by role.
        rows: The roles to measure, in order.
        path_steps: Numbers S of points on a path to train with (Figure 3b).
        shortcut: The mark that Figure 5 looks for; None looks for none.
    """

    networks: RankingStages
    examination: PerturbationExamination
    refinement: RefinementSettings
    rivals: Rivals
    baselines: Mapping[str, SupervisionParams]
    rows: tuple[str, ...]
    path_steps: tuple[int, ...]
    shortcut: ShortcutParams | None = None

    def __post_init__(self) -> None:
        """Refuse rows that nobody knows, and those that this model or data set cannot have."""
        known = [*LEARNED, *RIVALS, *CONTROLS, *self.baselines]
        size = self.networks.stages.model.image_size
        self.refinement.objective.check_size(size, size)
        for role in self.rows:
            refined = _REFINED.fullmatch(role)
            if not refined and role not in known:
                raise UserError(unknown(f"rows: {role}", role, [*known, "ranking_t3", "decoder_t3"], "row"))
            if refined and int(refined[2]) > self.refinement.steps:
                raise UserError(
                    f"rows: {role} wants {refined[2]} steps and refinement.steps={self.refinement.steps}: raise that"
                )
            if role in RIVALS and self.rivals.stages is None:
                raise UserError(f"rows: {role} needs a vision transformer to start from: drop it for this model")
            if refined and refined[1] == "rollout":
                self._baseline("attention_rollout")
        if "object_mask" in self.rows and self.examination.images.regions is None:
            raise UserError(
                f"rows: object_mask needs the regions of the objects, data={self.networks.stages.data.name} has none: "
                "drop it"
            )
        for steps in self.path_steps:
            replace(self.networks.params.objective, steps=steps)
        if self.shortcut is not None:
            Shortcut(self.networks, self.examination.params, self.refinement, self.shortcut)

    def measured(self, role: str) -> Artifact:
        """One row."""
        return self.examination.measure(self.row(role))

    def row(self, role: str) -> PerturbationRow:
        """What a role is made of."""
        refined = _REFINED.fullmatch(role)
        if refined:
            return self.refined_row(refined[1], int(refined[2]))
        if role in LEARNED:
            return self._learned_row(role, self.variant(role))
        if role in RIVALS:
            return self._rival_row(role)
        if role in CONTROLS:
            return self._control_row(role)
        return self._baseline_row(role)

    def refined_row(self, start: str, steps: int) -> PerturbationRow:
        """Maps after some gradient steps (Figure 3a)."""
        begin, refinement = self._start(start), Refinement(self.examination, self.refinement)
        made_from = {"refined": refinement.refined(begin).key, "steps": steps}
        return PerturbationRow(
            f"{start}_t{steps}", made_from, lambda: refinement.maps(begin, steps), {"refined": float(steps)}
        )

    def over_refinement(self) -> dict[tuple[str, int], Artifact]:
        """Figure 3a: after each number of steps, from all that some row is refined from."""
        starts = dict.fromkeys(found[1] for found in map(_REFINED.fullmatch, self.rows) if found)
        wanted = [(start, steps) for start in starts for steps in range(1, self.refinement.steps + 1)]
        return {(start, steps): self.examination.measure(self.refined_row(start, steps)) for start, steps in wanted}

    def find_shortcut(self) -> Artifact | None:
        """Figure 5; None where no mark is asked for."""
        if self.shortcut is None:
            return None
        return Shortcut(self.networks, self.examination.params, self.refinement, self.shortcut).measured()

    def over_path_steps(self) -> dict[int, Artifact]:
        """Figure 3b: the explainer trained with other numbers of points on a path than the row `ranking` has."""
        params, measured = self.networks.params, {}
        for steps in self.path_steps:
            if steps != params.objective.steps:
                other = replace(params, objective=replace(params.objective, steps=steps))
                measured[steps] = self.examination.measure(self._learned_row("ranking", other))
        return measured

    def variant(self, role: str) -> RankingParams:
        """The explainer's settings; for `ranking_published` the class and the image enter as in the paper."""
        params = self.networks.params
        if role == "ranking":
            return params
        return replace(
            params,
            decoder=replace(params.decoder, conditioning="concat", pixels=0, gradient=False),
            loss=replace(params.loss, own_class=0.0),
        )

    def draw_of(self, params: RankingParams) -> Draw:
        """Draws the maps of a trained explainer."""
        return _drawn_by(lambda: self.networks.explainer(params))

    def _start(self, name: str) -> Start:
        if name == "flat":
            return Start(name, {}, _flat)
        if name == "rollout":
            # Its rows add up to 1, so its own scale says nothing about how sharp the order is meant to be.
            rollout = self._baseline("attention_rollout")
            return Start(name, {"explainer": rollout.flat()}, self._post_hoc(rollout), scale=_FOREIGN_SCALE)
        params = self.networks.params
        made_from = {"ranking": self.networks.trained(params).key}
        if name == "decoder":
            return Start(name, made_from, explainer=lambda: self.networks.explainer(params))
        return Start(name, made_from, self.draw_of(params))

    def _learned_row(self, role: str, params: RankingParams) -> PerturbationRow:
        artifact = self.networks.trained(params)
        numbers = {"train_seconds": artifact.seconds, "path_steps": float(params.objective.steps)}
        return self._drawn(role, {"ranking": artifact.key}, self.draw_of(params), **numbers)

    def _rival_row(self, role: str) -> PerturbationRow:
        stages, params = self.rivals.stages, getattr(self.rivals, role)
        assert stages is not None
        artifact: Artifact = getattr(stages, role)(params)

        def explainer() -> Any:
            network = stages.explainer(role, params, artifact)
            if isinstance(network, ShapleyNetwork):
                return VitShapleyExplainer(network, stages.network("surrogate"))
            assert isinstance(network, SalvageNetwork)
            return network

        return self._drawn(role, {role: artifact.key}, _drawn_by(explainer), train_seconds=artifact.seconds)

    def _baseline_row(self, role: str) -> PerturbationRow:
        params = self._baseline(role)
        return self._drawn(role, {"explainer": params.flat()}, self._post_hoc(params))

    def _baseline(self, role: str) -> SupervisionParams:
        if role not in self.baselines:
            raise UserError(f"rows: there is no {role} under baselines to start from: add it")
        return self.baselines[role]

    def _post_hoc(self, params: SupervisionParams) -> Draw:
        entry = registry.entry(params.name)

        def draw(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
            network = self.networks.classifier(params.explainer.classifier_removal)
            return entry.build(network, params.explainer).attribute(images.pixels, targets, generator)

        return draw

    def _control_row(self, role: str) -> PerturbationRow:
        if role == "position_prior":
            made_from = {"ranking": self.networks.trained(self.networks.params).key}
            return self._drawn(role, made_from, lambda images, *_: self._mean_map.expand(len(images.pixels), -1, -1))
        draws: dict[str, Draw] = {"random": _random, "brightness": _brightness, "object_mask": _object_mask}
        # Brightness was once the grey level, and is now the distance from the ground.
        return self._drawn(role, {"revision": 2} if role == "brightness" else {}, draws[role])

    def _drawn(self, role: str, made_from: Mapping[str, Any], draw: Draw, **params: float) -> PerturbationRow:
        return PerturbationRow(role, made_from, lambda: self.examination.maps(draw), params)

    @cached_property
    def _mean_map(self) -> Tensor:
        """The mean of the explainer's maps over validation images, [H, W]."""
        stages, params = self.networks.stages, self.examination.params
        available = len(stages.data.source.labels("validation"))
        validation = PerturbationParams(
            "validation", min(available, _PRIOR_IMAGES), params.steps, params.references, params.block
        )
        examined = PerturbationExamination(stages, validation)
        return examined.maps(self.draw_of(self.networks.params)).maps[:, 0].mean(0)


def _drawn_by(make: Callable[[], Any]) -> Draw:
    """The attributions of an explainer that is made when the first block is drawn."""
    made: list[Any] = []

    @torch.no_grad()
    def draw(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
        if not made:
            made.append(make())
        maps: Tensor = made[0].attribute(images.pixels, targets)
        return maps

    return draw


def _flat(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
    return torch.zeros_like(images.pixels[:, 0])


def _random(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(images.pixels[:, 0].shape, generator=generator)


def _brightness(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
    return distance_from_ground(images.pixels)


def _object_mask(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
    assert images.regions is not None
    return images.regions.float()
