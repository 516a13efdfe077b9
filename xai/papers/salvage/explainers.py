"""SALVAGE, ViT-Shapley and FastSHAP as explainers of the classifier of a case: trained when they are asked for."""

from dataclasses import fields, replace
from functools import partial
from typing import Any, Literal, cast

import torch

from xai.classifiers.beside import CnnBeside, VitBeside, beside
from xai.classifiers.cnn import CnnStages
from xai.classifiers.params import ExplainerFit, FastShapParams, Portion, SalvageParams, VitShapleyParams
from xai.classifiers.vit import VitStages
from xai.core.errors import UserError
from xai.core.settings import Count, EvenCount, FieldError, settings
from xai.explainers.learned.networks import Classifies, Salvage, SalvageAdjusted, VitShapleyExplainer
from xai.explainers.registry import Context, ExplainerParams, Prepared, explainer
from xai.models.explainer import SalvageNetwork, ShapleyNetwork


@settings
class LearnedSettings(ExplainerFit, ExplainerParams):
    """What both rows have beside their training.

    Args:
        share: The network after this share of its training, one of `snapshots` (Figure 7); 1 is the trained one.
        network: The explainer's own network, trained beside a classifier that is asked as it is: `vit_tiny`, from
            nothing, or a plain vision transformer of timm. None starts from the layers of the classifier, and learns
            from its surrogate.
    """

    share: Portion = 1.0
    network: str | None = None

    def __post_init__(self) -> None:
        """Refuse a share at which no network was kept."""
        super().__post_init__()
        if self.share not in (1, *self.snapshots):
            kept = ", ".join(f"{share:g}" for share in (*self.snapshots, 1))
            raise FieldError("share", f"is not kept of this training: choose {kept}, or add it to snapshots")


@settings
class SalvageSettings(SalvageParams, LearnedSettings):
    """SALVAGE as a row; see `SalvageParams`.

    Args:
        reading: What its map is: `log_odds`, phi+ - phi- as published, or `probability`, the Shapley values of u(S)
            itself. The second reads the same network and costs no further pass; it is ours.
        pairs: Of orders of the patches, with reading=probability.
    """

    reading: Literal["log_odds", "probability"] = "log_odds"
    pairs: Count = 64


@settings
class AdjustedSettings(ExplainerParams):
    """How little the surrogate is asked where SALVAGE has answered already.

    Args:
        of: The row of SALVAGE.
        coalitions: Masked images asked about; even.
        pairs: Of orders of the patches.
    """

    of: str = "salvage"
    coalitions: EvenCount = 128
    pairs: Count = 64


@settings
class VitShapleySettings(VitShapleyParams, LearnedSettings):
    """ViT-Shapley as a row; see `VitShapleyParams`.

    Args:
        reading: What it says as a classifier: the `raw` sum of its values, as SALVAGE judges it, or that of the
            `normalised` ones and v of no patch, as its authors read it, which is what the surrogate says.
    """

    reading: Literal["raw", "normalised"] = "raw"


def vit_networks(context: Context, asked: str) -> VitStages:
    """The networks around the vision transformer of a case.

    Raises:
        UserError: The classifier is no vision transformer of this framework.
    """
    networks = context.model.networks
    if not isinstance(networks, VitStages):
        raise UserError(
            f"{asked} starts from a vision transformer, and model={context.model.name} is none: use model=vit_tiny"
        )
    return networks


def networks_of(context: Context, params: LearnedSettings) -> VitStages:
    """What trains a row: from the layers of the classifier, or beside it.

    Raises:
        UserError: The classifier is no vision transformer and the row has no network of its own, that network does not
            fit, or its width has not as many heads.
    """
    if params.network is not None:
        networks: VitStages = beside(VitBeside, context, params.network, params.fit)
    elif isinstance(context.model.networks, VitStages):
        networks = context.model.networks
    else:
        raise UserError(
            f"it starts from a vision transformer, and model={context.model.name} is none: use model=vit_tiny, or "
            "network=vit_tiny to train one beside it"
        )
    if networks.width % params.heads:
        name = params.network or context.model.name
        raise UserError(
            f"heads={params.heads} does not divide the {networks.width} channels of model={name}: choose a divisor"
        )
    return networks


_learned = partial(explainer, kind="trained", needs={"training"}, classifies=True, check=networks_of)
_classifier = partial(explainer, kind="classifier", passes=lambda params, players: 1.0, classifies=True)


@_learned(
    "salvage",
    label="SALVAGE",
    about="one pass of a network that learned what the classifier says of masked images",
    params=SalvageSettings,
    passes=lambda params, players: 1.0,
)
def salvage(context: Context, params: SalvageSettings) -> Prepared:
    """SALVAGE, trained on the data set of the case against the surrogate of its classifier."""
    pairs = params.pairs if params.reading == "probability" else 0
    return _prepared(context, "salvage", params, lambda network, _: Salvage(cast(SalvageNetwork, network), pairs))


def _of_salvage(context: Context, params: AdjustedSettings) -> SalvageSettings:
    """The settings of the row whose network is asked."""
    start = context.row(params.of)
    if not isinstance(start.params, SalvageSettings):
        raise UserError(f"of={params.of} is a row of {start.entry.name}: choose one of salvage")
    networks_of(context, start.params)
    return start.params


@explainer(
    "salvage_adjusted",
    label="SALVAGE, adjusted",
    about="Shapley values from few passes: only what SALVAGE did not foresee is estimated",
    params=AdjustedSettings,
    kind="refined",
    needs={"training", "game"},
    passes=lambda params, players: params.coalitions + 3.0,
    check=_of_salvage,
)
def salvage_adjusted(context: Context, params: AdjustedSettings) -> Prepared:
    """Kernel SHAP of what SALVAGE left open."""

    def build(network: Any, networks: VitStages) -> SalvageAdjusted:
        return SalvageAdjusted(network, networks.network("surrogate"), params.coalitions, params.pairs)

    prepared = _prepared(context, "salvage", replace(_of_salvage(context, params), reading="log_odds"), build)
    made_from = {**prepared.made_from, "coalitions": params.coalitions, "adjusted": params.pairs}
    return replace(prepared, made_from=made_from)


@_learned(
    "vit_shapley",
    label="ViT-Shapley",
    about="one pass of a network that learned Shapley values by weighted least squares",
    params=VitShapleySettings,
    passes=lambda params, players: 3.0,
)
def vit_shapley(context: Context, params: VitShapleySettings) -> Prepared:
    """ViT-Shapley, trained on the data set of the case against the surrogate of its classifier."""

    def build(network: Any, networks: VitStages) -> VitShapleyExplainer:
        surrogate = networks.network("surrogate")
        return VitShapleyExplainer(cast(ShapleyNetwork, network), surrogate, params.reading == "normalised")

    return _prepared(context, "vit_shapley", params, build)


@_classifier("classifier", label="Classifier", about="the classifier by itself, without maps")
def classifier(context: Context, params: ExplainerParams) -> Prepared:
    """The classifier before it was fine-tuned on masked images, where that is what is explained."""
    model = getattr(context, "compared", None) or context.model
    return Prepared({"classifier": model.identity}, lambda: Classifies(model.make(None)))


@_classifier(
    "surrogate",
    label="Surrogate",
    about="the classifier after it was fine-tuned on masked images, without maps",
    check=lambda context, params: vit_networks(context, "surrogate"),
)
def surrogate(context: Context, params: ExplainerParams) -> Prepared:
    """What is asked about masked images."""
    networks = vit_networks(context, "surrogate")
    artifact = networks.surrogate
    notes = {"train_seconds": artifact.seconds}
    return Prepared({"classifier": artifact.key}, lambda: Classifies(networks.network("surrogate")), notes=notes)


def _prepared(context: Context, kind: str, params: LearnedSettings, wrap: Any) -> Prepared:
    """A row from the artifact of its training; `wrap` makes the explainer of its network and those around it."""
    networks = networks_of(context, params)
    schema = SalvageParams if kind == "salvage" else VitShapleyParams
    trained = _training(schema, params)
    artifact = getattr(networks, kind)(trained)
    unit, count = params.fit.length
    notes = {"share": params.share, unit: count * params.share, "train_seconds": artifact.seconds * params.share}
    made_from = {kind: artifact.key} | ({"share": params.share} if params.share < 1 else {})
    # What was there before there was a choice keeps its key.
    if isinstance(params, VitShapleySettings) and params.reading != "raw":
        made_from["reading"] = params.reading
    if isinstance(params, SalvageSettings) and params.reading != "log_odds":
        made_from |= {"reading": params.reading, "pairs": params.pairs}
    return Prepared(
        made_from, lambda: wrap(networks.explainer(kind, trained, artifact, params.share), networks), notes=notes
    )


@settings
class FastShapSettings(FastShapParams, ExplainerParams):
    """FastSHAP as a row; see `FastShapParams`.

    Args:
        network: Its own network, trained beside a classifier that is asked as it is: `cnn_tiny`, from nothing, or a
            convolutional network of timm. None starts from the layers of the classifier, and learns from its surrogate.
    """

    network: str | None = None


def cnn_networks(context: Context, params: FastShapSettings) -> CnnStages:
    """What trains the row: from the layers of the classifier, or beside it.

    Raises:
        UserError: The classifier is no convolutional network of this framework and the row has no network of its own,
            or that does not fit.
    """
    if params.network is not None:
        return beside(CnnBeside, context, params.network, params.fit)
    networks = context.model.networks
    if not isinstance(networks, CnnStages):
        raise UserError(
            f"it starts from a convolutional network, and model={context.model.name} is none: use vit_shapley for a "
            "vision transformer, or network=cnn_tiny to train one beside it"
        )
    return networks


def _check(context: Context, params: FastShapSettings) -> None:
    networks = cnn_networks(context, params)
    # Neither memory nor time goes into weights that nobody looks at.
    with torch.device("meta"):
        networks.untrained(_training(FastShapParams, params))


@explainer(
    "fast_shap",
    label="FastSHAP",
    about="one pass of a U-Net that learned the Shapley values of a CNN by weighted least squares",
    params=FastShapSettings,
    kind="trained",
    needs={"training"},
    passes=lambda params, patches: 3.0,
    classifies=True,
    check=_check,
)
def fast_shap(context: Context, params: FastShapSettings) -> Prepared:
    """FastSHAP, trained on the data set of the case against the surrogate of its classifier."""
    networks, own = cnn_networks(context, params), _training(FastShapParams, params)
    artifact = networks.fast_shap(own)
    unit, count = params.fit.length

    def build() -> VitShapleyExplainer:
        return VitShapleyExplainer(networks.explainer(own, artifact), networks.network("surrogate"))

    return Prepared({"fast_shap": artifact.key}, build, notes={unit: count, "train_seconds": artifact.seconds})


def _training(schema: Any, params: ExplainerParams) -> Any:
    """What of a row's settings its training is made of."""
    return schema(**{field.name: getattr(params, field.name) for field in fields(schema)})
