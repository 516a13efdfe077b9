"""Layer-wise relevance propagation through a transformer: one forward pass whose backward pass follows rules.

A set of rules says how relevance goes back through each kind of step, and is written as how autograd should go back
through it. The pass is the same for all sets: it gives the network's own logits, and what autograd returns for a tensor
of it is that tensor's relevance, or its relevance over its value, as the rules have it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, singledispatch
from typing import Any

import torch
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.models import packed
from xai.models.clip import SelfExplainingClip
from xai.models.maskable import class_logits
from xai.models.packed import TransformerClassifier
from xai.models.timm_vit import MaskableVit

Function = Callable[[Tensor], Tensor]


class Rules(ABC):
    """How relevance goes back through each kind of step. Every method computes what its plain counterpart does."""

    @abstractmethod
    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What `nn.Linear` does: x [..., D], weight [E, D], bias [E]."""

    @abstractmethod
    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Matrix products of a [..., I, J] and b [..., J, K]."""

    @abstractmethod
    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum of a and b [B, ..., D], the stream and what a block adds to it."""

    @abstractmethod
    def mean(self, x: Tensor) -> Tensor:
        """The mean over tokens, [B, L, D] to [B, D]."""

    @abstractmethod
    def softmax(self, scores: Tensor) -> Tensor:
        """Scores [B, heads, L, L] to attention."""

    @abstractmethod
    def elementwise(self, function: Function, x: Tensor) -> Tensor:
        """An activation or a scaling by constants: what has an output for each of its inputs."""

    def norm(self, function: Function, x: Tensor) -> Tensor:
        """A layer norm of x [..., D], or the identity where a network has none."""
        return self.elementwise(function, x)


@dataclass(frozen=True)
class _Parts:
    """A pre-norm block, step by step."""

    heads: int
    attention_norm: Function
    qkv: Any
    query_norm: Function
    key_norm: Function
    joined_norm: Function
    output: Any
    attention_scale: Function
    mlp_norm: Function
    up: Any
    activation: Function
    hidden_norm: Function
    down: Any
    mlp_scale: Function


@dataclass(frozen=True)
class _Weights:
    """Of a linear step whose library keeps them elsewhere than in an `nn.Linear`."""

    weight: Tensor
    bias: Tensor | None = None


def check(classifier: TransformerClassifier) -> None:
    """Refuse what has steps that no rule is known for, before anything is computed.

    Raises:
        UserError: Where a block or the head is of another make.
    """
    for block in classifier.blocks:
        _parts(block)
    if isinstance(classifier, MaskableVit) and not isinstance(classifier.network.head, nn.Linear):
        raise _no_rule(f"a head of type {type(classifier.network.head).__name__}")


def propagate(classifier: TransformerClassifier, tokens: Tensor, rules: Rules) -> tuple[Tensor, list[Tensor]]:
    """Run a transformer by rules.

    Args:
        classifier: Whose parts are known; see `check`.
        tokens: [B, L, D], what enters the first layer.
        rules: How relevance is to go back.

    Returns:
        Logits [B, C], and the attention [B, heads, L, L] of each layer.
    """
    attention = []
    for each in map(_parts, classifier.blocks):
        inputs = rules.linear(rules.norm(each.attention_norm, tokens), each.qkv.weight, each.qkv.bias)
        query, key, value = inputs.unflatten(2, (3, each.heads, -1)).transpose(1, 3).unbind(2)
        query, key = rules.norm(each.query_norm, query), rules.norm(each.key_norm, key)
        scores = rules.elementwise(partial(torch.mul, other=query.shape[-1] ** -0.5), rules.product(query, key.mT))
        weights = rules.softmax(scores)
        joined = rules.product(weights, value).transpose(1, 2).flatten(2)
        added = rules.linear(rules.norm(each.joined_norm, joined), each.output.weight, each.output.bias)
        tokens = rules.add(tokens, rules.elementwise(each.attention_scale, added))
        hidden = rules.linear(rules.norm(each.mlp_norm, tokens), each.up.weight, each.up.bias)
        hidden = rules.norm(each.hidden_norm, rules.elementwise(each.activation, hidden))
        added = rules.linear(hidden, each.down.weight, each.down.bias)
        tokens = rules.add(tokens, rules.elementwise(each.mlp_scale, added))
        attention.append(weights)
    return _head(classifier, tokens, rules), attention


@singledispatch
def _head(classifier: TransformerClassifier, tokens: Tensor, rules: Rules) -> Tensor:
    """Logits [B, C] of the tokens [B, L, D] of the last layer; a function for each family."""
    raise _no_rule(f"a {type(classifier).__name__}")


@_head.register
def _(classifier: SelfExplainingClip, tokens: Tensor, rules: Rules) -> Tensor:
    visual = classifier.visual
    features = rules.linear(rules.norm(visual.ln_post, tokens[:, 0]), visual.proj.mT, None)
    # The length of the features is taken as a constant, as the deviation in a layer norm is.
    unit = rules.elementwise(lambda x: nn.functional.normalize(x, dim=-1), features)
    return rules.linear(unit, (classifier.logit_scale * classifier.head).mT, None)


@_head.register
def _(classifier: MaskableVit, tokens: Tensor, rules: Rules) -> Tensor:
    network, read = classifier.network, classifier.read
    tokens = rules.norm(network.norm, tokens)
    if network.global_pool != "token":
        return _classify(network.head, rules.norm(network.fc_norm, rules.mean(tokens[:, read])), rules)
    logits = _classify(network.head, rules.norm(network.fc_norm, tokens[:, 0]), rules)
    if read.stop == 1:
        return logits
    # A distilled network averages the answers of two heads.
    other = _classify(network.head_dist, tokens[:, 1], rules)
    return rules.add(rules.elementwise(_halved, logits), rules.elementwise(_halved, other))


def _classify(head: Any, features: Tensor, rules: Rules) -> Tensor:
    """A linear head, with one output a class; see `class_logits`."""
    bias = None if head.bias is None else class_logits(head.bias)
    return rules.linear(features, class_logits(head.weight.mT).mT, bias)


def _halved(x: Tensor) -> Tensor:
    return x / 2


def _parts(block: Any) -> _Parts:
    """Of a block of open_clip or timm, which `packed.layers` knows as one or the other."""
    packed.layers([block])
    return _of_timm(block) if hasattr(block, "norm1") else _of_open_clip(block)


def _of_timm(block: Any) -> _Parts:
    mlp, attention = block.mlp, block.attn
    if type(mlp) is not Mlp:
        raise _no_rule(f"a feed-forward layer of type {type(mlp).__name__}")
    return _Parts(
        attention.num_heads,
        block.norm1,
        attention.qkv,
        attention.q_norm,
        attention.k_norm,
        attention.norm,
        attention.proj,
        block.ls1,
        block.norm2,
        mlp.fc1,
        mlp.act,
        mlp.norm,
        mlp.fc2,
        block.ls2,
    )


def _of_open_clip(block: Any) -> _Parts:
    attention, steps = block.attn, dict(block.mlp.named_children())
    if list(steps) != ["c_fc", "gelu", "c_proj"]:
        raise _no_rule(f"a feed-forward layer of {', '.join(steps)}")
    return _Parts(
        attention.num_heads,
        block.ln_1,
        _Weights(attention.in_proj_weight, attention.in_proj_bias),
        nn.Identity(),
        nn.Identity(),
        nn.Identity(),
        attention.out_proj,
        block.ls_1,
        block.ln_2,
        steps["c_fc"],
        steps["gelu"],
        nn.Identity(),
        steps["c_proj"],
        block.ls_2,
    )


def _no_rule(what: str) -> UserError:
    return UserError(f"{what} has no rule for relevance here: use chefer, which needs attention and gradients only")


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, kept from growing beyond all bounds near 0, and 0 where the denominator is exactly that."""
    steady = denominator + 1e-9 * denominator.sign()
    return torch.where(denominator == 0, 0, numerator / torch.where(denominator == 0, 1, steady))


def over_all_but_first(x: Tensor) -> Tensor:
    """The sum of each image, [B, ...] to [B, 1, ...]."""
    return x.sum(tuple(range(1, x.ndim)), keepdim=True)
