import os

import pytest
import torch
from torch import Tensor

from tests.models.tiny_clip import CLASSES, classifier, coalitions, pictures
from xai import games
from xai.games import PatchGame
from xai.models.maskable import Removal

REMOVALS = [Removal("tokens"), Removal("pixels", "mean"), Removal("pixels", "blur")]
EXACT = {"rtol": 1e-6, "atol": 1e-6}  # values are float32


def test_cores_are_counted_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert games._cores() == 1
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert games._cores() == 3


def naive(removal: Removal, images: Tensor, keep: Tensor, output: str) -> Tensor:
    """One call of the classifier for each image and coalition."""
    model = classifier(removal)
    values = torch.zeros(*keep.shape[:2], CLASSES, dtype=torch.float64)
    for image in range(keep.shape[0]):
        for row in range(keep.shape[1]):
            logits = model(images[image : image + 1], keep[image, row : row + 1])[0]
            powers = logits.exp()
            values[image, row] = powers / powers.sum() if output == "probability" else logits
    return values.float()


def different(images: int = 3, rows: int = 12) -> Tensor:
    return torch.stack([coalitions(rows, seed) for seed in range(images)])


@pytest.mark.parametrize("removal", REMOVALS, ids=["tokens", "mean", "blur"])
@pytest.mark.parametrize("output", ["probability", "logit"])
def test_values_are_the_classifiers_answers(removal: Removal, output: str) -> None:
    images, keep = pictures(3), different()
    game = PatchGame(classifier(removal), images, output=output)
    expected = naive(removal, images, keep, output)
    torch.testing.assert_close(game.value(keep), expected, **EXACT)
    assert game.players == 16
    targets = torch.tensor([4, 0, 2])
    aimed = PatchGame(classifier(removal), images, targets, output=output).value(keep)
    assert aimed.shape == (3, 12)
    for image, target in enumerate(targets.tolist()):
        torch.testing.assert_close(aimed[image], expected[image, :, target], **EXACT)
    if output == "probability":
        torch.testing.assert_close(game.value(keep).sum(-1), torch.ones(3, 12), **EXACT)


@pytest.mark.parametrize("removal", REMOVALS[:2], ids=["tokens", "pixels"])
def test_chunks_and_order_change_nothing(removal: Removal) -> None:
    images, keep = pictures(3), different()
    whole = PatchGame(classifier(removal), images, rows=10_000).value(keep)
    for rows in (1, 5, 7, None):
        torch.testing.assert_close(PatchGame(classifier(removal), images, rows=rows).value(keep), whole, **EXACT)
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    game = PatchGame(classifier(removal), images)
    torch.testing.assert_close(game.value(keep[:, shuffled]), whole[:, shuffled], **EXACT)
    torch.testing.assert_close(game.value(keep[:, 4:5]), whole[:, 4:5], **EXACT)
    assert (whole[0] - whole[1]).abs().max() > 0.01


def test_shared_coalitions_are_the_same_as_one_copy_an_image() -> None:
    images, keep = pictures(3), coalitions(9)
    game = PatchGame(classifier(Removal("tokens")), images)
    torch.testing.assert_close(game.value(keep), game.value(keep.repeat(3, 1, 1)), **EXACT)


def test_no_pass_is_larger_than_asked_for_and_images_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier(Removal("tokens"))
    encode, decode, calls, passes = model.encode, model.decode, [], []

    def counted_encode(images: Tensor) -> Tensor:
        calls.append(len(images))
        return encode(images)

    def counted_decode(encoded: Tensor, keep: Tensor | None) -> Tensor:
        assert keep is not None
        passes.append(keep.sum(1))
        return decode(encoded, keep)

    monkeypatch.setattr(model, "encode", counted_encode)
    monkeypatch.setattr(model, "decode", counted_decode)
    game = PatchGame(model, pictures(3), rows=4)
    game.value(different())
    game.value(different())
    assert calls == [3]
    assert max(len(sizes) for sizes in passes) == 4
    assert sum(len(sizes) for sizes in passes) == 2 * 36
    assert all(len(sizes.unique()) == 1 for sizes in passes)  # no padding is computed


@pytest.mark.parametrize(
    "shape", [(2, 4, 16), (3, 4, 15), (4, 15), (16,), (3, 0, 16), (0, 16), (3, 2, 4, 16)], ids=lambda shape: str(shape)
)
def test_coalitions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    game = PatchGame(classifier(), pictures(3))
    with pytest.raises(ValueError, match=r"the game needs torch.bool \[3, S, 16\]"):
        game.value(torch.ones(shape, dtype=torch.bool))


def test_numbers_in_the_place_of_coalitions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"coalitions are torch\.float32"):
        PatchGame(classifier(), pictures(1)).value(torch.ones(1, 2, 16))


@pytest.mark.parametrize("targets", [torch.tensor([1]), torch.tensor([1, 2, 3, 4]), torch.tensor(1)])
def test_targets_are_one_for_each_image(targets: Tensor) -> None:
    with pytest.raises(ValueError, match="one class for each of 3 images"):
        PatchGame(classifier(), pictures(3), targets)


def test_an_unknown_output_is_refused() -> None:
    with pytest.raises(ValueError, match="output='odds' is unknown"):
        PatchGame(classifier(), pictures(1), output="odds")
