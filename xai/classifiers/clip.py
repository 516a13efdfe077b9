"""A CLIP of a file as what is explained."""

from pathlib import Path

from xai.core.errors import UserError
from xai.core.runtime import Runtime
from xai.data.catalogue import OpenData
from xai.models import files
from xai.models.factory import ClipParams
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.spec import said_of
from xai.models.weights import fingerprint
from xai.study.case import ExplainedModel

_SHAPING = ("architecture", "towers", "image_size", "patch_size", "mean", "std")
"""What tensors do not say: how heads are split and pixels normalised."""


def clip_of_file(runtime: Runtime, model: ClipParams, data: OpenData, path: Path) -> ExplainedModel:
    """The classifier of a checkpoint.

    Raises:
        UserError: The file is broken, of another architecture, or tells other classes apart than the data set has.
    """
    files.load_classifier(path, model)
    spec, tensors = files.held(path, model)
    check_classes(path, spec.classes, spec.data, data)

    def make(removal: Removal | None) -> MaskableClassifier:
        made = files.filled(spec, tensors, f"checkpoint {path}", removal).classifier
        assert made is not None
        return made.to(runtime.trainer.device)

    shape = said_of(spec.model)
    identity = {"tensors": fingerprint(tensors), **{name: shape[name] for name in _SHAPING}}
    if shape["quick_gelu"]:
        identity["quick_gelu"] = True
    size, mean = spec.model.image_size, spec.model.mean
    return ExplainedModel(spec.model.name, lambda: identity, size, mean, spec.classes, make)


def check_classes(path: Path, classes: tuple[str, ...], trained_on: str, data: OpenData) -> None:
    """Refuse a classifier that tells other classes apart than a data set has, or the same in another order."""
    if tuple(classes) != tuple(data.source.classes):
        raise UserError(
            f"{path} tells {len(classes)} classes of {trained_on} apart ({', '.join(classes[:3])} ...), "
            f"data={data.name} has others ({', '.join(data.source.classes[:3])} ...)"
        )
