import pytest
import scipy.stats
import torch
import torch.nn.functional as F

from tests.methods.tiny_salvage import (
    FIT,
    PLAYERS,
    batch,
    check_trained,
    check_untouched,
    classifier,
    copied,
    train,
)
from xai.methods.surrogate import Surrogate, surrogate_loss

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to .self.log")


def surrogate(teacher: str = "classifier", sizes: int = 2, seed: int = 3) -> Surrogate:
    return Surrogate(classifier(seed=1).requires_grad_(True), classifier(), FIT, teacher, sizes, seed, "test")


def test_the_loss_is_the_divergence_of_the_masked_prediction_from_the_classifiers() -> None:
    generator = torch.Generator().manual_seed(0)
    masked, full = (3 * torch.randn(7, 4, generator=generator) for _ in range(2))
    p, q = full.double().softmax(1).numpy(), masked.double().softmax(1).numpy()
    expected = scipy.stats.entropy(p, q, axis=1).mean()
    assert surrogate_loss(masked, full).item() == pytest.approx(expected, rel=1e-5)
    assert surrogate_loss(masked, masked + 5).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_loss_and_its_gradient_stay_finite_however_sure_both_are(dtype: torch.dtype) -> None:
    masked = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], dtype=dtype, requires_grad=True)
    loss = surrogate_loss(masked, -masked.detach())
    (gradient,) = torch.autograd.grad(loss, masked)
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_step_asks_the_classifier_about_whole_images_and_the_surrogate_about_masked_ones() -> None:
    learner, given = surrogate(sizes=6), batch()
    keep = learner._masks(6, learner.global_step)
    expected = surrogate_loss(learner.model(given.pixels, keep), classifier()(given.pixels))
    torch.testing.assert_close(learner.training_step(given, 0), expected)
    assert keep.any()
    assert not keep.all()


def test_labels_can_teach_instead() -> None:
    learner, given = surrogate("labels", sizes=6), batch()
    expected = F.cross_entropy(learner.model(given.pixels, learner._masks(6, learner.global_step)), given.labels)
    torch.testing.assert_close(learner.training_step(given, 0), expected)


def test_masks_have_a_few_sizes_a_batch_from_none_to_all() -> None:
    learner, found = surrogate(sizes=3), []
    for step in range(600):
        learner.__dict__["_seed"] = step
        sizes = learner._masks(9, learner.global_step).sum(1)
        assert torch.equal(sizes, sizes[:3].repeat(3))
        found.append(sizes[:3])
    counts = torch.cat(found).bincount(minlength=PLAYERS + 1)
    assert len(counts) == PLAYERS + 1
    assert scipy.stats.chisquare(counts).pvalue > 0.001


@pytest.mark.parametrize("teacher", ["classifier", "labels"])
def test_it_learns_and_its_teacher_stays_as_it_was(teacher: str) -> None:
    learner, given = surrogate(teacher), batch()
    frozen = learner._frozen[0]
    before, start = copied(frozen), copied(learner.model)
    keep = torch.ones(6, PLAYERS, dtype=torch.bool)

    def distance() -> float:
        with torch.no_grad():
            masked = learner.model(given.pixels, keep)
            return float(
                F.cross_entropy(masked, given.labels)
                if teacher == "labels"
                else surrogate_loss(masked, frozen(given.pixels))
            )

    first = distance()
    _, checkpoint = train(learner, [given] * 40)
    assert distance() < 0.5 * first
    check_untouched(frozen, before)
    check_trained(learner.model, start, "model", checkpoint)
