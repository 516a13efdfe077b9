"""attention_last and attention_rollout, against loops over what the libraries' own modules attend to."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

from tests.explainers.networks import TARGETS
from tests.explainers.own_passes import READ, own
from tests.explainers.settings import explainer
from tests.toolbox import randn, seeded
from xai.explainers.posthoc.attention import cut_bound, rollout, widest_path


def last_by_hand(layers: list[np.ndarray], image: int) -> np.ndarray:
    return sum(layers[-1][image]) / layers[-1].shape[1]


def rollout_by_hand(layers: list[np.ndarray], image: int) -> np.ndarray:
    """Abnar and Zuidema 2020, section 3, literally."""
    joint = None
    for layer in layers:
        raw = sum(layer[image]) / layer.shape[1]
        augmented = 0.5 * raw + 0.5 * np.eye(len(raw))
        augmented = augmented / augmented.sum(axis=-1)[:, None]
        joint = augmented if joint is None else np.matmul(augmented, joint)
    return joint


@pytest.mark.parametrize("family", READ)
@pytest.mark.parametrize(
    ("name", "by_hand"), [("attention_last", last_by_hand), ("attention_rollout", rollout_by_hand)]
)
def test_a_map_is_what_the_tokens_read_have_of_the_patches(
    family: str, name: str, by_hand: Callable[[list[np.ndarray], int], np.ndarray]
) -> None:
    case = own(family)
    layers = [attention.detach().numpy() for attention in case.attention]
    maps = explainer(name, case.model).attribute(case.images, TARGETS)
    assert maps.shape == (4, *case.model.grid)
    for image in range(4):
        weights = by_hand(layers, image)
        expected = sum(weights[row, case.prefix :] for row in case.read) / len(case.read)
        np.testing.assert_allclose(maps[image].flatten().numpy(), expected, rtol=1e-9, atol=1e-12)


def stochastic(layers: int) -> list[Tensor]:
    return list(torch.randn(layers, 2, 7, 7, generator=seeded()).mul(2).softmax(-1))


def test_rows_of_a_rollout_add_up_to_one_whatever_the_precision_of_the_network() -> None:
    layers = stochastic(12)
    expected = rollout(layers)
    torch.testing.assert_close(expected.sum(-1), torch.ones(2, 7))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(rollout(layers), expected)


def test_a_rollout_of_no_layer_is_refused() -> None:
    with pytest.raises(ValueError, match="one layer at least"):
        rollout([])


@pytest.mark.parametrize("name", ["attention_last", "attention_rollout"])
def test_brain_floats_come_close(name: str) -> None:
    case = own("registers")
    exact = explainer(name, case.model).attribute(case.images, TARGETS)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = explainer(name, case.model.float()).attribute(case.images.float(), TARGETS)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - exact).abs().mean() < 0.05 * exact.mean()


TOKENS, LAYERS = 4, 3
UNIT = 10**6  # scipy's capacities are whole numbers


@pytest.fixture
def layers() -> list[Tensor]:
    return list(randn(LAYERS, 2, TOKENS, TOKENS).mul(2).softmax(-1))


def edges(layers: list[Tensor], image: int) -> list[np.ndarray]:
    return [0.5 * layer[image].numpy() + 0.5 * np.eye(len(layer[image])) for layer in layers]


def flow(layers: list[Tensor], image: int, source: int, sink: int) -> float:
    """The maximum flow from a token after the last layer to one before the first (Abnar, Zuidema 2020, section 3)."""
    size = len(layers[0][image])
    capacity = np.zeros((size * (len(layers) + 1),) * 2, dtype=np.int32)
    for number, width in enumerate(edges(layers, image)):
        above, below = size * (number + 1), size * number
        capacity[above : above + size, below : below + size] = np.round(UNIT * width)
    return maximum_flow(csr_array(capacity), size * len(layers) + source, sink).flow_value / UNIT


def test_the_widest_path_is_the_best_of_all_paths(layers: list[Tensor]) -> None:
    found = widest_path(layers, source=1)
    for image, sink in itertools.product(range(2), range(TOKENS)):
        widths = []
        for between in itertools.product(range(TOKENS), repeat=LAYERS - 1):
            places = (sink, *between, 1)
            widths.append(min(w[places[n + 1], places[n]] for n, w in enumerate(edges(layers, image))))
        assert float(found[image, sink]) == pytest.approx(max(widths), rel=1e-12)


def test_the_maximum_flow_lies_between_the_bounds(layers: list[Tensor]) -> None:
    lower, upper = widest_path(layers, source=0), cut_bound(layers, source=0)
    exact = torch.tensor([[flow(layers, image, 0, sink) for sink in range(TOKENS)] for image in range(2)])
    slack = 1e-4
    assert (lower <= exact + slack).all()
    assert (exact <= upper + slack).all()
    assert (upper - lower > 10 * slack).all(), "a test of two bounds that are one says nothing"
    # Rollout is a flow too, though not the largest.
    assert (rollout(layers)[:, 0] <= exact + slack).all()


def test_where_there_is_one_layer_all_bounds_are_the_flow(layers: list[Tensor]) -> None:
    expected = torch.tensor(np.stack([edges(layers[:1], image)[0][2] for image in range(2)]))
    for bound in (widest_path, cut_bound):
        torch.testing.assert_close(bound(layers[:1], source=2), expected)


@pytest.mark.parametrize("bound", ["widest", "cut"])
@pytest.mark.parametrize("name", ["clip", "registers", "distilled"])
def test_a_map_is_the_mean_over_the_tokens_that_are_read(name: str, bound: str) -> None:
    case, through = own(name), widest_path if bound == "widest" else cut_bound
    layers = [attention.detach().mean(1) for attention in case.attention]
    expected = torch.stack([through(layers, source)[:, case.prefix :] for source in case.read]).mean(0)
    found = explainer("attention_flow", case.model, bound=bound).attribute(case.images, TARGETS)
    torch.testing.assert_close(found.flatten(1), expected)
