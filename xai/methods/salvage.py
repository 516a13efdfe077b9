"""SALVAGE (Naouar et al. 2025): learning the distribution that a classifier predicts for masked images.

Shapley distributions (section 4.1) are predictions for masked images as sums over patches. They are computed in float32
at least, also under autocast, and from log-probabilities: in half precision sums over hundreds of patches lose their
digits, probabilities underflow, and 0 log 0 is not a number.

`present` is phi+ and `absent` phi-, [B, M, C] each: for a binary classifier the two columns of phi+ are -phi/2 and
phi/2, and the softmax over them is the sigmoid of phi. `coalitions` are bool [B, S, M], and `temperature` divides the
sum before sigma (the paper's section 7); it is 1 in the paper.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from xai.core.optimisation import FitParams
from xai.data.module import Batch
from xai.games import PatchGame
from xai.methods.learner import Learner
from xai.models.explainer import SalvageNetwork, ShapleyParts, column
from xai.models.maskable import MaskableClassifier
from xai.rounding import at_least_float32
from xai.sampling import common_and_own
from xai.shapley.masks import draw_masks, is_informed

_NUMBERS_AT_ONCE = 1 << 23
"""Of the logits that `distribution_values` holds at once."""

Divergence = Callable[[Tensor, Tensor], Tensor]
"""Log-probabilities log u and log v, each [..., C], to a number for each pair of distributions, [...]."""


def shapley_distribution(present: Tensor, absent: Tensor, coalitions: Tensor, temperature: float = 1.0) -> Tensor:
    """Equation 4: u(S) = sigma(sum of phi+ over the patches in S + sum of phi- over those outside), as its logarithm.

    Returns:
        [B, S, C].
    """
    present, absent = at_least_float32(present), at_least_float32(absent)
    with torch.autocast(present.device.type, enabled=False):
        inside = torch.bmm(coalitions.to(present.dtype), present - absent)
    return ((inside + absent.sum(1, keepdim=True)) / temperature).log_softmax(-1)


def distribution_values(present: Tensor, absent: Tensor, orders: Tensor, temperature: float = 1.0) -> Tensor:
    """Shapley values of the game u(S) of equation 4 itself, by permutations; no pass of any network.

    The paper's map phi+ - phi- is what a patch adds to the *logits* of u, wherever it is added. What it adds to the
    probability depends on the patches that are there already: the Shapley value is its mean over orders of appearance
    (Shapley 1953; estimated from sampled orders by Castro et al. 2009).

    `orders` are permutations of the patches as they appear, int [P, M]; with all M! of them the values are exact.

    Returns:
        [B, M, C]. Their sum over patches is u(N) - u(empty), exactly.
    """
    present, absent = at_least_float32(present), at_least_float32(absent)
    change, start = (present - absent) / temperature, absent.sum(1)[:, None, None] / temperature
    total, (images, _, classes) = torch.zeros_like(change), change.shape
    # As many orders at once as a few dozen megabytes hold.
    for some in orders.to(change.device).split(max(1, _NUMBERS_AT_ONCE // change.numel())):
        logits = torch.cat([start.expand(-1, len(some), -1, -1), start + change[:, some].cumsum(2)], dim=2)
        added = logits.softmax(-1).diff(dim=2)
        total.index_add_(1, some.flatten(), added.reshape(images, -1, classes))
    return total / len(orders)


def jensen_shannon(log_u: Tensor, log_v: Tensor) -> Tensor:
    """D_JS(u || v) of equation 5, [...], between 0 and log 2.

    Its gradient vanishes where u is confident of a class that v rules out: such a u is not pulled back.
    """
    log_u, log_v = at_least_float32(log_u), at_least_float32(log_v)
    log_m = torch.logaddexp(log_u, log_v) - math.log(2)
    return (_mean_under(log_u, log_u - log_m) + _mean_under(log_v, log_v - log_m)) / 2


def kullback_leibler(log_u: Tensor, log_v: Tensor) -> Tensor:
    """D_KL(v || u), [...], 0 or more. Its gradient with respect to the logits of u is u - v: only at v it vanishes."""
    log_u, log_v = at_least_float32(log_u), at_least_float32(log_v)
    return _mean_under(log_v, log_v - log_u)


DIVERGENCES: Mapping[str, Divergence] = {"jensen_shannon": jensen_shannon, "kullback_leibler": kullback_leibler}
"""What brings u(S) to v(S), by name: the paper's, and the one that statistics would take first."""


def distribution_loss(
    present: Tensor,
    absent: Tensor,
    coalitions: Tensor,
    log_v: Tensor,
    temperature: float = 1.0,
    divergence: str = "jensen_shannon",
) -> Tensor:
    """Equation 5: the mean divergence of u(S) from v(S) over images and coalitions.

    `log_v` [B, S, C] are logarithms of the classifier's predictions v(S), and `divergence` is one of `DIVERGENCES`. A
    scalar.
    """
    return DIVERGENCES[divergence](shapley_distribution(present, absent, coalitions, temperature), log_v).mean()


def _mean_under(log_p: Tensor, values: Tensor) -> Tensor:
    """The mean of values [..., C] under p. What has no probability at all counts nothing, however large its value."""
    return torch.where(log_p > -math.inf, log_p.exp() * values, 0.0).sum(-1)


class Salvage(Learner):
    """Trains phi+ and phi- on the game of the surrogate.

    Args:
        network: The explainer; trained in place.
        surrogate: What answers v(S), frozen.
        masks: Coalitions an image and step; even, of `mixed` sampling a multiple of 4.
        sampling: A `xai.shapley.masks.Sampling`; the paper's is `informed`. No mask is weighed: u(S) shall be
            v(S) wherever one looks, and has no minimiser that hangs on how often it was asked, but for what it cannot
            fit.
        divergence: What brings u(S) to v(S): `jensen_shannon`, equation 5, or `kullback_leibler`.
        params, seed, stage: As of `Learner`.
    """

    def __init__(
        self,
        network: SalvageNetwork,
        surrogate: MaskableClassifier,
        params: FitParams,
        masks: int,
        sampling: str,
        divergence: str,
        seed: int,
        stage: str,
    ) -> None:
        super().__init__(params, seed, stage, surrogate)
        self.network, self._masks, self._sampling, self._divergence = network, masks, sampling, divergence

    def loss(self, batch: Batch, step: int) -> Tensor:
        """Equation 5."""
        parts = self.network.parts(batch.pixels)
        coalitions = self._coalitions(parts, batch.labels, step)
        log_v = log_predictions(self._frozen[0], batch.pixels, coalitions)
        return distribution_loss(*parts, coalitions, log_v, self.network.temperature, self._divergence)

    @torch.no_grad()
    def _coalitions(self, parts: ShapleyParts, labels: Tensor, step: int) -> Tensor:
        """Bool [B, S, M]; one size a slot for all images, so that sequences of one length are computed together."""
        common, own = common_and_own(self._seed, step, labels.device, self.global_rank)
        phi = column(parts.present - parts.absent, labels)
        # Not to validate: losses over masks that each network chooses for itself do not compare.
        chosen = self.training or not is_informed(self._sampling)
        return draw_masks(self._sampling if chosen else "uniform", phi, self._masks, common, own)


def log_predictions(surrogate: MaskableClassifier, images: Tensor, coalitions: Tensor) -> Tensor:
    """Log v(S) of images [B, 3, H, W] and coalitions [B, S, M]: [B, S, C], in float32, a constant to autograd."""
    logits = PatchGame(surrogate, images, output="logit").value(coalitions)
    # Made in inference mode, it could not take part in a backward pass.
    return logits.clone().log_softmax(-1)
