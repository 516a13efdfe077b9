"""LIME (Ribeiro et al. 2016) as an explainer, on the patches of an image instead of superpixels."""

from typing import Literal

import torch
from torch import Tensor

from xai.core.settings import Count, Positive, Several, settings
from xai.explainers.params import GameParams
from xai.explainers.posthoc.game_values import OfGame
from xai.explainers.registry import explainer
from xai.shapley.design import Game

_SELECTION = 0.01
"""Ridge penalty of the fit that features are selected by, as in the authors' package."""


@settings
class LimeParams(GameParams):
    """How the local linear model is fitted; what is not said is as in the authors' package.

    Args:
        samples: Perturbed images evaluated for each image, the image itself among them.
        kernel_width: How fast the weight of a sample falls with its cosine distance from the image.
        features: How many patches get a value at all, those with the largest weights in a first fit; or `all`.
        ridge: The penalty on squared weights.
    """

    samples: Several
    kernel_width: Positive = 0.25
    features: Literal["all"] | Count = "all"
    ridge: Positive = 1.0


@explainer(
    "lime",
    label="LIME",
    about="weights of a linear model fitted to the answers around the image",
    params=LimeParams,
    needs={"game"},
    passes=lambda params, patches: params.samples,
)
class Lime(OfGame[LimeParams]):
    """Explains all images of a call with one set of samples."""

    def values(self, game: Game, generator: torch.Generator) -> Tensor:
        """Weights; see `lime`."""
        params = self.params
        samples = torch.rand(params.samples, game.players, generator=generator) < 0.5
        samples[0] = True
        return lime(game.value(samples), samples, params.kernel_width, params.ridge, params.features)


def lime(
    values: Tensor, samples: Tensor, kernel_width: float, ridge: float, features: Literal["all"] | int = "all"
) -> Tensor:
    """The linear model of equation 1 of the paper, with the kernel and the fit of the authors' package for images.

    Args:
        values: v(S), [B, S].
        samples: Bool [S, M]; True is shown.
        kernel_width: As in `LimeParams`; so are the following.
        ridge: The penalty.
        features: How many are selected.

    Returns:
        [B, M] in the dtype of `values`, 0 for what is not selected; computed in float64.
    """
    z, v = samples.to(values.device, torch.float64), values.double()
    root = proximity(samples, kernel_width).to(z).sqrt()[:, None]
    share = root.square() / root.square().sum()
    # The intercept is not penalised: it is what centring takes out.
    z, v = root * (z - (share * z).sum(0)), root * (v.T - (share * v.T).sum(0))
    gram, moment = z.T @ z, v.T @ z
    if features == "all" or features >= len(gram):
        return _ridge(gram, moment, ridge).to(values.dtype)
    first = _ridge(gram, moment, _SELECTION)
    chosen = first.abs().argsort(dim=1, descending=True, stable=True)[:, :features]
    few = _ridge(gram[chosen[:, :, None], chosen[:, None, :]], moment.gather(1, chosen), ridge)
    return torch.zeros_like(moment).scatter_(1, chosen, few).to(values.dtype)


def proximity(samples: Tensor, kernel_width: float) -> Tensor:
    """The weight of each sample, [S] float64: sqrt(exp(-D^2 / width^2)), D its cosine distance from the whole image."""
    shown = samples.double().mean(1)
    # The cosine of a 0-1 vector and all ones is the root of the share that is one.
    distance = 1 - shown.sqrt()
    return (-distance.square() / kernel_width**2).exp().sqrt()


def _ridge(gram: Tensor, moment: Tensor, penalty: float) -> Tensor:
    """Weights [B, K] from Z^T W Z, [K, K] or [B, K, K], and Z^T W v, [B, K], both centred."""
    system = gram + penalty * torch.eye(gram.shape[-1], device=gram.device, dtype=gram.dtype)
    return torch.linalg.solve(system.expand(len(moment), -1, -1), moment[..., None])[..., 0]
