from typing import Any

import pytest
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
from tests.shapley.tables import TableGame, all_rows
from tests.toolbox import randn
from xai.core.errors import UserError
from xai.explainers.learned.networks import VitShapleyExplainer
from xai.methods import vit_shapley as module
from xai.methods.vit_shapley import VitShapley, efficient, fast_shap_loss, predictions_with_ends
from xai.models.explainer import ShapleyNetwork, column
from xai.shapley.exact import exact_shapley
from xai.shapley.importance import kernel_weights
from xai.shapley.masks import weights_of

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to .self.log")


def vit_shapley(outputs: int = 3, masks: int = 4, **settings: Any) -> VitShapley:
    network = explainer(ShapleyNetwork, outputs, parts=1)
    return VitShapley(network, classifier(outputs, seed=1), FIT, masks, seed=3, stage="test", **settings)


@pytest.mark.parametrize("classes", [(3,), ()], ids=["of every class", "of one"])
def test_normalised_values_add_up_and_keep_their_differences(classes: tuple[int, ...]) -> None:
    values, grand, null = randn(5, 9, *classes), randn(5, *classes, seed=1), randn(5, *classes, seed=2)
    found = efficient(values, grand, null)
    torch.testing.assert_close(found.sum(1), grand - null, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found - found[:, :1], values - values[:, :1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(efficient(found, grand, null), found, rtol=1e-12, atol=1e-12)


def test_the_loss_is_equation_2_coalition_by_coalition() -> None:
    values, answers, null = randn(2, 5, 3), randn(2, 4, 3, seed=1), randn(2, 3, seed=2)
    keep = torch.rand(2, 4, 5, generator=torch.Generator().manual_seed(3)) < 0.5
    squares = [
        float(answers[b, s, c] - null[b, c] - sum(values[b, m, c] for m in range(5) if keep[b, s, m])) ** 2
        for b in range(2)
        for s in range(4)
        for c in range(3)
    ]
    assert fast_shap_loss(values, keep, answers, null).item() == pytest.approx(5 * sum(squares) / 24, rel=1e-12)


def test_autocast_does_not_touch_the_loss() -> None:
    values, answers, null = randn(2, 64, 3).float(), randn(2, 4, 3, seed=1).float(), randn(2, 3, seed=2).float()
    keep = torch.rand(2, 4, 64, generator=torch.Generator().manual_seed(3)) < 0.5
    expected = fast_shap_loss(values, keep, answers, null)
    with torch.autocast("cpu", torch.bfloat16):
        found = fast_shap_loss(values, keep, answers, null)
    assert torch.equal(found, expected)


def test_predictions_come_with_those_of_the_whole_and_of_nothing() -> None:
    surrogate, given = classifier(seed=1), batch()
    keep = torch.rand(6, 3, PLAYERS, generator=torch.Generator().manual_seed(0)) < 0.5
    answers, grand, null = predictions_with_ends(surrogate, given.pixels, keep)
    for row in range(3):
        torch.testing.assert_close(answers[:, row], surrogate(given.pixels, keep[:, row]).softmax(-1))
    torch.testing.assert_close(grand, surrogate(given.pixels).softmax(-1))
    nothing = torch.zeros(6, PLAYERS, dtype=torch.bool)
    torch.testing.assert_close(null, surrogate(given.pixels, nothing).softmax(-1))
    assert (grand - null).abs().min() > 0


@pytest.mark.parametrize("outputs", [3, 1])
def test_attributions_add_up_to_what_the_image_makes_of_the_prediction(outputs: int) -> None:
    network, surrogate = speaking(explainer(ShapleyNetwork, outputs, parts=1)), classifier(outputs, seed=1)
    given = batch(classes=max(outputs, 2))
    with torch.no_grad():
        maps = VitShapleyExplainer(network, surrogate).attribute(given.pixels, given.labels)
        whole = surrogate(given.pixels).softmax(-1)
        nothing = surrogate(given.pixels, torch.zeros(6, PLAYERS, dtype=torch.bool)).softmax(-1)
        raw = network.values(given.pixels)
    assert maps.shape == (6, 2, 2)
    picked = torch.arange(6), given.labels
    torch.testing.assert_close(maps.sum((1, 2)), (whole - nothing)[picked], rtol=1e-5, atol=1e-6)
    own = raw[torch.arange(6), :, given.labels]
    torch.testing.assert_close((maps - maps[:, :1, :1]).flatten(1), own - own[:, :1], rtol=1e-4, atol=1e-6)
    assert own.std(1).min() > 1e-4


def test_it_learns_and_its_surrogate_stays_as_it_was() -> None:
    learner, given = vit_shapley(), batch()
    surrogate = learner._frozen[0]
    before, start = copied(surrogate), copied(learner.network)

    def distance() -> float:
        """To the exact Shapley values of the surrogate's predictions."""
        keep = all_rows(PLAYERS).expand(6, -1, -1)
        with torch.no_grad():
            answers, grand, null = predictions_with_ends(surrogate, given.pixels, keep)
            exact = exact_shapley(TableGame(answers.double()))
            return float((efficient(learner.network.values(given.pixels), grand, null) - exact).square().mean())

    first = distance()
    losses, checkpoint = train(learner, [given] * 60)
    assert len(losses) == 60
    assert distance() < 0.5 * first
    check_untouched(surrogate, before)
    check_trained(learner.network, start, "network", checkpoint)


@pytest.mark.parametrize(("sampling", "share"), [("informed", 1.0), ("mixed", 0.5)])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_masks_that_follow_the_true_class_are_weighed_back_to_the_kernel_and_not_used_to_validate(
    sampling: str, share: float, weighted: bool, training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, given, seen = vit_shapley(masks=32, sampling=sampling, weighted=weighted).train(training), batch(), []
    speaking(learner.network)

    def watched(*asked: Any) -> Tensor:
        seen.append(asked)
        return fast_shap_loss(*asked)

    monkeypatch.setattr(module, "fast_shap_loss", watched)
    learner.loss(given, 0)
    (_, coalitions, _, _, weights), players = seen[0], PLAYERS
    phi = column(learner.network.values(given.pixels), given.labels)
    if training and weighted:
        assert not weights.requires_grad
        torch.testing.assert_close(weights, kernel_weights(phi, coalitions, share).float())
    else:
        assert weights is None
    # Only Algorithm 3 draws all patches, and half of the mixed masks are followed by their complements.
    assert (coalitions.sum(2) == players).any() == training
    pairs = coalitions if not training else coalitions[:, 16:] if sampling == "mixed" else coalitions[:, :0]
    assert torch.equal(pairs[:, 1::2], ~pairs[:, ::2])


def test_masks_whose_density_nobody_knows_are_not_taken_for_those_of_the_kernel() -> None:
    with pytest.raises(UserError, match="sampling=informed_paired cannot be weighed back to the Shapley kernel"):
        weights_of("informed_paired", torch.zeros(1, 4), torch.ones(1, 2, 4, dtype=torch.bool))
