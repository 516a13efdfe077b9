"""SALVAGE, ViT-Shapley and FastSHAP as explainers of the classifier of a case: trained when they are asked for."""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar, get_args

import torch

from xai.classifiers.beside import CnnBeside, VitBeside, beside
from xai.classifiers.learned import CnnStages, LearnedParams, VitStages
from xai.classifiers.params import ExplainerFit, FastShapParams, Portion, SalvageParams, VitShapleyParams
from xai.core.errors import UserError
from xai.core.settings import Count, EvenCount, FieldError, settings
from xai.explainers.learned.networks import Classifies, Salvage, SalvageAdjusted, VitShapleyExplainer
from xai.explainers.registry import Context, ExplainerParams, Prepared, explainer


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


@settings
class FastShapSettings(FastShapParams, ExplainerParams):
    """FastSHAP as a row; see `FastShapParams`.

    Args:
        network: Its own network, trained beside a classifier that is asked as it is: `cnn_tiny`, from nothing, or a
            convolutional network of timm. None starts from the layers of the classifier, and learns from its surrogate.
    """

    share: ClassVar[int] = 1
    network: str | None = None


Stages = TypeVar("Stages", VitStages, CnnStages)


def _around(context: Context, family: type[Stages], what: str, remedy: str) -> Stages:
    """The networks around the classifier of a case; UserError: it is of another family, or not of this framework."""
    networks = context.model.networks
    if not isinstance(networks, family):
        raise UserError(f"{what}, and model={context.model.name} is none: {remedy}")
    return networks


def networks_of(context: Context, params: LearnedSettings | FastShapSettings) -> VitStages | CnnStages:
    """What trains a row: from the layers of the classifier, or beside it.

    Raises:
        UserError: The classifier is of another family and the row has no network of its own, or that does not fit: its
            width has not as many heads, or it gives no intermediate features.
    """
    around: Any
    trained: Any
    if isinstance(params, FastShapSettings):
        around, trained, start = CnnStages, CnnBeside, "a convolutional network"
        instead = "vit_shapley for a vision transformer, or network=cnn_tiny"
    else:
        around, trained, start = VitStages, VitBeside, "a vision transformer"
        instead = "model=vit_tiny, or network=vit_tiny"
    networks: VitStages | CnnStages = (
        _around(context, around, f"it starts from {start}", f"use {instead} to train one beside it")
        if params.network is None
        else beside(trained, context, params.network, params.fit)
    )
    # Neither memory nor time goes into weights that nobody looks at.
    with torch.device("meta"):
        networks.untrained(params)
    return networks


_learned = partial(explainer, kind="trained", needs={"training"}, check=networks_of)
_classifier = partial(explainer, kind="classifier", passes=lambda params, players: 1.0)


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
    return _prepared(context, params, lambda network, _: Salvage(network, pairs))


def _of_salvage(context: Context, params: AdjustedSettings) -> SalvageSettings:
    """The settings of the row whose network is asked."""
    start = context.row(params.of)
    if start.entry.opaque:
        raise UserError(
            f"it asks the network of {params.of}, which is ready made here: have both in task=compare, which trains it"
        )
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
    start, asked = replace(_of_salvage(context, params), reading="log_odds"), (params.coalitions, params.pairs)
    prepared = _prepared(context, start, lambda network, surrogate: SalvageAdjusted(network, surrogate(), *asked))
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
    normalised = params.reading == "normalised"
    return _prepared(context, params, lambda network, surrogate: VitShapleyExplainer(network, surrogate(), normalised))


@_learned(
    "fast_shap",
    label="FastSHAP",
    about="one pass of a U-Net that learned the Shapley values of a CNN by weighted least squares",
    params=FastShapSettings,
    passes=lambda params, patches: 3.0,
)
def fast_shap(context: Context, params: FastShapSettings) -> Prepared:
    """FastSHAP, trained on the data set of the case against the surrogate of its classifier."""
    return _prepared(context, params, lambda network, surrogate: VitShapleyExplainer(network, surrogate()))


@_classifier("classifier", label="Classifier", about="the classifier by itself, without maps")
def classifier(context: Context, params: ExplainerParams) -> Prepared:
    """The classifier before it was fine-tuned on masked images, where that is what is explained."""
    model = getattr(context, "compared", None) or context.model
    return Prepared({"classifier": model.identity}, lambda: Classifies(model.make(None)))


@_classifier(
    "surrogate",
    label="Surrogate",
    about="the classifier after it was fine-tuned on masked images, without maps",
    check=lambda context, params: _of_surrogate(context),
)
def surrogate(context: Context, params: ExplainerParams) -> Prepared:
    """What is asked about masked images."""
    networks = _of_surrogate(context)
    artifact = networks.surrogate
    notes = {"train_seconds": artifact.seconds}
    return Prepared({"classifier": artifact.key}, lambda: Classifies(networks.network("surrogate")), notes=notes)


def _of_surrogate(context: Context) -> VitStages:
    return _around(context, VitStages, "surrogate starts from a vision transformer", "use model=vit_tiny")


def _prepared(
    context: Context, params: LearnedSettings | FastShapSettings, wrap: Callable[[Any, Callable[[], Any]], Any]
) -> Prepared:
    """A row from the artifact of its training; `wrap` makes it of its network and of what gives the surrogate."""
    networks = networks_of(context, params)
    schema: Any = next(each for each in get_args(LearnedParams) if isinstance(params, each))
    trained = schema(**{field.name: getattr(params, field.name) for field in fields(schema)})
    artifact, share = networks.learned(trained), params.share
    unit, count = params.fit.length
    notes: dict[str, float] = {unit: count * share, "train_seconds": artifact.seconds * share}
    made_from: dict[str, Any] = {trained.kind: artifact.key} | ({"share": share} if share < 1 else {})
    if isinstance(params, LearnedSettings):
        notes["share"] = share
    # What was there before there was a choice keeps its key.
    if isinstance(params, VitShapleySettings) and params.reading != "raw":
        made_from["reading"] = params.reading
    if isinstance(params, SalvageSettings) and params.reading != "log_odds":
        made_from |= {"reading": params.reading, "pairs": params.pairs}
    if isinstance(params, SalvageSettings) and params.temperature != 1:
        # The training says it too, but it was not always read.
        made_from["temperature"] = params.temperature

    def build() -> Any:
        return wrap(networks.explainer(trained, artifact, share), lambda: networks.network("surrogate"))

    return Prepared(made_from, build, notes=notes)
