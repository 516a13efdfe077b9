"""Measuring maps by deletion and insertion of pixels: each row of the tables of Learn to Rank, as a result."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.classifiers.networks import ClassifierStages
from xai.core.provenance import peak_memory, provenance
from xai.core.store import Artifact
from xai.data.module import load_images
from xai.data.registry import Images
from xai.metrics import functional
from xai.metrics.functional.perturbation import area, enlarge_map, perturbation_curves
from xai.models.maskable import MaskableClassifier, Removal, reference_image
from xai.papers.ranking.params import PerturbationParams
from xai.papers.vectors.fine_tuning import chosen_rows
from xai.ranking.objective import training_targets
from xai.results import Result, write_result

_REVISION = 1

Draw = Callable[[Images, Tensor, torch.Generator], Tensor]
"""Images of a block, their targets [B] and a source of randomness, to maps [B, h, w] or [B, H, W]."""


@dataclass(frozen=True)
class PerturbationRow:
    """A row of the tables.

    Args:
        role: Its name.
        made_from: All that determines its maps.
        maps: Makes its maps, when they are wanted.
        params: Numbers it is labelled with.
    """

    role: str
    made_from: Mapping[str, Any]
    maps: Callable[[], "Maps"]
    params: Mapping[str, float]


class Maps(NamedTuple):
    """Maps [N, 2, H, W] of two classes of each image, and the seconds that one map took.

    The first class is the predicted one, the second the runner-up or, where the prediction is wrong, the true one.
    """

    maps: Tensor
    seconds: float


@dataclass
class PerturbationExamination:
    """The images that every row is measured on, and the classifier that is asked about them.

    Args:
        stages: Where the classifier comes from.
        params: How maps are measured.
    """

    stages: ClassifierStages
    params: PerturbationParams

    def __post_init__(self) -> None:
        """Refuse before any training what could not be measured after it."""
        data, params = self.stages.data, self.params
        self.rows = chosen_rows(data, params.split, params.images, self.stages.seed, "perturbation")

    @property
    def spec(self) -> dict[str, Any]:
        """What determines the images, the draws, and the answers of the classifier."""
        return {
            "classifier": self.stages.classifier.key,
            "data": self.stages.data.spec,
            "perturbation": asdict(self.params),
            "seed": self.stages.seed,
        }

    @cached_property
    def images(self) -> Images:
        """Pixels [N, 3, H, W] and regions [N, H, W] or None."""
        stages = self.stages
        size, threads = stages.model.image_size, stages.runtime.trainer.workers
        return load_images(stages.data.source, self.params.split, self.rows, 0, size, threads)

    @property
    def labels(self) -> Tensor:
        """True classes [N]."""
        return self.stages.data.source.labels(self.params.split)[self.rows]

    @cached_property
    def classifier(self) -> MaskableClassifier:
        """What is explained."""
        network: MaskableClassifier = self.stages.network("classifier")
        return network

    @cached_property
    @torch.no_grad()
    def logits(self) -> Tensor:
        """What the classifier says of the whole images, [N, C], on the CPU."""
        device = self.stages.runtime.trainer.device
        with self.stages.runtime.trainer.autocast():
            parts = [self.classifier(p.to(device)).float().cpu() for p in self.images.pixels.split(self.params.block)]
        return torch.cat(parts)

    @property
    def targets(self) -> Tensor:
        """The two classes maps are drawn for, [N, 2]."""
        return training_targets(self.logits, self.labels)

    @property
    def right(self) -> Tensor:
        """Whether the prediction is right, [N]."""
        return self.targets[:, 0] == self.labels

    def maps(self, draw: Draw) -> Maps:
        """Maps of both classes of every image, block by block, on the CPU.

        Every block is drawn with a generator of its own, the same for each row.
        """
        device, found, begun = self.stages.runtime.trainer.device, [], time.perf_counter()
        height, width = self.images.pixels.shape[-2:]
        for number, block in enumerate(torch.arange(len(self.rows)).split(self.params.block)):
            pixels, regions = self.images
            part = Images(pixels[block].to(device), None if regions is None else regions[block].to(device))
            pair = []
            for targets in self.targets[block].to(device).unbind(1):
                generator = torch.Generator().manual_seed(self.stages.seed * 1_000_003 + number)
                with self.stages.runtime.trainer.autocast():
                    drawn = draw(part, targets, generator).detach().float().cpu()
                pair.append(enlarge_map(drawn, (height, width)))
            found.append(torch.stack(pair, dim=1))
        return Maps(torch.cat(found), (time.perf_counter() - begun) / (2 * len(self.rows)))

    def measure(self, row: PerturbationRow) -> Artifact:
        """One row, from the store or measured: an artifact with `result.json` and `attributions.safetensors`."""
        runtime = self.stages.runtime
        spec = {"role": row.role, "made_from": dict(row.made_from), "images": self.spec, "revision": _REVISION}
        title = f"deletion and insertion of {row.role}"
        return runtime.store.get(
            "perturbation", runtime.with_precision(spec), lambda work: self._write(work, row), title=title
        )

    def _write(self, workdir: Path, row: PerturbationRow) -> None:
        start, stages, drawn = time.perf_counter(), self.stages, row.maps()
        of_images, curves = self._scores(drawn.maps)
        regions = self.images.regions
        if regions is not None:
            predicted = drawn.maps[:, 0]
            of_images["pointing_game"] = functional.pointing_game(predicted, regions)
            of_images["rra"] = functional.relevance_rank_accuracy(predicted, regions)
        of_images["class_correlation"] = _correlation(drawn.maps)
        tensors = {"targets": self.targets[:, 0], "labels": self.labels, "logits": self.logits, **of_images, **curves}
        result = Result(
            method="perturbation",
            role=row.role,
            data=stages.data.name,
            source=None,
            model=stages.model.name,
            seed=stages.seed,
            params={**row.params, "seconds_per_image": drawn.seconds},
            metrics={name: values.nanmean().item() for name, values in of_images.items()},
            n_images=len(self.rows),
            seconds=time.perf_counter() - start,
            peak_memory_bytes=peak_memory(stages.runtime.trainer.device),
            lineage={"made_from": dict(row.made_from), "classifier": stages.classifier.key, **provenance()},
            split=self.params.split,
        )
        write_result(
            workdir, result, {"attributions": drawn.maps[:, 0], "attributions_second": drawn.maps[:, 1], **tensors}
        )

    def _scores(self, maps: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Areas [N] by metric, and curves [N, S] by name, for the predicted and for the true class."""
        found = {name: self._curves(maps, name) for name in self.params.references}
        areas: dict[str, Tensor] = {}
        curves: dict[str, Tensor] = {}
        for position, target in enumerate(("", "_true")):
            for kind in ("deletion", "insertion"):
                of_kind = {name: of_reference[kind][:, position] for name, of_reference in found.items()}
                curves |= {f"curve_{kind}{target}_{name}": values.float() for name, values in of_kind.items()}
                single = {name: area(values) for name, values in of_kind.items()}
                areas |= {f"{kind}_auc{target}_{name}": values for name, values in single.items()}
                areas[f"{kind}_auc{target}"] = torch.stack(list(single.values())).mean(0)
            areas[f"difference_auc{target}"] = areas[f"insertion_auc{target}"] - areas[f"deletion_auc{target}"]
        return areas, curves

    def _curves(self, maps: Tensor, reference: str) -> dict[str, Tensor]:
        """Deletion and insertion, each [N, 2, S]: of the predicted and of the true class, each along its own map."""
        device, parts = self.stages.runtime.trainer.device, []
        mean = torch.tensor(self.stages.model.mean)
        for number, block in enumerate(torch.arange(len(maps)).split(self.params.block)):
            pixels = self.images.pixels[block].to(device)
            shown = reference_image(pixels, Removal("pixels", reference), mean)
            first, wrong = self.targets[block, :1].to(device), ~self.right[block]
            both = [self._along(pixels, maps[block, 0], first, shown, number)]
            both.append([curve.clone() for curve in both[0]])
            if wrong.any():
                own = shown if len(shown) == 1 else shown[wrong.to(device)]
                labels = self.labels[block][wrong][:, None].to(device)
                other = self._along(pixels[wrong.to(device)], maps[block, 1][wrong], labels, own, number)
                for curve, values in zip(both[1], other, strict=True):
                    curve[wrong] = values
            parts.append([torch.stack(pair, dim=1) for pair in zip(*both, strict=True)])
        deletion, insertion = (torch.cat(kind) for kind in zip(*parts, strict=True))
        return {"deletion": deletion, "insertion": insertion}

    def _along(self, pixels: Tensor, maps: Tensor, targets: Tensor, reference: Tensor, number: int) -> list[Tensor]:
        """Deletion and insertion curves [b, S] of one class an image, on the CPU."""
        generator = torch.Generator().manual_seed(self.stages.seed * 1_000_003 + number)
        with self.stages.runtime.trainer.autocast():
            found = perturbation_curves(
                self.classifier, pixels, maps.to(pixels), targets, reference, generator, self.params.steps
            )
        return [curve[..., 0].cpu() for curve in found]


def _correlation(maps: Tensor) -> Tensor:
    """Pearson correlation [N] of the two maps [N, 2, H, W] of an image; NaN where one is constant."""
    flat = maps.flatten(2)
    centred = flat.double() - flat.double().mean(2, keepdim=True)
    value = F.cosine_similarity(centred[:, 0], centred[:, 1], dim=1)
    return value.masked_fill(functional.is_constant(flat).any(1), torch.nan)
