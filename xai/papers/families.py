"""Families of models: which one settings are of, and where its classifiers are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from xai.classifiers.cnn import CnnStages
from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.classifiers.vit import VitStages
from xai.core.errors import UserError
from xai.core.runtime import Runtime
from xai.core.settings import build
from xai.data.catalogue import OpenData
from xai.models import files
from xai.models.cnn import CnnParams
from xai.models.spec import shape_of
from xai.models.vit import VitParams
from xai.papers.vectors.base import ModelParams


@dataclass(frozen=True)
class Family:
    """What messages call a family, and one of its models as an example."""

    about: str
    example: str


FAMILIES: dict[Any, Family] = {
    ModelParams: Family("a CLIP", "clip_tiny"),
    VitParams: Family("a plain vision transformer", "vit_tiny"),
    CnnParams: Family("a convolutional network", "efficientnet_lite0"),
}
"""Families by their settings."""


def family(model: Mapping[str, Any]) -> Any:
    """The family that settings are of, by the settings that only one family has; a CLIP where that does not tell."""
    names = {each: {field.name for field in fields(each)} for each in FAMILIES}
    others = {each: set().union(*(names[other] for other in FAMILIES if other is not each)) for each in FAMILIES}
    found = [each for each in FAMILIES if (names[each] - others[each]) & set(model)]
    return found[0] if len(found) == 1 else ModelParams


def check_family(wanted: Sequence[Any], model: Mapping[str, Any], asked: str) -> None:
    """Refuse settings of another family, which would be told one by one to be misspelt.

    Args:
        wanted: Families that will do; what are none is not looked at.
        model: Settings of a model.
        asked: What wants it, in the words of the command line.

    Raises:
        UserError: The model is of another family; or of one of these, and a setting of it is wrong.
    """
    if not set(wanted) <= set(FAMILIES):
        return
    given = family(model)
    if given in wanted:
        # Of several families that were tried in turn, the first would say what it does not understand.
        build(given, model, "model")
        return
    needed = " or ".join(FAMILIES[each].about for each in wanted)
    raise UserError(
        f"model={model.get('name')} is {FAMILIES[given].about}, and {asked} needs {needed}: "
        f"use model={FAMILIES[wanted[0]].example}"
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
    params = build(family(model), model, "model")
    spec = files.read_spec(checkpoint, params)
    if spec is None:
        return {}
    said = spec.model.model_dump(exclude={"resize"})
    own, kind = shape_of(params).model_dump(exclude={"resize"}), said["family"]
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
    names = {"family"} if kind == "cnn" else {"family", "crop"}
    said = {key: value for key, value in said.items() if key not in names}
    same = own["family"] == kind and model.get("name") == spec.model.name
    return said if same else {**files.shipped_settings(spec.model.name), **said}


def _shown(value: Any) -> str:
    return "null" if value is None else str(list(value) if isinstance(value, tuple) else value)


def classifier_stages(
    runtime: Runtime,
    model: VitParams | CnnParams,
    data: OpenData,
    classifier: ClassifierParams,
    surrogate: SurrogateParams | None,
    seed: int,
) -> VitStages | CnnStages:
    """The classifier of a model and what is made from it; a CNN has no surrogate."""
    if isinstance(model, CnnParams):
        return CnnStages(runtime, model, data, classifier, seed)
    return VitStages(runtime, model, data, classifier, surrogate, seed)
