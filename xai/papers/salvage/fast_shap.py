"""FastSHAP as an explainer of a case whose classifier is a convolutional network: trained when it is asked for."""

from dataclasses import fields

import torch

from xai.classifiers.beside import CnnBeside, beside
from xai.classifiers.cnn import CnnStages
from xai.classifiers.params import FastShapParams
from xai.core.errors import UserError
from xai.core.settings import settings
from xai.explainers.learned.networks import VitShapleyExplainer
from xai.explainers.registry import Context, ExplainerParams, Prepared, explainer


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
        networks.untrained(_own(params))


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
    networks, own = cnn_networks(context, params), _own(params)
    artifact = networks.fast_shap(own)
    unit, count = params.fit.length

    def build() -> VitShapleyExplainer:
        return VitShapleyExplainer(networks.explainer(own, artifact), networks.network("surrogate"))

    return Prepared({"fast_shap": artifact.key}, build, notes={unit: count, "train_seconds": artifact.seconds})


def _own(params: FastShapSettings) -> FastShapParams:
    return FastShapParams(**{field.name: getattr(params, field.name) for field in fields(FastShapParams)})
