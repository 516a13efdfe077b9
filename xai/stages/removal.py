"""Measuring maps by removal: each row of the tables of SALVAGE, as `result.json` beside its curves."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field
from torch import Tensor

from xai.classifiers.vit import VitStages
from xai.core.errors import UserError
from xai.core.provenance import peak_memory, provenance
from xai.core.settings import Count, settings
from xai.core.store import Artifact
from xai.data.catalogue import OpenData
from xai.data.module import load_images
from xai.data.pair import PairSet
from xai.data.registry import Images, Split
from xai.games import PatchGame
from xai.metrics import functional
from xai.metrics.classification import agreement, precision_recall_f1_mcc
from xai.metrics.functional.removal import RemovalCurves, removal_curves, scores
from xai.models.timm_vit import MaskableVit
from xai.papers.vectors.fine_tuning import chosen_rows
from xai.results import Result, write_result

_REVISION = 1

Explain = Callable[[Images, Tensor, torch.Generator], Tensor]
"""Images of a block, their targets [B] and a source of randomness, to maps [B, h, w]."""

Classify = Callable[[Tensor], Tensor]
"""Pixels [B, 3, H, W] to logits [B, C]."""


@settings
class EvaluationParams:
    """How maps are measured.

    Args:
        split: `validation` for choosing, `test` for reporting.
        images: How many, drawn with the seed; null takes all.
        masks: n_masks of R-MIF and R-LIF (Algorithm 2), for each size; 128 in the paper.
        block: Images that are explained and measured together; also what shares one design of coalitions.
        regions: Whether RMA, RRA and the pointing game are wanted; null: where the data set has regions.
        probe_images: Images of the pair probe; even, because two ask about one picture.
    """

    split: Split
    images: int | None
    masks: Count
    block: Count
    regions: bool | None = None
    probe_images: Annotated[int, Field(ge=0, multiple_of=2)] = 0


@dataclass(frozen=True)
class RemovalRow:
    """A row of the tables.

    Args:
        role: Its name.
        made_from: All that determines its maps and logits.
        explain: Makes its maps; None for a row that only classifies.
        classify: Its logits, None where it is no classifier.
        params: Numbers it is labelled with.
    """

    role: str
    made_from: Mapping[str, Any]
    explain: Explain | None
    classify: Classify | None
    params: Mapping[str, float]


@dataclass
class RemovalExamination:
    """The images that every row is measured on, and the surrogate that is asked about them.

    Args:
        stages: The networks.
        params: How maps are measured.
        probe: The data set of pairs, None where there is no probe.
    """

    stages: VitStages
    params: EvaluationParams
    probe: OpenData | None = None

    def __post_init__(self) -> None:
        """Refuse before any training what could not be measured after it."""
        data, params = self.stages.data, self.params
        self.rows = chosen_rows(data, params.split, params.images, self.stages.seed, "evaluation")
        has = data.source.images(params.split, self.rows[:1], 0).regions is not None
        if params.regions and not has:
            raise UserError(
                f"evaluation.regions=true asks for RMA and RRA, and data={data.name} has no regions: set it to null"
            )
        self.has_regions = has and params.regions is not False
        if self.probe is None:
            return
        if not isinstance(self.probe.source, PairSet):
            raise UserError(f"probe={self.probe.name} is no data set of pairs: use mnist_pair")
        if tuple(self.probe.source.classes) != tuple(data.source.classes):
            raise UserError(f"probe={self.probe.name} has other classes than data={data.name}: use pairs of the same")

    @property
    def spec(self) -> dict[str, Any]:
        """What determines the images, the draws, and the answers of the surrogate."""
        return {
            "surrogate": self.stages.surrogate.key,
            "data": self.stages.data.spec,
            "probe": None if self.probe is None else self.probe.spec,
            "evaluation": asdict(self.params),
            "seed": self.stages.seed,
        }

    @cached_property
    def images(self) -> Images:
        """Pixels [N, 3, H, W] and regions [N, H, W] or None."""
        images = self._load(self.stages.data, self.rows)
        return images if self.has_regions else Images(images.pixels, None)

    @property
    def labels(self) -> Tensor:
        """True classes [N]; the ones that are explained."""
        return self.stages.data.source.labels(self.params.split)[self.rows]

    @cached_property
    def surrogate(self) -> MaskableVit:
        """What answers v(S)."""
        return self.stages.network("surrogate")

    @cached_property
    def classifier_logits(self) -> Tensor:
        """Logits [N, C] of the classifier before it was fine-tuned on masked images."""
        return self.logits(self.stages.network("classifier"))

    @torch.no_grad()
    def logits(self, classify: Classify) -> Tensor:
        """Logits [N, C] of the images, on the CPU."""
        device = self.stages.runtime.trainer.device
        with self.stages.runtime.trainer.autocast():
            parts = [classify(part.to(device)).float().cpu() for part in self.images.pixels.split(self.params.block)]
        return torch.cat(parts)

    def maps(self, explain: Explain, images: Images, targets: Tensor) -> Tensor:
        """Maps [N, h, w] of images for the classes `targets` [N], block by block, on the CPU."""
        device, found = self.stages.runtime.trainer.device, []
        for number, block in enumerate(torch.arange(len(targets)).split(self.params.block)):
            regions = None if images.regions is None else images.regions[block].to(device)
            part = Images(images.pixels[block].to(device), regions)
            generator = torch.Generator().manual_seed(self.stages.seed * 1_000_003 + number)
            with self.stages.runtime.trainer.autocast():
                found.append(explain(part, targets[block].to(device), generator).detach().float().cpu())
        return torch.cat(found)

    def curves(self, maps: Tensor) -> RemovalCurves:
        """The four curves [N, M] of maps [N, h, w]. Every row is given the same draws."""
        device, found = self.stages.runtime.trainer.device, []
        for number, block in enumerate(torch.arange(len(maps)).split(self.params.block)):
            generator = torch.Generator().manual_seed(self.stages.seed * 1_000_003 + number)
            with self.stages.runtime.trainer.autocast():
                game = PatchGame(self.surrogate, self.images.pixels[block].to(device), self.labels[block].to(device))
                flat = maps[block].flatten(1)
                found.append(removal_curves(game.value, flat, self.params.masks, generator, constant="random"))
        return RemovalCurves(*(torch.cat(parts).cpu() for parts in zip(*found, strict=True)))

    def grid_pointing(self, explain: Explain) -> float:
        """Mean share of positive attribution in the asked object's cell, over pictures of two objects."""
        assert self.probe is not None
        source, split = self.probe.source, self.params.split
        assert isinstance(source, PairSet)
        # Rows 2i and 2i + 1 are the two questions about one picture.
        rows = torch.arange(min(self.params.probe_images, len(source.labels(split))))
        images = self._load(self.probe, rows)
        maps = self.maps(explain, images, source.labels(split)[rows])
        cells = source.cells(split, rows, 0)
        return functional.grid_pointing_game(maps, cells).nanmean().item()

    def _load(self, data: OpenData, rows: Tensor) -> Images:
        size, threads = self.stages.model.image_size, self.stages.runtime.trainer.workers
        return load_images(data.source, self.params.split, rows, 0, size, threads)

    def measure(self, row: RemovalRow) -> Artifact:
        """One row, from the store or measured: an artifact with `result.json` and `attributions.safetensors`."""
        runtime = self.stages.runtime
        spec = {"role": row.role, "made_from": dict(row.made_from), "images": self.spec, "revision": _REVISION}
        title = f"removal of {row.role}"
        return runtime.store.get(
            "removal", runtime.with_precision(spec), lambda work: self._write(work, row), title=title
        )

    def _write(self, workdir: Path, row: RemovalRow) -> None:
        start, stages = time.perf_counter(), self.stages
        metrics: dict[str, float] = {}
        tensors = {"targets": self.labels, "labels": self.labels, "classifier_logits": self.classifier_logits}
        maps = torch.zeros(len(self.rows), *self.surrogate.grid)
        if row.classify is not None:
            logits = self.logits(row.classify)
            metrics |= self._classification(logits)
            tensors["logits"] = logits
        explaining = 0.0
        if row.explain is not None:
            begun = time.perf_counter()
            maps = self.maps(row.explain, self.images, self.labels)
            explaining = time.perf_counter() - begun
            curves = self.curves(maps)
            metrics |= {name: values.mean().item() for name, values in scores(curves).items()}
            of_images = self._localisation(maps)
            metrics |= {name: values.nanmean().item() for name, values in of_images.items()}
            if self.probe is not None and self.params.probe_images:
                metrics["grid_pointing"] = self.grid_pointing(row.explain)
            tensors |= {**curves._asdict(), **of_images}
        if self.images.regions is not None:
            tensors["regions"] = self.images.regions.to(torch.uint8)
        result = Result(
            method="removal",
            role=row.role,
            data=stages.data.name,
            source=None,
            model=stages.model.name,
            seed=stages.seed,
            params={**row.params, "masks": self.params.masks, "explaining_seconds": explaining},
            metrics=metrics,
            n_images=len(self.rows),
            seconds=time.perf_counter() - start,
            peak_memory_bytes=peak_memory(stages.runtime.trainer.device),
            lineage={"made_from": dict(row.made_from), "surrogate": stages.surrogate.key, **provenance()},
            split=self.params.split,
        )
        write_result(workdir, result, {"attributions": maps, **tensors})

    def _classification(self, logits: Tensor) -> dict[str, float]:
        accuracy = (logits.argmax(1) == self.labels).double().mean().item()
        quality = precision_recall_f1_mcc(logits, self.labels)
        return {"accuracy": accuracy, "agreement": agreement(logits, self.classifier_logits).item(), **quality}

    def _localisation(self, maps: Tensor) -> dict[str, Tensor]:
        """What the maps say of the regions, image by image [N]; NaN where a map or a region says nothing."""
        regions = self.images.regions
        if regions is None:
            return {}
        return {
            "rma": functional.relevance_mass_accuracy(maps, regions),
            "rra": functional.relevance_rank_accuracy(maps, regions),
            "pointing_game": functional.pointing_game(maps, regions),
        }
