"""`method=salvage` and `method=vit_shapley`: learned explainers beside post-hoc ones and controls, row by row."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xai.classifiers.params import SalvageParams, VitShapleyParams
from xai.classifiers.vit import VitStages
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.provenance import peak_memory, provenance
from xai.core.settings import unknown
from xai.core.store import Artifact
from xai.data.registry import Images
from xai.explainers import registry
from xai.explainers.learned.vit_shapley import VitShapleyExplainer
from xai.games import PatchGame
from xai.metrics.functional import patch_coverage
from xai.models.explainer import SalvageNetwork, ShapleyNetwork
from xai.results import Result, write_result
from xai.shapley.informed import informed_coalitions
from xai.shapley.masks import random_masks
from xai.stages.controls import ink
from xai.stages.removal import Explain, RemovalExamination, RemovalRow
from xai.stages.supervision import SupervisionParams, open_supervision

SAMPLINGS = {"salvage": None, "salvage_uniform": "uniform", "salvage_kernel": "shapley_kernel"}
"""Roles of SALVAGE, and the sampling of masks that makes the role; None takes the one that is configured."""

CLASSIFIERS = ("classifier", "surrogate")
CONTROLS = ("random", "brightness", "position_prior", "object_mask")
_LIKELIHOOD_MASKS = 8
_LIKELIHOOD_REVISION = 1


@dataclass
class Study:
    """The rows of one model, one data set and one seed; each is computed when it is first asked for.

    Args:
        stages: The networks.
        examination: The images.
        salvage: How SALVAGE is trained.
        vit_shapley: How ViT-Shapley is trained.
        baselines: Post-hoc explainers by role.
        rows: The roles to measure, in order.
        lengths: Shares of the training at which Figure 7 looks; none draws no Figure 7.
        likelihood: Whether Figure 6 is wanted.
    """

    stages: VitStages
    examination: RemovalExamination
    salvage: SalvageParams
    vit_shapley: VitShapleyParams
    baselines: Mapping[str, SupervisionParams]
    rows: tuple[str, ...]
    lengths: tuple[float, ...]
    likelihood: bool

    def __post_init__(self) -> None:
        """Refuse rows that nobody knows, and those that this data set cannot have."""
        known = [*SAMPLINGS, "vit_shapley", *CLASSIFIERS, *CONTROLS, *self.baselines]
        for role in self.rows:
            if role not in known:
                raise UserError(unknown(f"rows: {role}", role, known, "row"))
        if "object_mask" in self.rows and not self.examination.has_regions:
            raise UserError(
                f"rows: object_mask needs the regions of the objects, data={self.stages.data.name} has none: drop it"
            )
        asked = {
            "rows: position_prior": "position_prior" in self.rows,
            "likelihood=true": self.likelihood,
            "lengths": bool(self.lengths),
        }
        for name, wanted in asked.items():
            if wanted and "salvage" not in self.rows:
                raise UserError(f"{name} is about SALVAGE, which is not among the rows: add salvage to rows")
        for share in self.lengths:
            _shortened(self.salvage.fit, share)
            _shortened(self.vit_shapley.fit, share)
        for group, params in (("salvage", self.salvage), ("vit_shapley", self.vit_shapley)):
            if self.stages.width % params.heads:
                raise UserError(
                    f"{group}.heads={params.heads} does not divide the {self.stages.width} channels of "
                    f"model={self.stages.model.name}: choose a divisor"
                )

    def run(self) -> list[Artifact]:
        """Every row, as artifacts with results."""
        return [self.measured(role) for role in self.rows]

    def measured(self, role: str) -> Artifact:
        """One row."""
        return self.examination.measure(self.row(role))

    def row(self, role: str) -> RemovalRow:
        """What a role is made of."""
        if role in SAMPLINGS:
            return self._salvage_row(role)
        if role == "vit_shapley":
            return self._vit_shapley_row()
        if role in CLASSIFIERS:
            artifact = getattr(self.stages, role)
            network = self.stages.network(role)
            return RemovalRow(role, {role: artifact.key}, None, network, {"train_seconds": artifact.seconds})
        if role in CONTROLS:
            return self._control_row(role)
        return self._baseline_row(role)

    def over_length(self) -> dict[tuple[str, float], Artifact]:
        """Figure 7: SALVAGE with and without informed sampling, trained for shares of the usual length.

        Where ViT-Shapley is among the rows, it is trained for the same shares: so its cost to a given SRG is known.
        """
        found = {}
        roles = ["salvage", "salvage_uniform", *(["vit_shapley"] if "vit_shapley" in self.rows else [])]
        for role in roles if self.lengths else ():
            for share in (*self.lengths, 1.0):
                row = self._vit_shapley_row(share) if role == "vit_shapley" else self._salvage_row(role, share)
                found[role, share] = self.examination.measure(row)
        return found

    def training_seconds(self) -> dict[str, float]:
        """What the training of each network took, by role; what the store already held counts as when it was made."""
        artifacts = {kind: getattr(self.stages, kind) for kind in CLASSIFIERS}
        artifacts |= {role: self.stages.salvage(self._sampled(role)) for role in self.rows if role in SAMPLINGS}
        if "vit_shapley" in self.rows:
            artifacts["vit_shapley"] = self.stages.vit_shapley(self.vit_shapley)
        return {role: artifact.seconds for role, artifact in artifacts.items()}

    def explainer(self, role: str) -> SalvageNetwork | VitShapleyExplainer:
        """A trained explainer, ready to attribute."""
        if role == "vit_shapley":
            network = self.stages.explainer("vit_shapley", self.vit_shapley, self.stages.vit_shapley(self.vit_shapley))
            assert isinstance(network, ShapleyNetwork)
            return VitShapleyExplainer(network, self.examination.surrogate)
        params = self._sampled(role)
        network = self.stages.explainer("salvage", params, self.stages.salvage(params))
        assert isinstance(network, SalvageNetwork)
        return network

    @cached_property
    def mask_likelihood(self) -> Artifact:
        """Figure 6: the mean likelihood of the true class by mask size, masks drawn at random and by Algorithm 3.

        An artifact with a result whose tensors are `random` and `informed`, each [N, M].
        """
        explainer, stages = self.stages.salvage(self.salvage), self.stages
        spec = {"salvage": explainer.key, "images": self.examination.spec, "revision": _LIKELIHOOD_REVISION}

        def make(workdir: Path) -> None:
            start, row = time.perf_counter(), self._salvage_row("salvage")
            assert row.explain is not None
            maps = self.examination.maps(row.explain, self.examination.images, self.examination.labels)
            drawn = [self._likelihood(block, maps) for block in torch.arange(len(maps)).split(self.block)]
            likelihood = {name: torch.cat([part[name] for part in drawn]) for name in drawn[0]}
            flatness = {f"spread_{name}": (values - 0.5).abs().mean().item() for name, values in likelihood.items()}
            result = Result(
                method="removal",
                role="mask_likelihood",
                data=stages.data.name,
                source=None,
                model=stages.model.name,
                seed=stages.seed,
                params={"masks": _LIKELIHOOD_MASKS},
                metrics=flatness,
                n_images=len(maps),
                seconds=time.perf_counter() - start,
                peak_memory_bytes=peak_memory(stages.runtime.trainer.device),
                lineage={"salvage": explainer.key, **provenance()},
                split=self.examination.params.split,
            )
            write_result(workdir, result, {"attributions": maps, **likelihood})

        return stages.runtime.store.get(
            "likelihood", stages.runtime.with_precision(spec), make, title="likelihood of masks"
        )

    @property
    def block(self) -> int:
        """Images that are worked on together."""
        return self.examination.params.block

    def _likelihood(self, block: Tensor, maps: Tensor) -> dict[str, Tensor]:
        """Mean likelihood [b, M] of the true class of a block of images, over masks of each size 1 ... M."""
        players = maps[0].numel()
        generator = torch.Generator().manual_seed(self.stages.seed * 1_000_003 + int(block[0]))
        sizes = torch.arange(1, players + 1).repeat(_LIKELIHOOD_MASKS)
        flat = maps[block].flatten(1)
        coalitions = {
            "random": random_masks(len(block), players, sizes, generator),
            "informed": informed_coalitions(flat, sizes, generator),
        }
        device = self.stages.runtime.trainer.device
        pixels, labels = self.examination.images.pixels[block], self.examination.labels[block]
        game = PatchGame(self.examination.surrogate, pixels.to(device), labels.to(device))
        return {
            name: game.value(keep).cpu().unflatten(1, (_LIKELIHOOD_MASKS, players)).mean(1)
            for name, keep in coalitions.items()
        }

    def _sampled(self, role: str, share: float = 1.0) -> SalvageParams:
        sampling: Any = SAMPLINGS[role] or self.salvage.sampling
        return replace(self.salvage, sampling=sampling, fit=_shortened(self.salvage.fit, share))

    def _salvage_row(self, role: str, share: float = 1.0) -> RemovalRow:
        params = self._sampled(role, share)
        artifact = self.stages.salvage(params)
        network = self.stages.explainer("salvage", params, artifact)
        assert isinstance(network, SalvageNetwork)
        label = {"share": share, "epochs": params.fit.epochs, "train_seconds": artifact.seconds}
        return RemovalRow(role, {"salvage": artifact.key}, _explaining(network), network.classify, label)

    def _vit_shapley_row(self, share: float = 1.0) -> RemovalRow:
        params = replace(self.vit_shapley, fit=_shortened(self.vit_shapley.fit, share))
        artifact = self.stages.vit_shapley(params)
        network = self.stages.explainer("vit_shapley", params, artifact)
        assert isinstance(network, ShapleyNetwork)
        explainer = VitShapleyExplainer(network, self.examination.surrogate)
        label = {"share": share, "epochs": params.fit.epochs, "train_seconds": artifact.seconds}
        return RemovalRow("vit_shapley", {"vit_shapley": artifact.key}, _explaining(explainer), network.classify, label)

    def _baseline_row(self, role: str) -> RemovalRow:
        params = self.baselines[role]
        entry = registry.entry(params.name)
        network = self.stages.network("surrogate", params.explainer.classifier_removal)

        def explain(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
            return entry.build(network, params.explainer).attribute(images.pixels, targets, generator)

        return RemovalRow(role, {"explainer": params.flat()}, explain, None, {})

    def _control_row(self, role: str) -> RemovalRow:
        grid = self.examination.surrogate.grid
        made_from: dict[str, Any] = {}

        def random(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
            return torch.rand(len(targets), *grid, generator=generator)

        def brightness(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
            return ink(images.pixels, grid)

        def object_mask(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
            assert images.regions is not None
            return patch_coverage(images.regions, grid)

        explain: Explain = {"random": random, "brightness": brightness, "object_mask": object_mask}.get(role, random)
        if role == "position_prior":
            explain = partial(_same_map, self._mean_map)
            made_from = {"salvage": self.stages.salvage(self.salvage).key}
        return RemovalRow(role, made_from, explain, None, {})

    @cached_property
    def _mean_map(self) -> Tensor:
        """The mean of SALVAGE's maps over validation images, [h, w]."""
        params = replace(self.examination.params, split="validation", images=None, regions=None)
        validation = RemovalExamination(self.stages, params)
        explain = self._salvage_row("salvage").explain
        assert explain is not None
        return validation.maps(explain, validation.images, validation.labels).mean(0)


def open_baselines(settings: Mapping[str, Any], pixels: bool = False) -> dict[str, SupervisionParams]:
    """Post-hoc explainers by role, each with the settings it has as supervision.

    Args:
        settings: By role.
        pixels: Whether maps of pixels will do, where maps are measured pixel by pixel.

    Raises:
        UserError: For an unknown explainer, or a wrong setting of one.
    """
    found = {}
    for role, own in settings.items():
        if not isinstance(own, Mapping):
            raise UserError(f"baselines.{role}={own} must be the settings of an explainer")
        name = own.get("name")
        if isinstance(name, str) and name not in registry.names():
            raise UserError(unknown(f"baselines.{role}.name={name}", name, registry.names(), "explainer"))
        found[role] = open_supervision(own, f"baselines.{role}", pixels).of("test")
    return found


def _explaining(explainer: SalvageNetwork | VitShapleyExplainer) -> Explain:
    @torch.no_grad()
    def explain(images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
        return explainer.attribute(images.pixels, targets)

    return explain


def _same_map(mean: Tensor, images: Images, targets: Tensor, generator: torch.Generator) -> Tensor:
    return mean.expand(len(targets), -1, -1)


def _shortened(fit: FitParams, share: float) -> FitParams:
    """The same training over a share of its epochs."""
    if not 0 < share <= 1:
        raise UserError(f"lengths: {share} is a share of the training: it must be above 0 and at most 1")
    epochs = fit.epochs * share
    # 0.29 of 100 is 28.999999999999996 in floating point, and 29 to whoever typed it.
    if abs(epochs - round(epochs)) > 1e-9 or round(epochs) < 1:
        raise UserError(f"lengths: {share} of {fit.epochs} epochs is no whole number of epochs: choose another share")
    return replace(fit, epochs=round(epochs))
