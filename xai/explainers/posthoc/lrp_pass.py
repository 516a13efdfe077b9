"""Layer-wise relevance propagation through a transformer: one forward pass whose backward pass follows rules.

A set of rules says how relevance goes back through each kind of step, and is written as how autograd should go back
through it. The pass is the same for all sets: it gives the network's own logits, and what autograd returns for a tensor
of it is that tensor's relevance, or its relevance over its value, as the rules have it.
"""

from collections.abc import Callable
from functools import partial, singledispatch
from types import SimpleNamespace
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


class Rules:
    """How relevance goes back through each kind of step. Every method computes what its plain counterpart does.

    Here they are the plain ones: autograd goes back through them. What has another rule is overridden.
    """

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """What `nn.Linear` does: x [..., D], weight [E, D], bias [E]."""
        return nn.functional.linear(x, weight, bias)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """Matrix products of a [..., I, J] and b [..., J, K]."""
        return a @ b

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum of a and b [B, ..., D], the stream and what a block adds to it."""
        return a + b

    def mean(self, x: Tensor) -> Tensor:
        """The mean over tokens, [B, L, D] to [B, D]."""
        return x.mean(1)

    def softmax(self, scores: Tensor) -> Tensor:
        """Scores [B, heads, L, L] to attention."""
        return scores.softmax(-1)

    def elementwise(self, function: Function, x: Tensor) -> Tensor:
        """An activation or a scaling by constants: what has an output for each of its inputs."""
        return function(x)

    def norm(self, function: Function, x: Tensor) -> Tensor:
        """A layer norm of x [..., D], or the identity where a network has none."""
        return self.elementwise(function, x)


def check(classifier: TransformerClassifier) -> None:
    """Refuse what has steps that no rule is known for, before anything is computed.

    Raises:
        UserError: Where a block or the head is of another make.
    """
    for block in classifier.blocks:
        _named(block)
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
    for block in map(_named, classifier.blocks):
        attn, mlp = block.attn, block.mlp
        inputs = rules.linear(rules.norm(block.norm1, tokens), attn.qkv.weight, attn.qkv.bias)
        query, key, value = inputs.unflatten(2, (3, attn.num_heads, -1)).transpose(1, 3).unbind(2)
        query, key = rules.norm(attn.q_norm, query), rules.norm(attn.k_norm, key)
        scores = rules.elementwise(partial(torch.mul, other=query.shape[-1] ** -0.5), rules.product(query, key.mT))
        weights = rules.softmax(scores)
        joined = rules.product(weights, value).transpose(1, 2).flatten(2)
        added = rules.linear(rules.norm(attn.norm, joined), attn.proj.weight, attn.proj.bias)
        tokens = rules.add(tokens, rules.elementwise(block.ls1, added))
        hidden = rules.linear(rules.norm(block.norm2, tokens), mlp.fc1.weight, mlp.fc1.bias)
        hidden = rules.norm(mlp.norm, rules.elementwise(mlp.act, hidden))
        added = rules.linear(hidden, mlp.fc2.weight, mlp.fc2.bias)
        tokens = rules.add(tokens, rules.elementwise(block.ls2, added))
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


def _named(block: Any) -> Any:
    """A pre-norm block, its steps named as timm names them; of timm, or of open_clip (`packed.layers` knows both)."""
    packed.layers([block])
    if hasattr(block, "norm1"):
        if type(block.mlp) is not Mlp:
            raise _no_rule(f"a feed-forward layer of type {type(block.mlp).__name__}")
        return block
    attention, steps, none = block.attn, dict(block.mlp.named_children()), nn.Identity()
    if list(steps) != ["c_fc", "gelu", "c_proj"]:
        raise _no_rule(f"a feed-forward layer of {', '.join(steps)}")
    qkv = SimpleNamespace(weight=attention.in_proj_weight, bias=attention.in_proj_bias)
    attn = SimpleNamespace(
        num_heads=attention.num_heads, qkv=qkv, q_norm=none, k_norm=none, norm=none, proj=attention.out_proj
    )
    mlp = SimpleNamespace(fc1=steps["c_fc"], act=steps["gelu"], norm=none, fc2=steps["c_proj"])
    return SimpleNamespace(norm1=block.ln_1, attn=attn, ls1=block.ls_1, norm2=block.ln_2, mlp=mlp, ls2=block.ls_2)


def _no_rule(what: str) -> UserError:
    return UserError(f"{what} has no rule for relevance here: use chefer, which needs attention and gradients only")


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """The quotient, kept from growing beyond all bounds near 0, and 0 where the denominator is exactly that."""
    steady = denominator + 1e-9 * denominator.sign()
    return torch.where(denominator == 0, 0, numerator / torch.where(denominator == 0, 1, steady))


def over_all_but_first(x: Tensor) -> Tensor:
    """The sum of each image, [B, ...] to [B, 1, ...]."""
    return x.sum(tuple(range(1, x.ndim)), keepdim=True)
