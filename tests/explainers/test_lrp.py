"""lrp and attn_lrp, against relevance that is passed back step by step, in float64 and by division."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers.mlp import SwiGLU
from torch import Tensor

from tests.explainers.networks import TARGETS
from tests.explainers.own_passes import Own, own
from tests.explainers.settings import explainer
from tests.models.tiny_vit import maskable, network
from tests.toolbox import refusal

FAMILIES = ["clip", "registers", "distilled", "average_fc_norm"]


def shared(relevance: np.ndarray, parts: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """What each input gets of each output's relevance, by its part of a whole; 0 where that is nothing."""
    return np.where(whole == 0, 0, parts / np.where(whole == 0, 1, whole)) * relevance


class Chefer:
    """The rules of Chefer et al. (CVPR 2021), literally."""

    @staticmethod
    def start(logit: float) -> float:
        return 1.0

    @staticmethod
    def linear(relevance: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        parts = np.maximum(x[..., None, :] * weight, 0)  # [L, E, D]; of two negatives the product counts as well
        return shared(relevance[..., None], parts, parts.sum(-1, keepdims=True)).sum(-2)

    @staticmethod
    def add(relevance: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        to_a, to_b = shared(relevance, a, a + b), shared(relevance, b, a + b)
        sizes = abs(to_a.sum()), abs(to_b.sum())
        scale = [size / sum(sizes) * relevance.sum() for size in sizes]
        return to_a * scale[0] / to_a.sum(), to_b * scale[1] / to_b.sum()

    @staticmethod
    def softmax(relevance: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return relevance

    @staticmethod
    def norm(relevance: np.ndarray, x: np.ndarray, module: Any) -> np.ndarray:
        return relevance


class AttnLrp:
    """The rules of Achtibat et al. (2024), literally, with an epsilon of 0."""

    @staticmethod
    def norm(relevance: np.ndarray, x: np.ndarray, module: Any) -> np.ndarray:
        return relevance

    @staticmethod
    def start(logit: float) -> float:
        return logit

    @staticmethod
    def linear(relevance: np.ndarray, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
        parts = x[..., None, :] * weight
        return shared(relevance[..., None], parts, parts.sum(-1, keepdims=True) + bias[:, None]).sum(-2)

    @staticmethod
    def add(relevance: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return shared(relevance, a, a + b), shared(relevance, b, a + b)

    @staticmethod
    def softmax(relevance: np.ndarray, scores: np.ndarray) -> np.ndarray:
        attention = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        return scores * (relevance - attention * relevance.sum(-1, keepdims=True))


class AttnLrpOfTheLibrary(AttnLrp):
    """The same, but that a layer norm is a linear map, one for each token."""

    @staticmethod
    def norm(relevance: np.ndarray, x: np.ndarray, module: Any) -> np.ndarray:
        if isinstance(module, torch.nn.Identity):
            return relevance
        size = x.shape[-1]
        centring = np.eye(size) - np.full((size, size), 1 / size)
        rows = []
        for of_token, token in zip(np.atleast_2d(relevance), np.atleast_2d(x), strict=True):
            deviation = np.sqrt(token.var() + module.eps)
            weight = module.weight.numpy()[:, None] * centring / deviation
            rows.append(AttnLrp.linear(of_token, token, weight, module.bias.numpy()))
        return np.stack(rows).reshape(x.shape)


def product(relevance: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both papers: in proportion to what each pair adds, half to either operand."""
    parts = a[..., :, :, None] * b[..., None, :, :]  # [heads, I, J, K]
    each = shared(relevance[..., :, None, :], parts, parts.sum(-2, keepdims=True)) / 2
    return each.sum(-1), each.sum(-3)


def arrays(linear: Any) -> tuple[np.ndarray, np.ndarray]:
    return linear.weight.numpy(), np.zeros(len(linear.weight)) if linear.bias is None else linear.bias.numpy()


def steps(block: Any, name: str) -> dict[str, Any]:
    if name == "clip":
        qkv = block.attn.in_proj_weight.numpy(), block.attn.in_proj_bias.numpy()
        mlp = block.mlp
        return {
            "qkv": qkv, "out": arrays(block.attn.out_proj), "up": arrays(mlp.c_fc), "down": arrays(mlp.c_proj),
            "norms": (block.ln_1, block.ln_2), "act": mlp.gelu, "scales": (block.ls_1, block.ls_2), "heads": 2,
        }  # fmt: skip
    return {
        "qkv": arrays(block.attn.qkv), "out": arrays(block.attn.proj), "up": arrays(block.mlp.fc1),
        "down": arrays(block.mlp.fc2), "norms": (block.norm1, block.norm2), "act": block.mlp.act,
        "scales": (block.ls1, block.ls2), "heads": 3,
    }  # fmt: skip


def applied(module: Any, x: np.ndarray) -> np.ndarray:
    return module(torch.from_numpy(x)).numpy()


def to_heads(x: np.ndarray, heads: int) -> np.ndarray:
    return x.reshape(len(x), heads, -1).transpose(1, 0, 2)


def to_tokens(x: np.ndarray) -> np.ndarray:
    return x.transpose(1, 0, 2).reshape(x.shape[1], -1)


def by_hand(case: Own, image: int, rules: Any) -> tuple[np.ndarray, list[np.ndarray]]:
    """Relevance of the tokens [L, D] that enter the first layer, and of each layer's attention [heads, L, L]."""
    model: Any = case.model
    blocks = model.visual.transformer.resblocks if case.name == "clip" else model.network.blocks
    embedding = model.visual._embeds if case.name == "clip" else embed_of(model.network)
    x = embedding(model.normalisation(case.images[image : image + 1]))[0].numpy()
    kept = []
    for block in blocks:
        s = steps(block, case.name)
        normed = applied(s["norms"][0], x)
        q, k, v = (to_heads(part, s["heads"]) for part in np.split(normed @ s["qkv"][0].T + s["qkv"][1], 3, axis=1))
        scores = q @ k.transpose(0, 2, 1) / q.shape[-1] ** 0.5
        attention = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
        joined = to_tokens(attention @ v)
        middle_added = applied(s["scales"][0], joined @ s["out"][0].T + s["out"][1])
        middle = x + middle_added
        second = applied(s["norms"][1], middle)
        hidden = applied(s["act"], second @ s["up"][0].T + s["up"][1])
        added = applied(s["scales"][1], hidden @ s["down"][0].T + s["down"][1])
        kept.append((s, x, normed, q, k, v, scores, attention, joined, middle_added, middle, second, hidden, added))
        x = middle + added
    relevance = head_by_hand(case, x, int(TARGETS[image]), rules)
    found = []
    for s, x, normed, q, k, v, scores, attention, joined, middle_added, middle, second, hidden, added in kept[::-1]:
        stream, branch = rules.add(relevance, middle, added)
        back = rules.linear(rules.linear(branch, hidden, *s["down"]), second, *s["up"])
        relevance = stream + rules.norm(back, middle, s["norms"][1])
        stream, branch = rules.add(relevance, x, middle_added)
        of_attention, of_v = product(to_heads(rules.linear(branch, joined, *s["out"]), s["heads"]), attention, v)
        of_q, of_k = product(rules.softmax(of_attention, scores), q, k.transpose(0, 2, 1))
        parts = [to_tokens(of_q), to_tokens(of_k.transpose(0, 2, 1)), to_tokens(of_v)]
        back = rules.linear(np.concatenate(parts, axis=1), normed, *s["qkv"])
        relevance = stream + rules.norm(back, x, s["norms"][0])
        found.append(of_attention)
    return relevance, found[::-1]


def embed_of(built: Any) -> Callable[[Tensor], Tensor]:
    return lambda images: built.norm_pre(built._pos_embed(built.patch_embed(images)))


def head_by_hand(case: Own, x: np.ndarray, target: int, rules: Any) -> np.ndarray:
    """Relevance [L, D] of the tokens that leave the last layer."""
    model: Any = case.model
    onehot, relevance = np.arange(5) == target, np.zeros_like(x)
    if case.name == "clip":
        normed = applied(model.visual.ln_post, x[:1])
        features = normed @ model.visual.proj.numpy()
        unit = features / np.sqrt((features**2).sum())
        weight = (model.logit_scale * model.head).numpy().T
        start = rules.start((unit @ weight.T)[0, target]) * onehot[None]
        back = rules.linear(start, unit, weight, np.zeros(5))
        back = rules.linear(back, normed, model.visual.proj.numpy().T, np.zeros(12))
        relevance[:1] = rules.norm(back, x[:1], model.visual.ln_post)
        return relevance
    built = model.network
    normed = applied(built.norm, x)
    if case.name == "average_fc_norm":
        pooled = normed[1:].sum(0) / 16
        features, (weight, bias) = applied(built.fc_norm, pooled), arrays(built.head)
        back = rules.linear(rules.start((features @ weight.T + bias)[target]) * onehot, features, weight, bias)
        relevance[1:] = shared(rules.norm(back, pooled, built.fc_norm), normed[1:] / 16, pooled)
        return rules.norm(relevance, x, built.norm)
    heads = [arrays(head) for head in (built.head, *([built.head_dist] if case.name == "distilled" else []))]
    answers = [normed[n] @ weight.T + bias for n, (weight, bias) in enumerate(heads)]
    start = rules.start(np.mean(answers, 0)[target]) * onehot
    parts = [start] if len(heads) == 1 else rules.add(start, answers[0] / 2, answers[1] / 2)
    for n, (weight, bias) in enumerate(heads):
        relevance[n] = rules.linear(parts[n], normed[n], weight, bias)
    return rules.norm(relevance, x, built.norm)


@pytest.mark.parametrize("name", FAMILIES)
def test_lrp_is_chefers_relevance_passed_back_step_by_step(name: str) -> None:
    case = own(name)
    score = sum(case.logits[image, target] for image, target in enumerate(TARGETS))
    gradients = torch.autograd.grad(score, case.attention)  # type: ignore[arg-type]
    found = explainer("lrp", case.model).attribute(case.images, TARGETS)
    for image in range(4):
        joint = np.eye(case.prefix + 16)
        for gradient, relevance in zip(gradients, by_hand(case, image, Chefer)[1], strict=True):
            mean = np.maximum(gradient[image].numpy() * relevance, 0).mean(0)
            joint = (np.eye(len(mean)) + mean) @ joint
        expected = joint[case.read, case.prefix :].mean(0)
        np.testing.assert_allclose(found[image].flatten(), expected, rtol=1e-5, atol=1e-6 * expected.max())


@pytest.mark.parametrize(("norm", "rules"), [("constant", AttnLrpOfTheLibrary), ("identity", AttnLrp)])
@pytest.mark.parametrize("name", FAMILIES)
def test_attn_lrp_is_relevance_passed_back_step_by_step(name: str, norm: str, rules: Any) -> None:
    case = own(name)
    found = explainer("attn_lrp", case.model, norm=norm).attribute(case.images, TARGETS)
    for image in range(4):
        expected = by_hand(case, image, rules)[0][case.prefix :].sum(1)
        scale = np.abs(expected).max()
        np.testing.assert_allclose(found[image].flatten(), expected, rtol=1e-7, atol=1e-7 * scale)


@pytest.mark.parametrize("name", ["lrp", "attn_lrp"])
def test_steps_without_a_rule_are_refused_before_anything_is_explained(name: str) -> None:
    gated = maskable(network(mlp_layer=SwiGLU))
    assert refusal(explainer, name, gated) == (
        "a feed-forward layer of type SwiGLU has no rule for relevance here: use chefer, which needs attention and "
        "gradients only"
    )
    explainer("chefer", gated)
