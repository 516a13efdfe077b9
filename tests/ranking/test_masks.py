import pytest
import torch

from tests.ranking.toys import published_masks
from tests.toolbox import randn
from xai.core.errors import UserError
from xai.ranking.sorting import percentiles, plain_sinkhorn, soft_masks


def permutation(cells: int = 6) -> torch.Tensor:
    return plain_sinkhorn(2 * randn(3, cells, cells), 500)


@pytest.mark.parametrize("steps", [2, 3, 7, 16])
def test_masks_are_cumulative_sums_with_straight_lines_between(steps: int) -> None:
    shares = torch.linspace(0, 1, steps, dtype=torch.float64)
    torch.testing.assert_close(soft_masks(permutation(), shares), published_masks(permutation(), shares))


def test_a_mask_adds_up_to_its_share_of_all_cells() -> None:
    shares = torch.tensor([0.0, 0.1, 0.5, 0.77, 1.0], dtype=torch.float64)
    masks = soft_masks(permutation(), shares)
    torch.testing.assert_close(masks.sum(2), (6 * shares).expand(3, -1))
    assert torch.equal(masks[:, 0], torch.zeros(3, 6).double())
    torch.testing.assert_close(masks[:, -1], torch.ones(3, 6).double())
    assert (masks.diff(dim=1) >= 0).all()


def test_a_hard_order_takes_whole_cells_the_first_first() -> None:
    order = torch.tensor([2, 0, 3, 1])
    hard = torch.nn.functional.one_hot(order, 4)[None].float()
    masks = soft_masks(hard, torch.linspace(0, 1, 5))[0]
    assert masks.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [1, 0, 1, 0], [1, 0, 1, 1], [1, 1, 1, 1]]


def test_autocast_rounds_no_mask() -> None:
    shares = torch.linspace(0, 1, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = soft_masks(permutation().float(), shares)
    assert torch.equal(found, soft_masks(permutation().float(), shares))


def test_percentiles_are_even_and_hold_both_ends() -> None:
    assert percentiles(5).tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert percentiles(2).tolist() == [0, 1]
    with pytest.raises(UserError, match=r"^steps=1: .* use 2 or more$"):
        percentiles(1)
