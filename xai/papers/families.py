"""The model of a run: which family it is of, what the file of a checkpoint says of it, where its classifier is made."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import PlainValidator

from xai.classifiers.learned import CnnStages, VitStages
from xai.classifiers.networks import ClassifierStages
from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.core.errors import UserError
from xai.core.runtime import Runtime
from xai.data.catalogue import OpenData
from xai.models import files
from xai.models.cnn import CnnParams
from xai.models.factory import ClipParams
from xai.models.families import Geometry, NetworkParams, families, family_of, open_model
from xai.models.named import named_settings
from xai.models.spec import said_of
from xai.models.vit import VitParams
from xai.papers.vectors.base import ModelParams


def family(model: Mapping[str, Any]) -> type[Geometry]:
    """The settings of the family that a configuration is of; of a CLIP with those of its pre-training."""
    return _settings(family_of(model).settings)


def opened(values: Any) -> Geometry:
    """The model of a configuration; what is wrong with it is a `UserError`."""
    return open_model(values, family(values) if isinstance(values, Mapping) else None)


AnyModel = Annotated[Geometry, PlainValidator(opened)]
"""A model of any family, registered by this framework or by a plug-in."""
AnyNetwork = Annotated[NetworkParams, PlainValidator(opened)]
"""One that is a classifier by itself."""


def about(wanted: type[Geometry]) -> str:
    """What messages call the families that will do."""
    return " or ".join(each.about for each in _fitting(wanted))


def check_family(wanted: type[Geometry], model: Mapping[str, Any], asked: str) -> None:
    """Refuse settings of another family, which would be told one by one to be misspelt.

    Raises:
        UserError: The model is of another family, or a setting of it is wrong.
    """
    given = family_of(model)
    if issubclass(_settings(given.settings), wanted):
        opened(model)
        return
    raise UserError(
        f"model={model.get('name')} is {given.about}, and {asked} needs {about(wanted)}: "
        f"use model={_fitting(wanted)[0].example}"
    )


def settle(model: Mapping[str, Any], checkpoint: Path, typed: Sequence[str]) -> dict[str, Any]:
    """What the file of a checkpoint makes of the settings of a model.

    A file of ours says all that shapes its network. Settings that came with the defaults give way in silence; what the
    user typed and the file contradicts is refused.

    Args:
        model: Settings of a model, as they were composed.
        checkpoint: The file.
        typed: What the user typed of the model: `model` for the group, `model.image_size` for a setting of it.

    Returns:
        Settings that replace those of the model, all of them where its name is another; none where the file says none.

    Raises:
        UserError: The file contradicts what was typed, or says of itself what cannot be; a setting is wrong.
    """
    params = opened(model)
    spec = files.read_spec(checkpoint, params)
    if spec is None:
        return {}
    said, own = said_of(spec.model), said_of(params)
    asked = [key.split(".")[1] for key in typed if "." in key]
    if "model" in typed:
        asked = ["family", *(key for key in said if key not in ("family", "name"))]
    for key in asked:
        if key != "name" and (key in said or key in own) and own.get(key) != said.get(key):
            given = f"model={model.get('name')}" if key == "family" else f"{key}={_shown(own.get(key))}"
            raise UserError(
                f"{checkpoint} is a {spec.kind} of model={spec.model.name} with {key}={_shown(said.get(key))}, not of "
                f"{given} as was asked for: leave model out, the file says it all"
            )
    same = own["family"] == said["family"] and model.get("name") == spec.model.name
    return said if same else {**files.shipped_settings(spec.model.name), **said}


def settle_named(model: Mapping[str, Any], checkpoint: Path | None, typed: Sequence[str]) -> dict[str, Any]:
    """The settings of a network of which the user has typed `model.architecture`, and no `model`.

    Returns:
        Settings that replace those of the model; none where no architecture was typed.

    Raises:
        UserError: The file is one of ours, and says itself what it is.
    """
    asked = [key.removeprefix("model.") for key in typed if key.startswith("model.")]
    if "model" in typed or "architecture" not in asked:
        return {}
    if checkpoint is not None and files.read_spec(checkpoint) is not None:
        raise UserError(f"{checkpoint} says itself what it is: leave model.architecture out")
    return named_settings(model["architecture"], {key: model[key] for key in asked}, checkpoint)


def classifier_stages(
    runtime: Runtime,
    model: NetworkParams,
    data: OpenData,
    classifier: ClassifierParams,
    surrogate: SurrogateParams | None,
    seed: int,
) -> ClassifierStages:
    """The classifier of a model and what is made from it."""
    kinds = {VitParams: VitStages, CnnParams: CnnStages}
    made = next((stages for params, stages in kinds.items() if isinstance(model, params)), ClassifierStages)
    return made(runtime, model, data, classifier, seed, surrogate)


def _settings(kind: type[Geometry]) -> type[Geometry]:
    return ModelParams if kind is ClipParams else kind


def _fitting(wanted: type[Geometry]) -> list[Any]:
    return [each for each in families() if issubclass(_settings(each.settings), wanted)]


def _shown(value: Any) -> str:
    return "null" if value is None else str(list(value) if isinstance(value, tuple) else value)
