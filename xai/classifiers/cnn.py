"""A convolutional classifier as an artifact: trained, published, or the user's own."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from xai.classifiers.networks import ClassifierStages
from xai.classifiers.params import ClassifierParams
from xai.core.runtime import Runtime
from xai.core.store import Artifact
from xai.data.catalogue import OpenData
from xai.models.cnn import CnnParams, build_cnn, maskable_cnn, published_classes, published_cnn, start_weights
from xai.models.maskable import Removal
from xai.models.painted import PaintedClassifier
from xai.models.spec import shape_of
from xai.models.vit import outputs_of


@dataclass
class CnnStages(ClassifierStages):
    """A CNN for one data set and one seed; made when it is first asked for.

    Args:
        runtime: Where to work.
        model: The network.
        data: The data set.
        classifier_params: How the classifier is trained, where it is.
        seed: Of weights, order of images, masks.
    """

    runtime: Runtime
    model: CnnParams
    data: OpenData
    classifier_params: ClassifierParams
    seed: int

    def __post_init__(self) -> None:
        """Refuse what would only show after the training before it."""
        shape_of(self.model)
        self.outputs = outputs_of(len(self.data.source.classes), binary=False)
        self._maskable(self._blank())
        if not self.is_published:
            self._check_focus()

    @property
    def is_published(self) -> bool:
        """Whether the published network is the classifier: nobody gave another, and it knows the very classes."""
        given = self.model.embedded or self.classifier_params.checkpoint is not None
        return not given and tuple(self.data.source.classes) == published_classes()

    @cached_property
    def classifier(self) -> Artifact:
        """The classifier: the user's own, the published network, or one trained from the model's start weights."""
        checkpoint = self.classifier_params.checkpoint
        if checkpoint is not None:
            return self._own_classifier(checkpoint)
        if self.is_published:
            return self._published_classifier(lambda: published_cnn(self.model))
        return self._trained_classifier()

    def _blank(self) -> nn.Module:
        return build_cnn(self.model, self.outputs, self.seed)

    def _start(self) -> nn.Module:
        network = self._blank()
        if not self.model.embedded:
            network.load_state_dict(start_weights(self.model, network))
        return network

    def _maskable(self, network: Any, removal: Removal | None = None) -> PaintedClassifier:
        return maskable_cnn(self.model, network, removal)

    @property
    def _start_file(self) -> Path | None:
        return self.model.file
