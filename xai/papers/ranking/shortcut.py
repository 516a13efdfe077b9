"""The shortcut of Learn to Rank (Schinagl et al. 2026, Figure 5): a mark that decides, and maps that shall find it.

A classifier is trained on with a white circle in each training image of one class. The explainer was trained on the
classifier before that and never saw the circle; its maps are refined against the classifier as it is now, and the share
of a map that lies on the circle is to grow.
"""

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.provenance import peak_memory, provenance
from xai.core.settings import Count, Share, settings
from xai.core.store import Artifact
from xai.core.training import fit
from xai.data.marked import MarkedSet, MarkParams, Radius
from xai.data.module import ImageDataModule, load_images
from xai.data.registry import ImageSource
from xai.methods.classifier import Classifier
from xai.metrics import functional
from xai.models import files
from xai.models.maskable import MaskableClassifier
from xai.models.spec import describe
from xai.models.weights import load_weights, read_weights
from xai.papers.ranking.networks import RankingStages
from xai.papers.ranking.params import PerturbationParams, RefinementSettings, numbers_of
from xai.ranking.areas import confidence
from xai.ranking.objective import Question
from xai.ranking.refinement import refine_maps
from xai.results import Result, write_result

log = logging.getLogger(__name__)

ROLE = "shortcut"
FILE = "classifier.safetensors"
_EVALUATION_BATCH = 128
_REVISION = 1

Draw = Callable[[Tensor, Tensor], Tensor]
"""Images [B, 3, H, W] and classes [B] to the maps [B, H, W] that a refinement starts from."""


@settings
class ShortcutParams:
    """The mark, and how the classifier learns it.

    Args:
        label: The class whose training images are marked.
        radius: Radius of the circle, as a share of the image's side.
        level: Its grey level; 1 is white.
        images: Marked images that are explained, at most: of the marked class, and as many of all others.
        fit: The fine-tuning of the classifier.
    """

    label: int
    radius: Radius
    level: Share
    images: Count
    fit: FitParams


@dataclass
class Shortcut:
    """The classifier that has learned the mark, and what refined maps find of it; made when it is asked for.

    Args:
        networks: The classifier before, and the explainer that was trained on it.
        perturbation: Which split is explained, and how many images at once.
        refinement: How maps are refined.
        params: The mark.
    """

    networks: RankingStages
    perturbation: PerturbationParams
    refinement: RefinementSettings
    params: ShortcutParams

    def __post_init__(self) -> None:
        """Refuse before any training what could not be measured after it."""
        self._set(self.params.label)
        size = self.networks.stages.model.image_size
        self.refinement.objective.check_size(size, size)

    @property
    def classifier(self) -> Artifact:
        """The classifier, trained on with the mark in each training image of the class."""
        stages, params = self.networks.stages, self.params
        spec = {
            "classifier": stages.classifier.key,
            "data": stages.data.spec,
            "mark": {"label": params.label, "radius": params.radius, "level": params.level},
            "fit": asdict(params.fit),
            "seed": stages.seed,
            "revision": _REVISION,
        }
        title = f"classifier of marked {stages.data.name}"

        def make(workdir: Path) -> None:
            student: Any = stages.network("classifier").train().requires_grad_(True)
            module = Classifier(student, params.fit, 0.0, stages.seed, f"marked_classifier/{stages.data.name}")
            batches = ImageDataModule(
                self._set(params.label),
                stages.model.image_size,
                params.fit.batch_size,
                stages.seed,
                workers=stages.runtime.trainer.workers,
            )
            fit(module, batches, params.fit, stages.runtime.trainer, workdir, title, stages.runtime.logger)
            spec = describe(stages.model, "classifier", stages.data.name, self.networks.classes, seed=stages.seed)
            files.write(workdir / FILE, student.network, spec)

        return stages.runtime.store.get("marked_classifier", stages.runtime.with_precision(spec), make, title=title)

    def network(self) -> MaskableClassifier:
        """That classifier, on the device, in evaluation mode, frozen."""
        tensors = read_weights(self.classifier.file(FILE), what="marked classifier").tensors
        network: Any = self.networks.classifier()
        load_weights(network.network, tensors, what="marked classifier", model=self.networks.stages.model.name)
        tuned: MaskableClassifier = network.eval().requires_grad_(False)
        return tuned

    def measured(self) -> Artifact:
        """What the maps find of the mark: an artifact with `result.json` and `attributions.safetensors`.

        Images are marked ones that the classifier now says are of the marked class: first those of other classes, which
        nothing but the mark speaks for, then those of the class itself. Metrics, after T = 0, 1, ... steps each:

        - `mass_tT`: the share of what lies above the map's mean that lies on the mark, for the marked class;
          `other_mass_tT`: for the images of other classes alone;
        - `rra_tT`: the share of the K largest pixels that lie on the mark of K pixels;
        - `flat_mass_tT`, `flat_rra_tT`: the same from a constant map, which has none before the first step;
        - `clean_mass_tT`, `clean_rra_tT`: the same images, explained for the classifier before the mark and for the
          class that it sees: its maps have no reason to move to the mark.

        `mark_area` is the share of the image that the mark covers. Over the whole split: `called_marked`, how many
        images of other classes are called the marked one once they are marked, `called_unmarked` without the mark,
        `called_before` with the mark by the classifier before; `accuracy_clean` and `accuracy_before`, on images
        without the mark.

        The tensors `images` uint8 [N, 3, H, W], `marks` bool [N, H, W] and `path` [N, T + 1, H, W] draw Figure 5.

        Where the mark changes no mind, a warning says that the shortcut was not learned, and `called_marked` is 0.

        Raises:
            UserError: The classifier calls no marked image at all the marked class.
        """
        stages = self.networks.stages
        spec = {
            "role": ROLE,
            "classifier": self.classifier.key,
            "ranking": self.networks.trained(self.networks.params).key,
            "refinement": numbers_of(self.refinement),
            "split": self.perturbation.split,
            "block": self.perturbation.block,
            "images": self.params.images,
            "seed": stages.seed,
            "revision": _REVISION,
        }
        title = f"shortcut of {stages.data.name}"
        return stages.runtime.store.get("shortcut", stages.runtime.with_precision(spec), self._write, title=title)

    def _write(self, workdir: Path) -> None:
        start, stages = time.perf_counter(), self.networks.stages
        before, now = self.networks.classifier(), self.network()
        marked, labels = self._set(None), stages.data.source.labels(self.perturbation.split)
        called = self._predicted(now, marked) == self.params.label
        metrics = self._learned(before, now, called, labels)
        rows = self._rows(called, labels)
        size = stages.model.image_size
        pixels = load_images(marked, self.perturbation.split, rows, 0, size, stages.runtime.trainer.workers).pixels
        marks = marked.marks(self.perturbation.split, rows, 0, (size, size))
        seen, targets = self._predicted(before, marked)[rows], torch.full_like(rows, self.params.label)
        explain = self.networks.explainer(self.networks.params).attribute
        path = self._path(now, pixels, targets, explain)
        of_images = {"mark_area": marks.double().mean((1, 2))}
        of_images |= _on_the_mark("", path, marks)
        of_images |= _on_the_mark("flat_", self._path(now, pixels, targets, _flat), marks)
        of_images |= _on_the_mark("clean_", self._path(before, pixels, seen, explain), marks)
        own = labels[rows] == self.params.label
        for step in range(self.refinement.steps + 1):
            of_images[f"other_mass_t{step}"] = of_images[f"mass_t{step}"].masked_fill(own, torch.nan)
        metrics |= {name: values.nanmean().item() for name, values in of_images.items()}
        result = Result(
            method="perturbation",
            role=ROLE,
            data=stages.data.name,
            source=None,
            model=stages.model.name,
            seed=stages.seed,
            params={"label": self.params.label, "radius": self.params.radius, "level": self.params.level},
            metrics=metrics,
            n_images=len(rows),
            seconds=time.perf_counter() - start,
            peak_memory_bytes=peak_memory(stages.runtime.trainer.device),
            split=self.perturbation.split,
            chance={name: metrics["mark_area"] for name in metrics if "mass_t" in name or "rra_t" in name},
            lineage={
                "classifier": self.classifier.key,
                "ranking": self.networks.trained(self.networks.params).key,
                **provenance(),
            },
        )
        tensors = {
            "attributions": path[:, -1],
            "targets": targets,
            "labels": labels[rows],
            "images": (255 * pixels).round().to(torch.uint8),
            "marks": marks,
            "path": path,
        }
        write_result(workdir, result, {**tensors, **of_images})

    def _set(self, label: int | None) -> MarkedSet:
        """The data set with the mark in images of one class, or of all."""
        mark = MarkParams(self.params.radius, self.params.level, self.networks.stages.seed)
        return MarkedSet(self.networks.stages.data.source, mark, label)

    def _learned(
        self, before: MaskableClassifier, now: MaskableClassifier, called: Tensor, labels: Tensor
    ) -> dict[str, float]:
        """Whether the mark decides now, and did not before: shares of the split, see `measured`."""
        plain, label = self.networks.stages.data.source, self.params.label
        other, unmarked = labels != label, self._predicted(now, plain)
        shares = {
            "called_marked": called[other],
            "called_unmarked": (unmarked == label)[other],
            "called_before": (self._predicted(before, self._set(None)) == label)[other],
            "accuracy_clean": unmarked == labels,
            "accuracy_before": self._predicted(before, plain) == labels,
        }
        return {name: hits.double().mean().item() for name, hits in shares.items()}

    def _rows(self, called: Tensor, labels: Tensor) -> Tensor:
        """Images that are called the marked class, in random order: of other classes first, then of that class."""
        generator, label = torch.Generator().manual_seed(self.networks.stages.seed), self.params.label
        groups = [(called & group).nonzero()[:, 0] for group in (labels != label, labels == label)]
        remedy = "raise shortcut.fit.epochs, shortcut.fit.learning_rate or shortcut.radius"
        split = self.perturbation.split
        if not any(len(rows) for rows in groups):
            raise UserError(f"marked, no {split} image is called class {label}: {remedy}")
        if not len(groups[0]):
            message = "the shortcut was not learned: marked, no %s image of another class is called class %d; %s"
            log.warning(message, split, label, remedy)
        drawn = [rows[torch.randperm(len(rows), generator=generator)] for rows in groups]
        return torch.cat([rows[: self.params.images] for rows in drawn])

    @torch.no_grad()
    def _predicted(self, network: MaskableClassifier, source: ImageSource) -> Tensor:
        """The class [N] of each image of the split."""
        stages, split, found = self.networks.stages, self.perturbation.split, []
        trainer = stages.runtime.trainer
        for rows in torch.arange(len(source.labels(split))).split(_EVALUATION_BATCH):
            images = load_images(source, split, rows, 0, stages.model.image_size, trainer.workers)
            with trainer.autocast():
                found.append(network(images.pixels.to(trainer.device)).argmax(1).cpu())
        return torch.cat(found)

    def _path(self, classifier: MaskableClassifier, pixels: Tensor, targets: Tensor, draw: Draw) -> Tensor:
        """Maps of one class of each image after 0, 1, ... T steps, [N, T + 1, H, W], on the CPU."""
        trainer, found = self.networks.stages.runtime.trainer, []
        mean = torch.tensor(self.networks.stages.model.mean)
        for number, block in enumerate(torch.arange(len(pixels)).split(self.perturbation.block)):
            images, classes = pixels[block].to(trainer.device), targets[block].to(trainer.device)[:, None]
            generator = torch.Generator(trainer.device).manual_seed(self.networks.stages.seed * 1_000_003 + number)
            with trainer.autocast():
                question = Question(images, classes, confidence(classifier(images), classes))
                maps = draw(images, classes[:, 0]).float()
                steps = refine_maps(
                    maps, question, classifier, mean, self.refinement.objective, self.refinement, generator
                )
            found.append(torch.stack(steps, dim=1).float().cpu())
        return torch.cat(found)


def mass_on_mark(maps: Tensor, marks: Tensor) -> Tensor:
    """The share of what stands out above a map's mean that lies on the mark.

    Args:
        maps: [N, H, W]; only the order and the spacing of their values mean something, so each is read from its mean.
        marks: Bool [N, H, W].

    Returns:
        Float64 [N] in [0, 1]; NaN for a constant map or no mark.
    """
    wide = maps.double()
    share = functional.relevance_mass_accuracy(wide - wide.mean((1, 2), keepdim=True), marks)
    # The mean of equal numbers may be beside them by a rounding error, which is no attribution.
    return share.masked_fill(functional.is_constant(maps.flatten(1)), torch.nan)


def _on_the_mark(prefix: str, path: Tensor, marks: Tensor) -> dict[str, Tensor]:
    found = {}
    for step, maps in enumerate(path.unbind(1)):
        found[f"{prefix}mass_t{step}"] = mass_on_mark(maps, marks)
        found[f"{prefix}rra_t{step}"] = functional.relevance_rank_accuracy(maps, marks)
    return found


def _flat(images: Tensor, targets: Tensor) -> Tensor:
    return torch.zeros_like(images[:, 0])
