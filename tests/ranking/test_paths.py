import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from tests.toolbox import randn, seeded
from xai.core.errors import UserError
from xai.ranking.areas import enlarge, perturb
from xai.ranking.objective import check_grid


def images(batch: int = 2, height: int = 24, width: int = 24) -> torch.Tensor:
    return torch.rand(batch, 3, height, width, generator=seeded())


@pytest.mark.parametrize(("grid", "height", "width"), [(7, 28, 28), (5, 23, 17), (14, 224, 224)])
def test_masks_are_enlarged_to_blocks_and_their_edges_blurred(grid: int, height: int, width: int) -> None:
    masks = randn(2, 3, grid, grid)
    blocks = F.interpolate(masks, (height, width), mode="nearest")
    assert torch.equal(enlarge(masks, height, width, 0.0), blocks)
    torch.testing.assert_close(enlarge(masks, height, width, 1.0), gaussian_blur(blocks, [7, 7], [1.0, 1.0]))


@pytest.mark.parametrize("grid", [2, 9])
def test_a_grid_that_fits_is_accepted(grid: int) -> None:
    check_grid(grid, 9, 12)


@pytest.mark.parametrize("grid", [1, 10])
def test_a_grid_that_does_not_fit_is_refused_in_one_line(grid: int) -> None:
    with pytest.raises(UserError, match=f"^a grid of {grid} x {grid} cells .* 9 x 12 px: use 2 to 9 cells a side$"):
        check_grid(grid, 9, 12)


@pytest.mark.parametrize("owners", [1, 2])
def test_a_mask_goes_from_the_image_to_the_reference(owners: int) -> None:
    x, reference = images(), torch.rand(owners, 3, 24, 24, generator=seeded(1))
    masks = torch.stack([torch.zeros(2, 24, 24), torch.full((2, 24, 24), 0.3), torch.ones(2, 24, 24)], dim=1)
    found = perturb(x, reference, masks)
    assert torch.equal(found[:, 0], x)
    torch.testing.assert_close(found[:, 1], 0.7 * x + 0.3 * reference)
    assert torch.equal(found[:, 2], reference.expand(2, -1, -1, -1))


def test_each_pixel_has_a_share_of_its_own_and_each_image_its_own_masks() -> None:
    x, masks = images(), torch.rand(2, 4, 24, 24, generator=seeded(1))
    found = perturb(x, torch.zeros(1, 3, 24, 24), masks)
    torch.testing.assert_close(found[1, 3, 2, 5, 7], x[1, 2, 5, 7] * (1 - masks[1, 3, 5, 7]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_perturbed_images_have_the_precision_of_the_images(dtype: torch.dtype) -> None:
    x = images().to(dtype)
    assert perturb(x, torch.zeros_like(x), torch.rand(2, 1, 24, 24)).dtype == dtype
