"""FastSHAP as an explainer of a case whose classifier is a convolutional network: trained when it is asked for."""

from dataclasses import fields

import torch

from xai.classifiers.cnn import CnnStages
from xai.classifiers.params import FastShapParams
from xai.core.errors import UserError
from xai.core.settings import settings
from xai.explainers.learned.networks import VitShapleyExplainer
from xai.explainers.registry import Context, ExplainerParams, Prepared, explainer


@settings
class FastShapSettings(FastShapParams, ExplainerParams):
    """FastSHAP as a row; see `FastShapParams`."""


def cnn_networks(context: Context) -> CnnStages:
    """The networks around the convolutional network of a case.

    Raises:
        UserError: The classifier is none of this framework.
    """
    networks = context.model.networks
    if not isinstance(networks, CnnStages):
        raise UserError(
            f"it starts from a convolutional network, and model={context.model.name} is none: use vit_shapley for a "
            "vision transformer"
        )
    return networks


def _check(context: Context, params: FastShapSettings) -> None:
    networks = cnn_networks(context)
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
    networks, own = cnn_networks(context), _own(params)
    artifact = networks.fast_shap(own)
    unit, count = params.fit.length

    def build() -> VitShapleyExplainer:
        return VitShapleyExplainer(networks.explainer(own, artifact), networks.network("surrogate"))

    return Prepared({"fast_shap": artifact.key}, build, notes={unit: count, "train_seconds": artifact.seconds})


def _own(params: FastShapSettings) -> FastShapParams:
    return FastShapParams(**{field.name: getattr(params, field.name) for field in fields(FastShapParams)})
