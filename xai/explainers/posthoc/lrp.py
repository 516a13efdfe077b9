"""LRP beyond attention (Chefer, Gur and Wolf, CVPR 2021, "Transformer-Explainability"): SALVAGE's row LRP."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from xai.explainers.posthoc.attention_gradients import relevance
from xai.explainers.posthoc.lrp_pass import Function, Rules, check, over_all_but_first, propagate, ratio
from xai.explainers.posthoc.traced import TracedExplainer, target_logits, traced
from xai.explainers.registry import ExplainerParams, explainer
from xai.models.attention import embedded, patch_map
from xai.models.maskable import MaskableClassifier


@explainer(
    "lrp",
    label="LRP (Chefer)",
    about="relevance passed back to each layer's attention by rules, weighted by its gradient, through all layers",
    needs={"attention", "gradients"},
    passes=lambda params, patches: 6,
)
class Lrp(TracedExplainer[ExplainerParams]):
    """Explains with the relevance of attention, weighted by gradients and rolled out.

    What the paper leaves open, or its published code does otherwise, is done so: both operands of a matrix product get
    half of its relevance (the code), sums of a block and its residual connection are normalised (equations 8 to 10), an
    image by itself where the code adds up all of a batch; norms, softmax, activations, layer scale and the length of
    CLIP's features pass relevance on as it comes; a mean over tokens shares it by what each adds. Biases get none.

    Raises:
        UserError: Where the classifier is no transformer whose steps are known.
    """

    def __init__(self, classifier: MaskableClassifier, params: ExplainerParams) -> None:
        super().__init__(classifier, params)
        check(self.classifier)

    def maps(self, images: Tensor, targets: Tensor) -> Tensor:
        """Equations 13 and 14: the product over layers of I + mean over heads of relu(gradient x relevance)."""
        gradients = [gradient for _, gradient in traced(self.classifier, images, targets)]
        tokens = embedded(self.classifier, images)[0].detach().requires_grad_()
        logits, attention = propagate(self.classifier, tokens, CheferRules())
        found = torch.autograd.grad(target_logits(logits, targets), attention)
        return patch_map(self.classifier, relevance(list(zip(found, gradients, strict=True))))


class CheferRules(Rules):
    """Where autograd would pass a gradient back, each step passes relevance back; the target's logit starts with 1."""

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Equation 4, the z+ rule: in proportion to what each input adds, of that which is positive."""
        return _Linear.apply(x, weight, bias)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """In proportion to what each pair adds (equation 7), half to either operand."""
        return _Product.apply(a, b)

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """In proportion to what each adds, normalised (equations 8 to 10)."""
        return _Add.apply(a, b)

    def mean(self, x: Tensor) -> Tensor:
        """In proportion to what each token adds."""
        return _Mean.apply(x)

    def softmax(self, scores: Tensor) -> Tensor:
        """As it comes."""
        return self.elementwise(lambda each: each.softmax(-1), scores)

    def elementwise(self, function: Function, x: Tensor) -> Tensor:
        """As it comes."""
        return _Unchanged.apply(x, function(x.detach()))


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        signs = [(x.clamp(min=0), weight.clamp(min=0)), (x.clamp(max=0), weight.clamp(max=0))]
        share = ratio(relevance, sum(part @ factor.mT for part, factor in signs))
        return sum(part * (share @ factor) for part, factor in signs), None, None


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a @ b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, Tensor]:
        a, b = ctx.saved_tensors
        share = ratio(relevance, a @ b) / 2
        return a * (share @ b.mT), b * (a.mT @ share)


class _Add(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        return a + b

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, ...]:
        share = ratio(relevance, sum(ctx.saved_tensors))
        parts = [each * share for each in ctx.saved_tensors]
        sums = [over_all_but_first(part) for part in parts]
        whole = torch.stack([each.abs() for each in sums]).sum(0)
        return tuple(
            part * ratio(ratio(total.abs(), whole) * over_all_but_first(relevance), total)
            for part, total in zip(parts, sums, strict=True)
        )


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.mean(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, relevance: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return x * ratio(relevance, x.sum(1))[:, None]


class _Unchanged(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, result: Tensor) -> Tensor:
        return result.clone()

    @staticmethod
    def backward(ctx: Any, relevance: Tensor) -> tuple[Tensor, None]:
        return relevance, None
