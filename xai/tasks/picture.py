"""A picture explained from outside: any explainer of a classifier, refined by steps of deletion and insertion."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.training import TrainerParams
from xai.explainers.registry import Row
from xai.metrics.functional.perturbation import area, enlarge_map, perturbation_curves
from xai.models.maskable import MaskableClassifier
from xai.models.normalisation import Normalisation
from xai.ranking.areas import confidence
from xai.ranking.objective import ObjectiveParams, Question
from xai.ranking.paths import open_reference
from xai.ranking.refinement import RefinementParams, in_units, refine_maps

_CHUNK = 64

Explain = Callable[[Tensor, Tensor], Tensor]
"""Images [B, 3, H, W] and classes [B] to maps [B, h, w]."""


@dataclass(frozen=True)
class PostHocParams:
    """How a picture is explained by a classifier that does not explain itself.

    Args:
        row: The explainer whose map comes first.
        objective: What its refinement improves, and by which references maps are measured.
        refinement: How it is refined.
        seed: Of all that is drawn.
    """

    row: Row
    objective: ObjectiveParams
    refinement: RefinementParams
    seed: int


@dataclass(frozen=True)
class Measured:
    """A map of one class, and what it is worth.

    Args:
        name: What made it.
        attributions: [h, w], a patch or a pixel each.
        deletion: Area under the deletion curve, mean over the references; lower is better.
        insertion: Area under the insertion curve; higher is better.
        seconds: What making it took; a refined map takes those of the first one besides.
    """

    name: str
    attributions: Tensor
    deletion: float
    insertion: float
    seconds: float


def explain_post_hoc(
    classifier: MaskableClassifier,
    images: Tensor,
    target: int,
    params: PostHocParams,
    trainer: TrainerParams,
    own: tuple[str, Explain] | None = None,
) -> list[Measured]:
    """Explain one picture for one class, first by an explainer and then by its refined map.

    Args:
        classifier: In evaluation mode, on the device, removing patches as the explainer wants it.
        images: [1, 3, H, W] in [0, 1], on the device.
        target: The class.
        params: How.
        trainer: Device and precision.
        own: Name of a trained explainer of this classifier, and what makes its maps; it takes the place of the post-hoc
            one.

    Returns:
        The explainer's map and, where there are steps to be taken, the refined one.

    Raises:
        UserError: The explainer is none for this classifier, its map is not finite, or a setting does not fit the size
            of the image.
    """
    height, width = images.shape[-2:]
    params.objective.check_size(height, width)
    picture = _Picture(classifier, images, torch.tensor([[target]], device=images.device), params, trainer)
    name, steps = own[0] if own else params.row.name, params.refinement.steps
    started = time.perf_counter()
    first = picture.explain(own[1] if own else None)
    made = [(name, first, time.perf_counter() - started)]
    if steps:
        started = time.perf_counter()
        refined = picture.refine(enlarge_map(first, (height, width)))
        made.append((f"{name}, T = {steps}", refined, time.perf_counter() - started))
    return [Measured(label, maps[0].cpu(), *picture.areas(maps), seconds) for label, maps, seconds in made]


@dataclass(frozen=True)
class _Picture:
    """One picture [1, 3, H, W] and the class [1, 1] that it is explained for."""

    classifier: MaskableClassifier
    images: Tensor
    target: Tensor
    params: PostHocParams
    trainer: TrainerParams

    def explain(self, own: Explain | None) -> Tensor:
        """The map of the explainer, [1, h, w]."""
        row = self.params.row
        if own is None:
            generator = torch.Generator().manual_seed(self.params.seed)
            own = partial(row.entry.build(self.classifier, row.params.for_split("test")).attribute, generator=generator)
        with self.trainer.autocast():
            maps = own(self.images, self.target[:, 0]).detach().float()
        if not maps.isfinite().all():
            raise UserError(f"{row.name} gives NaN or infinity for this picture: use another, as in explainer=saliency")
        return maps

    def refine(self, maps: Tensor) -> Tensor:
        """A refined map of pixels [1, H, W].

        Only the class that is explained counts: what a training takes the second class from, the label, is not known.
        """
        with torch.no_grad():
            question = Question(self.images, self.target, confidence(self._classify(self.images), self.target))
        # A soft order reads how large the numbers are, and every explainer has a scale of its own.
        start = in_units(maps, 1.0)
        objective, how = self.params.objective, self.params.refinement
        return refine_maps(start, question, self._classify, self._mean, objective, how, self._generator())[-1]

    def areas(self, maps: Tensor) -> tuple[float, float]:
        """Areas under the deletion and the insertion curve of a map [1, h, w], means over the references."""
        height, width = self.images.shape[-2:]
        pixels, found = enlarge_map(maps, (height, width)), []
        for name in self.params.objective.references:
            reference = open_reference(self.images, name, self._mean)
            curves = perturbation_curves(
                self._classify, self.images, pixels, self.target, reference, self._generator(), chunk=_CHUNK
            )
            found.append(torch.stack([area(curve[0, :, 0]) for curve in curves]))
        deletion, insertion = torch.stack(found).mean(0).tolist()
        return deletion, insertion

    def _classify(self, images: Tensor) -> Tensor:
        with self.trainer.autocast():
            return self.classifier(images)

    def _generator(self) -> torch.Generator:
        return torch.Generator(self.images.device).manual_seed(self.params.seed)

    @property
    def _mean(self) -> Tensor:
        """What the classifier takes off each channel: one of the references."""
        normalisation: Normalisation = self.classifier.normalisation  # type: ignore[assignment]
        return normalisation.mean.flatten()
