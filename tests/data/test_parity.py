import pytest
import torch

from xai.data.packaged import MergedClasses, open_mnist_parity, open_mnist_scattered
from xai.data.registry import SPLITS
from xai.data.scatter import ScatterParams


def test_scenes_are_those_of_the_digits_and_labels_their_parity() -> None:
    params = ScatterParams(clutter=1, polarity="random")
    digits, parity = open_mnist_scattered(params), open_mnist_parity(params)
    assert parity.classes == ("even", "odd")
    assert parity.varies
    assert all(template.count("{}") == 1 for template in parity.templates)
    for split in SPLITS:
        named = [parity.classes[label] for label in parity.labels(split).tolist()]
        assert named == ["odd" if digit in (1, 3, 5, 7, 9) else "even" for digit in digits.labels(split).tolist()]
        rows = torch.tensor([5, 2, 300])
        for one, other in zip(parity.images(split, rows, 2), digits.images(split, rows, 2), strict=True):
            assert one is not None
            assert other is not None
            assert torch.equal(one, other)


@pytest.mark.parametrize("merged", [[0] * 10, [0, 1] * 4, [0, 2] * 5])
def test_a_merger_that_loses_classes_is_a_mistake(merged: list[int]) -> None:
    source = open_mnist_scattered(ScatterParams())
    with pytest.raises(ValueError, match="must map 10 classes onto 2"):
        MergedClasses(source, ("even", "odd"), ("{}",), torch.tensor(merged))
