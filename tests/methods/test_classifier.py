from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.methods.tiny_salvage import FIT, batch, classifier, copied, same, train
from tests.toolbox import seeded, there
from xai.core.errors import UserError
from xai.data.module import Batch
from xai.methods.classifier import Classifier, focused_patches, visible_background
from xai.models.timm_vit import MaskableVit

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to .self.log")


def touched_by(regions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Patch by patch, pixel by pixel."""
    high, wide = regions.shape[1] // grid[0], regions.shape[2] // grid[1]
    found = torch.zeros(len(regions), grid[0] * grid[1], dtype=torch.bool)
    for image, row, column in regions.nonzero().tolist():
        found[image, row // high * grid[1] + column // wide] = True
    return found


@pytest.mark.parametrize("background", [0, 1, 4, 8])
def test_the_objects_patches_are_shown_and_so_many_of_the_others(background: int) -> None:
    regions = torch.rand(20, 8, 12, generator=seeded()) < 0.02
    shown = focused_patches(regions, (2, 4), background, seeded(1))
    touched = touched_by(regions, (2, 4))
    assert (touched & ~shown).sum() == 0
    others = 8 - touched.sum(1)
    assert torch.equal((shown & ~touched).sum(1), others.clamp(max=background))
    # Some images have no object, some have one that covers several patches.
    assert touched.sum(1).min() == 0
    assert touched.sum(1).max() > 1


def test_background_is_drawn_anew_for_each_image_and_by_the_generator_alone() -> None:
    regions = torch.zeros(200, 8, 8, dtype=torch.bool)
    regions[:, 0, 0] = True
    shown = focused_patches(regions, (2, 2), 1, seeded())
    counts = shown.sum(0)
    assert counts[0] == 200
    assert counts[1:].min() > 40
    assert torch.equal(focused_patches(regions, (2, 2), 1, seeded()), shown)
    assert not torch.equal(focused_patches(regions, (2, 2), 1, seeded(1)), shown)


def test_the_background_comes_back_bit_by_bit() -> None:
    found = [visible_background(step, 10, 0.5, 36) for step in range(10)]
    assert found == [0, 7, 14, 21, 28, None, None, None, None, None]
    assert visible_background(0, 10, 0.0, 36) is None
    assert visible_background(9, 10, 1.0, 36) == 32


class Watched(MaskableVit):
    """Notes what it is shown."""

    def forward(self, images: Tensor, keep: Tensor | None = None) -> Tensor:
        self.__dict__.setdefault("shown", []).append(keep)
        return super().forward(images, keep)


def module(focus: float, outputs: int = 3) -> Classifier:
    model = classifier(outputs).requires_grad_(True)
    model.__class__ = Watched
    return Classifier(model, FIT, focus, seed=3, stage="test")


def test_a_training_shows_more_and_more_until_it_shows_everything() -> None:
    learner, given = module(0.5), batch()
    train(learner, [given] * 8)
    shown = learner.model.shown
    touched = touched_by(there(given.regions), (2, 2))
    assert torch.equal(shown[0], touched)
    # Steps 1 to 3 of 4 bring back 1 to 3 patches, of the three that each image has beside its object.
    assert [int((keep & ~touched).sum(1).unique()) for keep in shown[:4]] == [0, 1, 2, 3]
    assert shown[4:] == [None] * 4


@pytest.mark.parametrize("outputs", [3, 1])
def test_without_focus_a_step_is_the_cross_entropy_of_whole_images(outputs: int) -> None:
    learner, given = module(0.0, outputs), batch(classes=max(outputs, 2))
    loss = learner.training_step(given, 0)
    with torch.no_grad():
        raw = learner.model.network((given.pixels - 0.5) / 0.5)
    if outputs == 1:
        expected = F.binary_cross_entropy_with_logits(raw[:, 0], given.labels.float())
    else:
        expected = F.cross_entropy(raw, given.labels)
    torch.testing.assert_close(loss.detach(), expected)
    assert learner.model.shown == [None]


def test_what_dropout_draws_follows_from_the_number_of_the_step() -> None:
    learner = module(0.0).train()
    learner.model.network.head_drop = nn.Dropout(0.5)
    losses = []
    with torch.random.fork_rng():
        for other, step in enumerate([2, 2, 3]):
            torch.manual_seed(other)  # of a run that was killed, and of one that goes on
            learner._trainer = SimpleNamespace(global_step=step, global_rank=0, barebones=True)
            losses.append(learner.training_step(batch(), 0).item())
    assert losses[0] == losses[1] != losses[2]


def test_it_learns() -> None:
    learner, given = module(0.25), batch()
    before = copied(learner.model)
    losses, _ = train(learner, [given] * 40)
    assert losses[-1] < 0.5 * losses[0]
    assert not same(before, learner.model)


def test_focus_without_regions_is_refused() -> None:
    given = batch()
    with pytest.raises(UserError, match=r"^focus needs the regions of the objects, and .*: set focus=0$"):
        module(0.5).training_step(Batch(given.pixels, given.labels, None, None), 0)
