"""Families of models: which one settings are of, and where its classifiers are made."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from xai.classifiers.cnn import CnnStages
from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.classifiers.vit import VitStages
from xai.core.errors import UserError
from xai.core.runtime import Runtime
from xai.core.settings import build
from xai.data.catalogue import OpenData
from xai.models.cnn import CnnParams
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
