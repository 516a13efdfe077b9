import pytest
import torch
from torch import Tensor, nn

from tests.models.tiny_clip import coalitions
from tests.models.tiny_vit import MEAN, STD, normalised, painted_over, small_cnn
from tests.toolbox import refusal
from xai.models.families import seeded
from xai.models.maskable import PaintedClassifier, Removal, reference_image

EXACT = {"rtol": 1e-10, "atol": 1e-10}
GRID = (3, 4)


def images(count: int = 8, height: int = 12, width: int = 20) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def painted(
    removal: Removal | None = None, reference: Tensor | None = None, grid: tuple[int, int] = GRID
) -> PaintedClassifier:
    return PaintedClassifier(small_cnn(), grid, MEAN, STD, removal, reference).requires_grad_(False)


@pytest.mark.parametrize("reference", ["black", "mean", "blur", "0.8"])
def test_it_is_the_network_on_painted_images(reference: str) -> None:
    removal, keep = Removal("pixels", reference), coalitions(8, players=12)
    behind = reference_image(images(), removal, torch.tensor(MEAN))
    expected = small_cnn()(normalised(painted_over(images(), behind, keep, GRID)))
    torch.testing.assert_close(painted(removal)(images(), keep), expected, **EXACT)
    plain = small_cnn()(normalised(images()))
    torch.testing.assert_close(painted(removal)(images()), plain, **EXACT)
    torch.testing.assert_close(painted(removal)(images(), torch.ones_like(keep)), plain, **EXACT)
    assert (plain - expected).abs().max() > 0.1


@pytest.mark.parametrize("shape", [(3, 12, 20), (3, 1, 1), (1, 3, 12, 20), (12, 20)], ids=str)
def test_a_reference_of_ones_own_is_what_shows(shape: tuple[int, ...]) -> None:
    keep = coalitions(8, players=12)
    behind = torch.rand(shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    expected = small_cnn()(normalised(painted_over(images(), behind, keep, GRID)))
    torch.testing.assert_close(painted(Removal("pixels", "black"), behind)(images(), keep), expected, **EXACT)


def test_a_network_with_a_single_logit_is_binary() -> None:
    with seeded(0):
        network = nn.Sequential(nn.Flatten(), nn.Linear(720, 1)).double().requires_grad_(False)
    found = PaintedClassifier(network, GRID, MEAN, STD)(images()).softmax(1)
    torch.testing.assert_close(found[:, 1:], network(normalised(images())).sigmoid(), **EXACT)


class Watching(nn.Module):
    """Says how the images lie in memory that it is given."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.channels_last: list[bool] = []

    def forward(self, pictures: Tensor) -> Tensor:
        self.channels_last.append(pictures.is_contiguous(memory_format=torch.channels_last))
        return self.inner(pictures)


def test_channels_lie_last_for_convolutions_only_and_change_nothing() -> None:
    keep = coalitions(8, players=12)
    with seeded(0):
        flat = nn.Sequential(nn.Flatten(), nn.Linear(720, 5)).double()
    for inner, convolves in ((small_cnn(), True), (flat, False)):
        watching = Watching(inner)
        found = PaintedClassifier(watching, GRID, MEAN, STD)(images(), keep)
        assert watching.channels_last == [convolves]
        behind = torch.tensor(MEAN).reshape(1, 3, 1, 1)
        over = normalised(painted_over(images(), behind, keep, GRID)).contiguous()
        torch.testing.assert_close(found, inner.to(memory_format=torch.contiguous_format)(over), **EXACT)


def test_gradients_reach_what_is_visible_and_nothing_else() -> None:
    pictures = images(1).requires_grad_()
    keep = torch.zeros(1, 12, dtype=torch.bool)
    keep[0, 6] = True
    painted()(pictures, keep).sum().backward()  # type: ignore[no-untyped-call]
    reached = pictures.grad[0].abs().sum(0) > 0
    expected = torch.zeros(12, 20, dtype=torch.bool)
    expected[4:8, 10:15] = True
    assert torch.equal(reached, expected)


@pytest.mark.parametrize("grid", [(5, 4), (3, 7), (24, 4)])
def test_a_grid_that_does_not_divide_the_image_is_refused(grid: tuple[int, int]) -> None:
    told = refusal(painted(grid=grid), images())
    assert told == f"a grid of {grid[0]} x {grid[1]} does not divide an image of 12 x 20"


@pytest.mark.parametrize("grid", [(0, 4), (3, -1)])
def test_a_grid_without_patches_is_refused(grid: tuple[int, int]) -> None:
    assert refusal(painted, grid=grid) == f"a grid of {grid[0]} x {grid[1]} has no patches: it needs at least 1 x 1"


def test_tokens_cannot_be_dropped() -> None:
    expected = "removal.kind=tokens needs a transformer whose tokens can be dropped: use pixels for SmallCnn"
    assert refusal(painted, Removal("tokens")) == expected


def test_a_coalition_costs_its_image_whatever_is_kept() -> None:
    model = PaintedClassifier(small_cnn(), (4, 4), MEAN, STD)
    for side, cost in ((64, 16), (32, 4), (8, 1)):
        model.encode(images(1, side, side))
        assert [model.cost(kept) for kept in (0, 5, 16)] == [cost] * 3
