"""The shortcut of Learn to Rank (Schinagl et al. 2026, Figure 5): a mark that decides, and maps that shall find it.

A classifier is trained on with a white circle in each training image of one class. The explainer was trained on the
classifier before that and never saw the circle; its maps are refined against the classifier as it is now, and the share
of a map that lies on the circle is to grow.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from xai.classifiers.networks import ClassifierStages
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.settings import Count, Share, settings
from xai.core.store import Artifact
from xai.data.catalogue import OpenData
from xai.data.marked import MarkedSet, MarkParams, Radius
from xai.data.registry import Images, ImageSource, load_images
from xai.explainers.registry import Row
from xai.methods.classifier import Classifier
from xai.models.maskable import MaskableClassifier, Removal
from xai.study.case import Case, ExplainedModel
from xai.study.frame import Frames, join
from xai.study.statistics import WHOLE
from xai.study.study import Study, open_metrics

log = logging.getLogger(__name__)

CASE = "marked"
"""What frames call marked images."""
_REVISION = 1


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


class Marks:
    """A data set with the mark in all images, whose regions are the marks.

    Args:
        marked: The marked images.
        size: Side of the images that a model wants, at which the marks are drawn.
    """

    varies = True

    def __init__(self, marked: MarkedSet, size: int) -> None:
        self.classes, self.templates = marked.classes, marked.templates
        self._marked, self._size = marked, size

    def labels(self, split: str) -> Tensor:
        """Class indices [N] of a split."""
        return self._marked.labels(split)

    def images(self, split: str, indices: Tensor, epoch: int) -> Images:
        """The images at `indices` [B], and where their marks are."""
        pixels = load_images(self._marked, split, indices, epoch, self._size).pixels
        return Images(pixels, self._marked.marks(split, indices, epoch, (self._size, self._size)))


@dataclass
class Shortcut:
    """The classifier that has learned the mark, and what refined maps find of it; made when it is asked for.

    Args:
        stages: The classifier before.
        case: What a study explains with it: the split, the block, the seed.
        params: The mark.
        rows: The explainer that was trained on the classifier before, and its maps after some steps.
        controls: Maps that are refined from nothing.
    """

    stages: ClassifierStages
    case: Case
    params: ShortcutParams
    rows: Sequence[Row]
    controls: Sequence[Row]

    def __post_init__(self) -> None:
        """Refuse before any training what could not be measured after it."""
        self._set(self.params.label)

    @property
    def classifier(self) -> Artifact:
        """The classifier, trained on with the mark in each training image of the class."""
        stages, params = self.stages, self.params
        spec = {
            "classifier": stages.classifier.key,
            "data": stages.data.spec,
            "mark": {"label": params.label, "radius": params.radius, "level": params.level},
            "fit": asdict(params.fit),
            "seed": stages.seed,
            "revision": _REVISION,
        }

        def make(workdir: Path) -> None:
            student: Any = stages.network("classifier").train().requires_grad_(True)
            module = Classifier(student, params.fit, 0.0, stages.seed, f"marked_classifier/{stages.data.name}")
            marked = self._set(params.label)
            stages.train(module, params.fit, workdir, "classifier of the mark", source=marked)
            stages.write(workdir, "classifier", student.network)

        return stages.get("marked_classifier", spec, make)

    def network(self, removal: Removal | None = None) -> MaskableClassifier:
        """That classifier, on the device, in evaluation mode, frozen."""
        return self.stages.read(self.classifier, "classifier", removal)

    def measured(self) -> Frames:
        """What the maps find of the mark, as frames of the case `marked`.

        Images are marked ones that the classifier now says are of the marked class: first those of other classes, which
        nothing but the mark speaks for, then those of the class itself. Columns: those of the metric `mark` of the rows
        and the controls, for the marked class; those of `mark_before` of the rows, for the classifier before the mark
        and the class that it sees. How many images are called what, see `learned`.

        Where the mark changes no mind, a warning says that the shortcut was not learned, and `called_marked` is 0.

        Raises:
            UserError: The classifier calls no marked image at all the marked class.
        """
        found = [study.run() for study in self.studies]
        return replace(joined := join(found), scores=pd.concat([joined.scores, self.learned], ignore_index=True))

    @cached_property
    def studies(self) -> list[Study]:
        """Of the classifier with the mark, and of the one before."""
        marked, before = self._chosen(self._model), self._chosen(self.case.model)
        return [
            Study([*self.rows, *self.controls], [(marked, open_metrics(["mark"], {}))], self.case.others),
            Study(self.rows, [(before, open_metrics(["mark_before"], {}))], self.case.others),
        ]

    @cached_property
    def learned(self) -> pd.DataFrame:
        """Whether the mark decides now, and did not before: shares of the split, as lines of the frame of scores.

        Of `classifier@marked` and `classifier@before`: `called_marked`, how many images of other classes are called the
        marked one once they are marked, and `called_unmarked`, without the mark; `accuracy_unmarked`, of all images.
        """
        labels, label, lines = self._whole(self.case.model, marked=False).labels, self.params.label, []
        for name, model in (("classifier@marked", self._model), ("classifier@before", self.case.model)):
            marked, plain = (self._whole(model, marked=one).logits.argmax(1) for one in (True, False))
            shares = {
                "called_marked": (marked == label)[labels != label],
                "called_unmarked": (plain == label)[labels != label],
                "accuracy_unmarked": plain == labels,
            }
            for metric, hits in shares.items():
                value = hits.double().mean().item()
                lines.append({"explainer": name, "label": name, "metric": metric, "value": value})
        case, data = self.case, self.case.data.name
        found = pd.DataFrame(lines).assign(case=CASE, kind="classifier", model=case.model.name, data=data, source=None)
        return found.assign(home=data, seed=case.seed, split=case.split, image=WHOLE)

    def _set(self, label: int | None) -> MarkedSet:
        """The data set with the mark in images of one class, or of all."""
        mark = MarkParams(self.params.radius, self.params.level, self.stages.seed)
        return MarkedSet(self.stages.data.source, mark, label)

    @cached_property
    def _marked(self) -> OpenData:
        data, params = self.case.data, self.params
        source: ImageSource = Marks(self._set(None), self.case.model.image_size)
        return OpenData(data.name, {**data.spec, "mark": {"radius": params.radius, "level": params.level}}, source)

    @cached_property
    def _model(self) -> ExplainedModel:
        return replace(self.case.model, identify=lambda: self.classifier.key, make=self.network)

    def _whole(self, model: ExplainedModel, *, marked: bool) -> Case:
        """All images of the split."""
        data = self._marked if marked else self.case.data
        case = self.case.with_params(images=None, targets="predicted")
        return replace(case, model=model, data=data, name=CASE, only=None, compared=None, home=None)

    def _chosen(self, model: ExplainedModel) -> Case:
        """The images that are explained, each for what the model says of it: the marked class, if it is the new one."""
        return replace(self._whole(model, marked=True), only=self._rows)

    @cached_property
    def _rows(self) -> tuple[int, ...]:
        """Images that are called the marked class, in random order: of other classes first, then of that class."""
        whole, label, split = self._whole(self._model, marked=True), self.params.label, self.case.split
        labels, called = whole.labels, whole.logits.argmax(1) == label
        generator = torch.Generator().manual_seed(self.case.seed)
        groups = [(called & group).nonzero()[:, 0] for group in (labels != label, labels == label)]
        remedy = "raise shortcut.fit.epochs, shortcut.fit.learning_rate or shortcut.radius"
        if not any(len(rows) for rows in groups):
            raise UserError(f"marked, no {split} image is called class {label}: {remedy}")
        if not len(groups[0]):
            message = "the shortcut was not learned: marked, no %s image of another class is called class %d; %s"
            log.warning(message, split, label, remedy)
        drawn = [rows[torch.randperm(len(rows), generator=generator)] for rows in groups]
        return tuple(torch.cat([rows[: self.params.images] for rows in drawn]).tolist())
