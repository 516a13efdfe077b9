"""Evaluation: maps against their reference, written as `result.json` beside `attributions.safetensors`."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xai.core.provenance import peak_memory, provenance
from xai.core.runtime import Runtime
from xai.core.store import Artifact
from xai.data.catalogue import OpenData
from xai.data.module import load_images
from xai.data.registry import Images
from xai.metrics.evaluation import evaluate_maps
from xai.metrics.functional import chance_levels
from xai.models.clip import SelfExplainingClip
from xai.papers.vectors.base import ModelParams
from xai.results import Result, write_result
from xai.stages import supervision as supervision_stage

_REVISION = 1


@dataclass(frozen=True)
class Maps:
    """What a row of the table says of N images: attributions [N, h, w] and, where it is a classifier, logits [N, C]."""

    attributions: Tensor
    logits: Tensor | None = None


@dataclass
class Examination:
    """The N images that every row is measured on, with their reference; loaded when first needed.

    Args:
        runtime: Where to work.
        model: The model, for the size of the images.
        data: The data set.
        split: `validation` or `test`.
        supervision: The reference attributions of that split.
    """

    runtime: Runtime
    model: ModelParams
    data: OpenData
    split: str
    supervision: Artifact
    _images: Images | None = field(default=None, repr=False)

    @property
    def reference(self) -> supervision_stage.Supervision:
        """Rows, labels and reference maps."""
        return supervision_stage.load(self.supervision)

    @property
    def images(self) -> Images:
        """Pixels [N, 3, H, W] and regions [N, H, W] or None."""
        if self._images is None:
            rows = self.reference.rows
            self._images = load_images(self.data.source, self.split, rows, 0, self.model.image_size)
        return self._images


@torch.inference_mode()
def self_explanation(network: SelfExplainingClip, pixels: Tensor, columns: Tensor, batch: int = 128) -> Maps:
    """One forward pass an image: its logits, and the attributions of one class.

    Args:
        network: The classifier.
        pixels: [N, 3, H, W] in [0, 1].
        columns: [N] the class to explain of each image.
        batch: Images a pass.

    Returns:
        Attributions [N, h, w] and logits [N, C], on the CPU.
    """
    device = network.head.device
    logits, maps = [], []
    for rows in torch.arange(len(pixels)).split(batch):
        explained = network.explain(pixels[rows].to(device))
        index = columns[rows].to(device)[:, None, None].expand(-1, explained.attributions.shape[1], 1)
        maps.append(explained.attributions.gather(2, index).reshape(-1, *network.grid).float().cpu())
        logits.append(explained.logits.float().cpu())
    return Maps(torch.cat(maps), torch.cat(logits))


def evaluate(
    runtime: Runtime,
    examination: Examination,
    role: str,
    made_from: Mapping[str, Any],
    maps: Callable[[], Maps],
    *,
    source: str | None,
    seed: int,
    params: Mapping[str, float],
    method: str = "transfer",
) -> Artifact:
    """Measure one row of the table.

    Args:
        runtime: Where to work.
        examination: The images and their reference.
        role: Which row.
        made_from: Everything that determines the maps (keys of artifacts, lambdas, seeds).
        maps: Computes them; called only where the result is not in the store.
        source: Name of the source data set.
        seed: Seed of the run.
        params: Numbers that the row is labelled with (alpha, lambda1, lambda2).
        method: Which method the row belongs to; a label, like the names of the data sets.

    Returns:
        An artifact with `result.json` and `attributions.safetensors`.
    """
    spec = runtime.with_precision(
        {
            "role": role,
            "made_from": dict(made_from),
            "supervision": examination.supervision.key,
            "source": source,
            "seed": seed,
            "params": dict(params),
            "revision": _REVISION,
        }
    )

    def make(workdir: Path) -> None:
        start = time.perf_counter()
        with runtime.trainer.autocast():
            row = maps()
        reference, regions = examination.reference, examination.images.regions
        supervision = examination.supervision
        made_by = {"supervision": supervision.key, "explainer": supervision.spec["explainer"]["name"]}
        metrics = evaluate_maps(
            row.attributions,
            reference.attributions,
            regions,
            row.logits,
            reference.labels if row.logits is not None else None,
        )
        chance = chance_levels(regions, row.attributions[0].numel())
        if row.logits is not None:
            chance["accuracy"] = 1 / row.logits.shape[1]
        result = Result(
            method=method,
            role=role,
            data=examination.data.name,
            source=source,
            model=examination.model.name,
            seed=seed,
            params=dict(params),
            metrics=metrics,
            chance=chance,
            n_images=len(reference.labels),
            seconds=time.perf_counter() - start,
            peak_memory_bytes=peak_memory(runtime.trainer.device),
            lineage={"made_from": dict(made_from), **made_by, **provenance()},
            split=examination.split,
        )
        tensors = {
            "attributions": row.attributions,
            "targets": reference.labels,
            "labels": reference.labels,
            "reference": reference.attributions,
        }
        if row.logits is not None:
            tensors["logits"] = row.logits
        if regions is not None:
            tensors["regions"] = regions.to(torch.uint8)
        write_result(workdir, result, tensors)

    return runtime.store.get("evaluation", spec, make, title=f"evaluation of {role}")
