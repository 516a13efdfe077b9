"""attention_flow: its bounds, against all paths of a small graph and against scipy's maximum flow."""

import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_flow
from torch import Tensor

from tests.explainers.networks import TARGETS
from tests.explainers.own_passes import own
from tests.explainers.settings import explainer
from tests.toolbox import randn
from xai.explainers.posthoc.attention import cut_bound, rollout, widest_path

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
