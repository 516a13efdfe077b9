"""gradient_rollout, chefer and legrad, against loops over the gradients of the libraries' own modules."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.explainers.networks import TARGETS
from tests.explainers.own_passes import READ, Own, head, own
from tests.explainers.settings import explainer
from tests.models.tiny_vit import maskable, network, pictures
from tests.toolbox import refusal
from xai.models.attention import trace

Layers = list[tuple[np.ndarray, np.ndarray]]


@pytest.fixture(params=READ, scope="module")
def case(request: pytest.FixtureRequest) -> Own:
    return own(request.param)


def chosen(logits: Tensor) -> Tensor:
    return sum(logits[image, target] for image, target in enumerate(TARGETS))  # type: ignore[return-value]


def rollout_by_hand(layers: Layers) -> np.ndarray:
    """vit-explain's gradient rollout, nothing discarded."""
    result = np.eye(layers[0][0].shape[-1])
    for attention, gradient in layers:
        fused = np.mean([a * g for a, g in zip(attention, gradient, strict=True)], axis=0)
        a = np.maximum(fused, 0) + np.eye(len(fused))
        result = np.stack([row / row.sum() for row in a]) @ result
    return result


def relevance_by_hand(layers: Layers) -> np.ndarray:
    """Equations 5 and 6 of Chefer et al. (ICCV 2021)."""
    relevance = np.eye(layers[0][0].shape[-1])
    for attention, gradient in layers:
        mean = sum(np.maximum(g * a, 0) for a, g in zip(attention, gradient, strict=True)) / len(attention)
        relevance = relevance + mean @ relevance
    return relevance


@pytest.mark.parametrize(("name", "by_hand"), [("gradient_rollout", rollout_by_hand), ("chefer", relevance_by_hand)])
def test_a_map_is_what_the_tokens_read_have_of_the_patches(
    case: Own, name: str, by_hand: Callable[[Layers], np.ndarray]
) -> None:
    gradients = torch.autograd.grad(chosen(case.logits), case.attention, retain_graph=True)
    maps = explainer(name, case.model).attribute(case.images, TARGETS)
    assert maps.shape == (4, *case.model.grid)
    for image in range(4):
        layers = [(a[image].detach().numpy(), g[image].numpy()) for a, g in zip(case.attention, gradients, strict=True)]
        expected = by_hand(layers)[case.read, case.prefix :].mean(0)
        np.testing.assert_allclose(maps[image].flatten().numpy(), expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize(("tokens", "layers"), [("mean", None), ("read", None), ("mean", 2)])
def test_legrad_is_the_mean_of_each_layers_own_positive_gradients(case: Own, tokens: str, layers: int | None) -> None:
    maps = explainer("legrad", case.model, tokens=tokens, layers=layers).attribute(case.images, TARGETS)
    count = len(case.attention) if layers is None else layers
    expected = torch.zeros(4, case.model.players, dtype=torch.float64)
    for attention, x in list(zip(case.attention, case.tokens, strict=True))[-count:]:
        if tokens == "mean" and len(case.read) <= 2:
            x = torch.stack([x.mean(1)] * x.shape[1], 1)
        (gradient,) = torch.autograd.grad(chosen(head(case.model, x, case.name)), attention, retain_graph=True)
        for image in range(4):
            for patch in range(case.model.players):
                column = gradient[image, :, :, case.prefix + patch]
                expected[image, patch] += column[column > 0].sum() / column.numel() / count
    torch.testing.assert_close(maps.flatten(1), expected, rtol=1e-8, atol=1e-12)


def test_a_trace_is_the_networks_own_pass(case: Own) -> None:
    with torch.no_grad():
        found = trace(case.model, case.images)
    torch.testing.assert_close(found.logits, case.logits.detach(), rtol=1e-10, atol=1e-10)
    for mine, theirs in zip([*found.attention, *found.tokens], [*case.attention, *case.tokens], strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", ["chefer", "attn_lrp", "attention_rollout", "attention_flow"])
def test_a_network_with_a_hook_is_not_explained_by_another_networks_attention(name: str) -> None:
    built = network().requires_grad_(False)
    built.blocks[0].register_forward_hook(lambda m, inputs, output: 2 * output)
    with pytest.warns(UserWarning, match="its blocks are called as they are"):
        line = refusal(explainer(name, maskable(built)).attribute, pictures(built, 4), TARGETS)
    assert line.startswith("this network's own logits are not those of its blocks")


@pytest.mark.parametrize("name", ["gradient_rollout", "chefer", "legrad", "lrp", "attn_lrp"])
def test_half_precision_of_the_caller_does_not_reach_gradients(name: str) -> None:
    built = network().requires_grad_(False).float()
    model, images = maskable(built), pictures(built, 4).float()
    exact = explainer(name, model).attribute(images, TARGETS)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(explainer(name, model).attribute(images, TARGETS), exact)
