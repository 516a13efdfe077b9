"""A CLIP of a file as what is explained."""

from dataclasses import asdict
from pathlib import Path

from xai.core.errors import UserError
from xai.core.runtime import Runtime
from xai.data.catalogue import OpenData
from xai.models.checkpoint import read_classifier
from xai.models.factory import ClipParams
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.weights import fingerprint, read_weights
from xai.study.case import ExplainedModel

_SHAPING = ("architecture", "towers", "image_size", "patch_size", "mean", "std")
"""What tensors do not say: how heads are split and pixels normalised."""


def clip_of_file(runtime: Runtime, model: ClipParams, data: OpenData, path: Path) -> ExplainedModel:
    """The classifier of a checkpoint.

    Raises:
        UserError: The file is broken, of another architecture, or tells other classes apart than the data set has.
    """
    _, info = read_classifier(path, model)
    check_classes(path, info.classes, info.data, data)

    def make(removal: Removal | None) -> MaskableClassifier:
        network = read_classifier(path, model, removal)[0].to(runtime.trainer.device)
        return network.eval().requires_grad_(False)

    settings = asdict(model)
    tensors = fingerprint(read_weights(path, what="checkpoint").tensors)
    identity = {"tensors": tensors, **{name: settings[name] for name in _SHAPING}}
    classes = tuple(data.source.classes)
    return ExplainedModel(model.name, identity, model.image_size, tuple(model.mean), classes, make)


def check_classes(path: Path, classes: tuple[str, ...], trained_on: str, data: OpenData) -> None:
    """Refuse a classifier that tells other classes apart than a data set has, or the same in another order.

    Raises:
        UserError: It does.
    """
    if tuple(classes) != tuple(data.source.classes):
        raise UserError(
            f"{path} tells {len(classes)} classes of {trained_on} apart ({', '.join(classes[:3])} ...), "
            f"data={data.name} has others ({', '.join(data.source.classes[:3])} ...)"
        )
