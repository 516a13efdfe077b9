"""An explainer beside a classifier of which nothing is known but what it answers: its network is one of ours."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from xai.classifiers.cnn import CnnStages
from xai.classifiers.networks import ClassifierStages
from xai.classifiers.vit import VitStages
from xai.core.store import Artifact
from xai.models.maskable import MaskableClassifier, Removal

Asked = Callable[[Removal | None], MaskableClassifier]


@dataclass
class _Beside(ClassifierStages):
    """What is explained is asked, by forward passes alone, and nothing of it is trained.

    There is no surrogate: v(S) is what the classifier itself says of an image whose other patches are painted over, the
    game of Kernel SHAP. `model` is the network of the explainer, as a classifier of this framework would have it.

    Args, beside those of `ClassifierStages`:
        asked: Makes the classifier, by the removal, None for its own.
    """

    asked: Asked | None = None

    @cached_property
    def surrogate(self) -> Artifact:
        """The classifier as it is: nothing is made."""
        return Artifact("surrogate", "asked", Path(), {}, 0.0)

    def network(self, kind: str, removal: Removal | None = None) -> Any:
        """What is explained, whatever kind is asked for."""
        assert self.asked is not None
        return self.asked(removal)

    def blank(self, removal: Removal | None = None) -> MaskableClassifier:
        """The same: it need not be trained first."""
        network: MaskableClassifier = self.network("classifier", removal)
        return network

    def _begin(self, network: Any, surrogate: Any) -> None:
        """An explainer starts from the weights its network was published with, or from random ones."""
        if not self.model.embedded:
            start = self.model.start(self.outputs, self.seed).state_dict()
            network.backbone.load_state_dict({name: start[name] for name in network.backbone.state_dict()})


@dataclass
class VitBeside(_Beside, VitStages):
    """SALVAGE and ViT-Shapley, with a vision transformer of their own."""


@dataclass
class CnnBeside(_Beside, CnnStages):
    """FastSHAP, with a convolutional network of its own."""
