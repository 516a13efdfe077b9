import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from xai.core.settings import build
from xai.models.maskable import Encoded, MaskableClassifier, Removal, Rows, reference_image, sort_rows

MEAN = torch.tensor([0.1, 0.2, 0.3])


def images(side: int, count: int = 2) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("side", "kernel"), [(224, 37), (42, 7), (12, 3), (7, 3), (2, 3)])
def test_blur_is_torchvisions_with_kernel_and_sigma_of_a_sixth_of_the_side(side: int, kernel: int) -> None:
    blurred = reference_image(images(side), Removal("pixels", "blur"), MEAN)
    expected = gaussian_blur(images(side), [kernel, kernel], [float(kernel), float(kernel)])
    torch.testing.assert_close(blurred, expected, rtol=0, atol=2e-6)


def test_blur_is_as_fine_under_mixed_precision() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        blurred = reference_image(images(12), Removal("pixels", "blur"), MEAN)
    assert torch.equal(blurred, reference_image(images(12), Removal("pixels", "blur"), MEAN))


def test_a_single_pixel_has_nothing_to_blur_with() -> None:
    assert torch.equal(reference_image(images(1), Removal("pixels", "blur"), MEAN), images(1))


@pytest.mark.parametrize(
    ("reference", "expected"),
    [("black", (0, 0, 0)), ("mean", (0.1, 0.2, 0.3)), ("0.7", (0.7,) * 3), ("1", (1, 1, 1)), ("0", (0, 0, 0))],
)
def test_plain_references(reference: str, expected: tuple[float, ...]) -> None:
    painted = reference_image(images(4), Removal("pixels", reference), MEAN)
    assert painted.shape == (1, 3, 4, 4)
    for channel, level in enumerate(expected):
        assert (painted[:, channel] == torch.tensor(level, dtype=torch.float32)).all()


@pytest.mark.parametrize(
    ("given", "kept"), [(0.25, "0.25"), ("0.25", "0.25"), ("0.250", "0.25"), (1, "1"), (1.0, "1"), (-0.0, "0")]
)
def test_a_grey_level_has_one_name(given: str | float, kept: str) -> None:
    assert Removal("pixels", given).reference == kept
    assert build(Removal, {"reference": given}) == Removal("pixels", kept)


def test_rows_are_sorted_by_size_and_stay_in_order_within_one() -> None:
    keep = torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 0], [1, 1, 0], [1, 0, 0], [0, 0, 1]]).bool()
    order, groups = sort_rows(keep)
    assert order.tolist() == [2, 1, 4, 5, 3, 0]
    assert groups == [(1, 0), (3, 1), (1, 2), (1, 3)]


class Reader(MaskableClassifier):
    """Answers with its image's mean and the places of the patches that it sees."""

    grid = (2, 2)

    def encode(self, images: torch.Tensor) -> Encoded:
        return (images.mean((1, 2, 3)),)

    def decode(self, encoded: Encoded, rows: Rows) -> torch.Tensor:
        self.groups = list(rows.groups)
        return torch.cat([encoded[0][rows.owner][:, None], rows.keep.float()], dim=1)

    def cost(self, kept: int) -> int:
        return kept


def test_answers_are_in_the_order_of_the_images_whatever_they_are_decoded_in() -> None:
    reader, pictures = Reader(), images(4, count=5)
    keep = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 1, 0]]).bool()
    expected = torch.cat([pictures.mean((1, 2, 3))[:, None], keep.float()], dim=1)
    assert torch.equal(reader(pictures, keep), expected)
    assert reader.groups == [(1, 0), (1, 1), (1, 2), (1, 3), (1, 4)]
    assert torch.equal(reader(pictures)[:, 0], expected[:, 0])
    assert reader(pictures)[:, 1:].all()
    assert reader.groups == [(5, 4)]


@pytest.mark.parametrize("shape", [(5, 3), (4, 4), (4,), (1, 5, 4)], ids=str)
def test_coalitions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"^keep is \[[\d, ]+\], the classifier needs \[5, 4\]$"):
        Reader()(images(4, count=5), torch.ones(shape, dtype=torch.bool))
