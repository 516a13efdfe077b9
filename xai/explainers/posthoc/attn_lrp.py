"""AttnLRP (Achtibat et al., ICML 2024) as an explainer: the logit's relevance, passed back to the patches' tokens."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from xai.core.settings import settings
from xai.explainers.posthoc.lrp_pass import Function, Rules, check, propagate
from xai.explainers.posthoc.traced import TracedExplainer, target_logits
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import embedded, of_patches
from xai.models.maskable import MaskableClassifier

_NOTHING = 1e-20


@settings
class AttnLrpParams(ExplainerParams):
    """What the paper and its authors' library do differently.

    Args:
        norm: How relevance goes back through a layer norm. `constant` takes its deviation as a constant and what is
            left as linear, as the library does; `identity` passes relevance on as it comes, as the paper's Proposition
            3.4 has it, which is noisy where the residual stream is near 0.
    """

    norm: Literal["constant", "identity"] = "constant"


@explainer(
    "attn_lrp",
    label="AttnLRP",
    about="the logit's relevance passed back through every step to the patches' tokens, by rules made for attention",
    params=AttnLrpParams,
    needs={"attention", "gradients"},
    passes=lambda params, patches: 3,
)
class AttnLrp(TracedExplainer[AttnLrpParams]):
    """Explains with the relevance of each patch's token as it enters the first layer, added up over its channels.

    The rules are those of the paper, with the epsilon rule for what is linear and an epsilon of 0: the gamma rule that
    the paper prefers for vision transformers has strengths to be chosen for each network, and is not here. A token is
    its patch and its position together, so the position's embedding shares in the relevance. Maps have a sign.

    Raises:
        UserError: Where the classifier is no transformer whose steps are known.
    """

    def __init__(self, classifier: MaskableClassifier, params: AttnLrpParams) -> None:
        super().__init__(classifier, params)
        check(self.classifier)

    def maps(self, images: Tensor, targets: Tensor) -> Tensor:
        """Relevance [b, h, w], by `AttnLrpRules`."""
        tokens = embedded(self.classifier, images)[0].detach().requires_grad_()
        logits, _ = propagate(self.classifier, tokens, AttnLrpRules(self.params.norm))
        (found,) = torch.autograd.grad(target_logits(logits, targets), tokens)
        return of_patches(self.classifier, (found * tokens.detach()).sum(-1))


class AttnLrpRules(Rules):
    """Autograd passes relevance back, divided by the value it is the relevance of: most rules are then the gradient.

    Such are the epsilon rule (equation 8), by which linear steps, sums and means share it in proportion to what each
    input adds to the output, the bias among them; and Proposition 3.1 of a softmax s, R(i) = x(i) (R(i) - s(i) times
    the sum of all R).
    """

    def __init__(self, norm: str) -> None:
        self._norm = norm

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Proposition 3.3: in proportion to what each pair adds, half to either operand."""
        return _with_half_the_gradient(a) @ _with_half_the_gradient(b)

    def elementwise(self, function: Function, x: Tensor) -> Tensor:
        """The identity rule for activations (equation 9): as it comes."""
        return _Identity.apply(x, function(x.detach()))

    def norm(self, function: Function, x: Tensor) -> Tensor:
        """The epsilon rule for all but the deviation, or the identity rule; see `AttnLrpParams`."""
        if self._norm == "identity" or not isinstance(function, nn.LayerNorm):
            return self.elementwise(function, x)
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.detach().square().mean(-1, keepdim=True) + function.eps).sqrt()
        scaled = scaled if function.weight is None else scaled * function.weight
        return scaled if function.bias is None else scaled + function.bias


class _Identity(torch.autograd.Function):
    """Relevance as it comes is, over the value, the gradient times result / x."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, result: Tensor) -> Tensor:
        ctx.save_for_backward(x, result)
        return result.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        x, result = ctx.saved_tensors
        # What is this near nothing has no relevance either; elsewhere the product with x undoes the division exactly.
        return gradient * torch.where(x.abs() > _NOTHING, result / x, 0), None


def _with_half_the_gradient(x: Tensor) -> Tensor:
    return 0.5 * x + (0.5 * x).detach()
