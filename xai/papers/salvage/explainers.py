"""SALVAGE and ViT-Shapley as explainers of a case whose classifier is a vision transformer: trained when asked for."""

from dataclasses import fields, replace
from typing import Annotated, TypeVar

from pydantic import Field

from xai.classifiers.params import SalvageParams, VitShapleyParams
from xai.classifiers.vit import VitStages
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.settings import settings
from xai.core.store import Artifact
from xai.explainers.learned.networks import Classifies, Salvage
from xai.explainers.learned.vit_shapley import VitShapleyExplainer
from xai.explainers.registry import Context, ExplainerParams, Prepared, explainer
from xai.models.explainer import SalvageNetwork, ShapleyNetwork

T = TypeVar("T")
Portion = Annotated[float, Field(gt=0, le=1)]


@settings
class SalvageSettings(SalvageParams, ExplainerParams):
    """SALVAGE as a row; see `SalvageParams`.

    Args:
        share: Of the training's epochs (Figure 7).
    """

    share: Portion = 1.0


@settings
class VitShapleySettings(VitShapleyParams, ExplainerParams):
    """ViT-Shapley as a row; see `VitShapleyParams`.

    Args:
        share: Of the training's epochs (Figure 7).
    """

    share: Portion = 1.0


Settings = SalvageSettings | VitShapleySettings


def vit_networks(context: Context, asked: str, heads: int) -> VitStages:
    """The networks around the vision transformer of a case.

    Raises:
        UserError: The classifier is no vision transformer of this framework, or its width has not as many heads.
    """
    networks = context.model.networks
    if not isinstance(networks, VitStages):
        raise UserError(f"{asked} starts from a vision transformer, and model={context.model.name} is none")
    if networks.width % heads:
        raise UserError(
            f"heads={heads} does not divide the {networks.width} channels of model={context.model.name}: choose a "
            "divisor"
        )
    return networks


def _check(context: Context, params: Settings) -> None:
    vit_networks(context, "it", params.heads)
    shortened(params.fit, params.share)


@explainer(
    "salvage",
    label="SALVAGE",
    about="one pass of a network that learned what the classifier says of masked images",
    params=SalvageSettings,
    kind="trained",
    needs={"training"},
    passes=lambda params, players: 1.0,
    classifies=True,
    check=_check,
)
def salvage(context: Context, params: SalvageSettings) -> Prepared:
    """SALVAGE, trained on the data set of the case against the surrogate of its classifier."""
    networks, trained = vit_networks(context, "salvage", params.heads), _trained(SalvageParams, params)
    artifact = networks.salvage(trained)

    def build() -> Salvage:
        network = networks.explainer("salvage", trained, artifact)
        assert isinstance(network, SalvageNetwork)
        return Salvage(network)

    return Prepared({"salvage": artifact.key}, build, notes=_notes(params, trained, artifact))


@explainer(
    "vit_shapley",
    label="ViT-Shapley",
    about="one pass of a network that learned Shapley values by weighted least squares",
    params=VitShapleySettings,
    kind="trained",
    needs={"training"},
    passes=lambda params, players: 3.0,
    classifies=True,
    check=_check,
)
def vit_shapley(context: Context, params: VitShapleySettings) -> Prepared:
    """ViT-Shapley, trained on the data set of the case against the surrogate of its classifier."""
    networks, trained = vit_networks(context, "vit_shapley", params.heads), _trained(VitShapleyParams, params)
    artifact = networks.vit_shapley(trained)

    def build() -> VitShapleyExplainer:
        network = networks.explainer("vit_shapley", trained, artifact)
        assert isinstance(network, ShapleyNetwork)
        return VitShapleyExplainer(network, networks.network("surrogate"))

    return Prepared({"vit_shapley": artifact.key}, build, notes=_notes(params, trained, artifact))


@explainer(
    "classifier",
    label="Classifier",
    about="the classifier by itself, without maps",
    kind="classifier",
    passes=lambda params, players: 1.0,
    classifies=True,
)
def classifier(context: Context, params: ExplainerParams) -> Prepared:
    """The classifier before it was fine-tuned on masked images, where that is what is explained."""
    model = getattr(context, "compared", None) or context.model
    return Prepared({"classifier": model.identity}, lambda: Classifies(model.make(None)))


@explainer(
    "surrogate",
    label="Surrogate",
    about="the classifier after it was fine-tuned on masked images, without maps",
    kind="classifier",
    passes=lambda params, players: 1.0,
    classifies=True,
    check=lambda context, params: vit_networks(context, "surrogate", 1),
)
def surrogate(context: Context, params: ExplainerParams) -> Prepared:
    """What is asked about masked images."""
    networks = vit_networks(context, "surrogate", 1)
    artifact = networks.surrogate
    notes = {"train_seconds": artifact.seconds}
    return Prepared({"classifier": artifact.key}, lambda: Classifies(networks.network("surrogate")), notes=notes)


def _trained(schema: type[T], params: Settings) -> T:
    """The settings of the training itself, over a share of its epochs."""
    own = {field.name: getattr(params, field.name) for field in fields(schema)}  # type: ignore[arg-type]
    return schema(**{**own, "fit": shortened(params.fit, params.share)})


def _notes(params: Settings, trained: SalvageParams | VitShapleyParams, artifact: Artifact) -> dict[str, float]:
    unit, count = trained.fit.length
    return {"share": params.share, unit: float(count), "train_seconds": artifact.seconds}


def shortened(fit: FitParams, share: float) -> FitParams:
    """The same training over a share of its epochs or steps.

    Raises:
        UserError: It is no whole number of them.
    """
    unit, count = fit.length
    part = count * share
    # 0.29 of 100 is 28.999999999999996 in floating point, and 29 to whoever typed it.
    if abs(part - round(part)) > 1e-9 or round(part) < 1:
        raise UserError(f"share={share} of {count} {unit} is no whole number of {unit}: choose another share")
    return replace(fit, **{unit: round(part)})
