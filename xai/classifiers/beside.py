"""An explainer beside a classifier of which nothing is known but what it answers: its network is one of ours."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import timm
import torch

from xai.classifiers.learned import CnnStages, LearningStages, VitStages
from xai.classifiers.params import ClassifierParams
from xai.core.entries import canonical
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.settings import build, unknown
from xai.core.store import Artifact
from xai.models import files
from xai.models.cnn import PACKAGES, CnnParams
from xai.models.families import NetworkParams, is_of_timm
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.vit import VitParams

S = TypeVar("S", "VitBeside", "CnnBeside")
Asked = Callable[[Removal | None], MaskableClassifier]

EMBEDDED: dict[type[NetworkParams], str] = {VitParams: "vit_tiny", CnnParams: "cnn_tiny"}
"""The network of each family that is trained from nothing."""


@dataclass
class _Beside(LearningStages):
    """What is explained is asked, by forward passes alone, and nothing of it is trained.

    There is no surrogate: v(S) is what the classifier itself says of an image whose other patches are painted over, the
    game of Kernel SHAP. `model` is the network of the explainer, as a classifier of this framework would have it.

    Args, beside those of `LearningStages`:
        asked: Makes the classifier, by the removal, None for its own.
        identify: Says what tells the classifier from all others.
    """

    asked: Asked | None = None
    identify: Callable[[], Any] = lambda: "asked"

    @cached_property
    def surrogate(self) -> Artifact:
        """The classifier as it is: nothing is made."""
        told = {"asked": self.identify(), "data": self.data.spec, "network": asdict(self.model)}
        return Artifact("surrogate", canonical(told), Path(), {}, 0.0)

    def network(self, kind: str, removal: Removal | None = None) -> Any:
        """What is explained, whatever kind is asked for."""
        assert self.asked is not None
        return self.asked(removal)

    def blank(self, removal: Removal | None = None) -> MaskableClassifier:
        """The same: it need not be trained first."""
        return self.network("classifier", removal)

    def _begin(self, network: Any, surrogate: Any) -> None:
        """An explainer starts from the weights its network was published with, or from random ones."""
        if not self.model.embedded:
            start = self.model.start(self.outputs, self.seed).state_dict()
            network.backbone.load_state_dict({name: start[name] for name in network.backbone.state_dict()})


@dataclass
class VitBeside(_Beside, VitStages):
    """SALVAGE and ViT-Shapley, with a vision transformer of their own."""

    family: ClassVar[type[NetworkParams]] = VitParams


@dataclass
class CnnBeside(_Beside, CnnStages):
    """FastSHAP, with a convolutional network of its own."""

    family: ClassVar[type[NetworkParams]] = CnnParams


def beside(stages: type[S], context: Any, network: str, fit: FitParams) -> S:
    """What trains an explainer beside the classifier of a case, on the data set that the case learns from.

    Args:
        stages: Of the family that the explainer is made of.
        context: The case.
        network: See `own_network`.
        fit: How the explainer is trained.

    Raises:
        UserError: There is no such network, it does not fit, or there is nothing to learn from.
    """
    data = context.learned_from
    if not len(data.source.labels("train")):
        raise UserError(f"data={data.name} has no images to learn from: give a data set with a training split")
    model = context.model
    shape = own_network(stages.family, network, model.image_size, context.blank().grid)
    # Nothing of the classifier is trained here.
    unused = ClassifierParams(focus=0.0, fit=fit)
    asked, identify = model.make, lambda: model.identity
    networks = stages(context.runtime, shape, data, unused, context.seed, asked=asked, identify=identify)
    networks.outputs = shape.outputs(len(model.classes))
    return networks


def own_network(
    wanted: type[NetworkParams], network: str, image_size: int, grid: tuple[int, int], **more: Any
) -> NetworkParams:
    """The network of an explainer that is trained beside a classifier: of its size of images and its grid.

    Args:
        wanted: The family that the explainer is made of.
        network: The one of it that is trained from nothing (`EMBEDDED`), or a name of timm or torchvision, which starts
            from the published weights.
        image_size: Of the classifier, in pixels.
        grid: Of the classifier, patches down and across.
        more: Settings of the network that is trained from nothing, in place of its own.

    Raises:
        UserError: There is no such network, or it does not fit.
    """
    down, across = grid
    if down != across or image_size % down or down == 1:
        raise UserError(
            f"grid=({down}, {across}): explainers are trained for as many patches down as across, two at least, that "
            f"divide {image_size} px: say grid= to xai.wrap"
        )
    shape: dict[str, Any] = {"image_size": image_size, "patch_size": image_size // down}
    if network == EMBEDDED[wanted]:
        return build(wanted, {**files.shipped_settings(network), **shape, **more}, "network")
    packaged = PACKAGES.get(network) if isinstance(network, str) else None
    name = packaged.architecture if packaged else network
    # Of names that it has given up timm builds the network, and says no more.
    published: Any = timm.get_pretrained_cfg(name) if isinstance(name, str) and is_of_timm(name) else None
    if published is None:
        known = (EMBEDDED[wanted], *timm.list_models())
        raise UserError(unknown(f"network={network}", str(network), known, f"name of timm, nor {EMBEDDED[wanted]}"))
    shape |= {"name": network, "architecture": name, "pretrained": bool(published.has_weights)}
    shape |= {"mean": list(published.mean), "std": list(published.std)}
    if packaged:
        shape |= {"pretrained": False, "package": network}
    made = build(wanted, shape, "network")
    try:
        with torch.device("meta"):
            made.build(2)
    except UserError as error:
        raise UserError(
            f"network={network} does not fit images of {image_size} px and {down} x {down} patches ({error}): choose "
            "another, or another grid= of xai.wrap"
        ) from error
    return made
