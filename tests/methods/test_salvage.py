from types import SimpleNamespace
from typing import Any, get_args

import pytest
import scipy.spatial.distance
import scipy.stats
import torch
from torch import Tensor

from tests.methods.tiny_salvage import (
    FIT,
    PLAYERS,
    batch,
    check_trained,
    check_untouched,
    classifier,
    copied,
    explainer,
    speaking,
    train,
)
from xai.methods.salvage import Salvage, log_predictions
from xai.models.explainer import SalvageNetwork, ShapleyParts
from xai.shapley.masks import Sampling

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to .self.log")


def salvage(sampling: str = "informed", outputs: int = 3, **settings: Any) -> Salvage:
    chosen = {"masks": 4, "divergence": "jensen_shannon", "seed": 3, **settings}
    network = explainer(SalvageNetwork, outputs)
    network.temperature = chosen.pop("temperature", 1.0)
    return Salvage(network, classifier(outputs, seed=1), FIT, sampling=sampling, stage="test", **chosen)


def at_step(learner: Salvage, step: int) -> Salvage:
    learner._trainer = SimpleNamespace(global_step=step, global_rank=0)  # type: ignore[assignment]
    return learner


def parts_of(phi: Tensor) -> ShapleyParts:
    """Two halves [B, M, C] with phi as their difference, neither of which says what phi does."""
    absent = torch.randn(phi.shape, generator=torch.Generator().manual_seed(9))
    return ShapleyParts(phi + absent, absent)


def test_predictions_are_the_surrogates_logarithms_and_constants_to_autograd() -> None:
    surrogate, given = classifier(seed=1), batch()
    keep = torch.rand(6, 5, PLAYERS, generator=torch.Generator().manual_seed(0)) < 0.5
    found = log_predictions(surrogate, given.pixels, keep)
    for row in range(5):
        torch.testing.assert_close(found[:, row], surrogate(given.pixels, keep[:, row]).log_softmax(-1))
    assert not found.requires_grad
    weight = torch.ones((), requires_grad=True)
    (weight * found).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None


@pytest.mark.parametrize("outputs", [3, 1])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_a_step_is_equation_5(outputs: int, temperature: float) -> None:
    learner, given = salvage("uniform", outputs, temperature=temperature), batch(classes=max(outputs, 2))
    speaking(learner.network)
    with torch.no_grad():
        parts = learner.network.parts(given.pixels)
        keep = learner._coalitions(parts, given.labels, learner.global_step)
        expected = []
        for image in range(6):
            for row in keep[image]:
                total = parts.present[image][row].double().sum(0) + parts.absent[image][~row].double().sum(0)
                u = (total / temperature).softmax(-1)
                v = learner._frozen[0](given.pixels[image : image + 1], row[None]).double().softmax(-1)[0]
                expected.append(scipy.spatial.distance.jensenshannon(u.numpy(), v.numpy()) ** 2)
    loss = learner.training_step(given, 0)
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert len(expected) == 24


@pytest.mark.parametrize("sampling", get_args(Sampling))
def test_a_step_draws_the_same_in_a_resumed_run_and_one_size_a_slot(sampling: str) -> None:
    phi, labels = torch.randn(6, PLAYERS, 3, generator=torch.Generator().manual_seed(1)), torch.arange(6) % 3

    def drawn(step: int) -> Tensor:
        return at_step(salvage(sampling, masks=32), step)._coalitions(parts_of(phi), labels, step)

    assert torch.equal(drawn(7), drawn(7))
    assert not torch.equal(drawn(7), drawn(8))
    sizes = drawn(7).sum(2)
    assert torch.equal(sizes, sizes[:1].expand(6, -1))
    # What leaves nothing out is paired with what shows nothing.
    assert sizes.min() == (0 if sampling == "informed_paired" else 1)
    assert (sizes == PLAYERS).any() == (sampling not in ("shapley_kernel", "paired"))


def test_the_second_half_of_paired_masks_leaves_out_what_the_first_shows() -> None:
    phi = parts_of(torch.randn(6, PLAYERS, 3, generator=torch.Generator().manual_seed(1)))
    labels = torch.arange(6) % 3
    paired, informed = (
        at_step(salvage(sampling, masks=masks), 4)._coalitions(phi, labels, 4)
        for sampling, masks in (("informed_paired", 16), ("informed", 8))
    )
    assert torch.equal(paired[:, 8:], ~paired[:, :8])
    assert torch.equal(paired[:, :8], informed)


def test_masks_to_validate_by_are_uniform_and_do_not_follow_the_network() -> None:
    labels = torch.arange(6) % 3

    def drawn(sampling: str, seed: int, step: int = 1 << 31) -> Tensor:
        phi = 5 * torch.randn(6, PLAYERS, 3, generator=torch.Generator().manual_seed(seed))
        return at_step(salvage(sampling, masks=32), 0).eval()._coalitions(parts_of(phi), labels, step)

    assert torch.equal(drawn("informed", 1), drawn("informed", 2))
    assert torch.equal(drawn("informed", 1), drawn("uniform", 1))
    assert torch.equal(drawn("informed_paired", 1), drawn("uniform", 1))
    assert not torch.equal(drawn("informed", 1), drawn("informed", 1, (1 << 31) + 1))


def test_informed_masks_follow_the_current_map_of_the_true_class() -> None:
    phi = torch.zeros(3, PLAYERS, 3)
    labels = torch.tensor([2, 0, 1])
    for image, label in enumerate(labels.tolist()):
        phi[image] = torch.randn(PLAYERS, 3, generator=torch.Generator().manual_seed(image))
        # For the true class all that counts is one patch, for the others it counts least.
        phi[image, :, label] = 0
        phi[image, image, :] = -5
        phi[image, image, label] = 1
    keep = at_step(salvage(masks=400), 0)._coalitions(parts_of(phi), labels, 0)
    smaller = keep[0].sum(1) < PLAYERS
    important = torch.arange(400) < 200
    for image in range(3):
        # Its weight is 1 in the first half and 0 in the second; all others have 0 in the first and 1 in the second.
        assert keep[image, important, image].all()
        assert not keep[image, ~important & smaller, image].any()


def test_which_patches_come_first_does_not_depend_on_how_many() -> None:
    learner, labels = salvage("uniform", masks=2), torch.zeros(1, dtype=torch.long)
    parts = parts_of(torch.zeros(1, PLAYERS, 3))
    first = torch.stack([at_step(learner, step)._coalitions(parts, labels, step)[0, 0] for step in range(1500)])
    for size in (1, 3):
        observed = first[first.sum(1) == size].sum(0)
        if size == 3:
            observed = (first.sum(1) == size).sum() - observed
        assert scipy.stats.chisquare(observed).pvalue > 0.001


def test_an_untrained_explainer_predicts_the_uniform_distribution_and_reaches_its_backbone_after_one_step() -> None:
    learner, given = salvage(), batch()
    parts = learner.network.parts(given.pixels)
    assert not any(part.any() for part in parts)
    assert torch.equal(learner.network.classify(given.pixels).softmax(1), torch.full((6, 3), 1 / 3))
    optimiser = torch.optim.AdamW(learner.parameters(), lr=1e-2)
    learner.training_step(given, 0).backward()
    optimiser.step()
    optimiser.zero_grad()
    learner.training_step(given, 1).backward()
    still = {name for name, value in learner.network.named_parameters() if value.grad is None or not value.grad.any()}
    assert still == set()


@pytest.mark.parametrize("divergence", ["jensen_shannon", "kullback_leibler"])
@pytest.mark.parametrize("outputs", [3, 1])
def test_it_learns_and_its_surrogate_stays_as_it_was(divergence: str, outputs: int) -> None:
    learner, given = salvage("uniform", outputs, divergence=divergence), batch(classes=max(outputs, 2))
    surrogate = learner._frozen[0]
    before, start = copied(surrogate), copied(learner.network)
    losses, checkpoint = train(learner, [given] * 40)
    assert sum(losses[-5:]) < 0.6 * sum(losses[:5])
    check_untouched(surrogate, before)
    check_trained(learner.network, start, "network", checkpoint)


def test_gradients_of_a_step_in_mixed_precision_are_finite_and_near_those_of_single_precision() -> None:
    found = []
    for mixed in (False, True):
        learner = salvage("uniform")
        speaking(learner.network)
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = learner.training_step(batch(), 0)
        assert loss.dtype == torch.float32
        loss.backward()
        found.append(torch.cat([value.grad.flatten() for value in learner.parameters() if value.grad is not None]))
    exact, mixed_ones = found
    assert mixed_ones.isfinite().all()
    assert 0 < (mixed_ones - exact).norm() < 0.1 * exact.norm()
