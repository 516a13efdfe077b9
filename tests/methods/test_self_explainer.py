import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.models.tiny_clip import CLASSES, classifier, pictures
from tests.toolbox import randn, refusal
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.data.module import Batch, OtherColumn
from xai.methods.self_explainer import SelfExplainer, check_alpha, classification_loss, combined_loss, explanation_loss
from xai.models.clip import trainable

FIT = FitParams(1, 4, 1e-3, 0.0, 0.1, 1.0)
LABELS = torch.tensor([0, 3, 1, 4])
pytestmark = pytest.mark.filterwarnings("ignore:You are trying to .self.log")


def entropy_loop(logits: Tensor, labels: Tensor) -> float:
    terms = [
        math.log(sum(math.exp(v) for v in row)) - row[label]
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True)
    ]
    return sum(terms) / len(terms)


def explanation_loop(attributions: Tensor, labels: Tensor, reference: Tensor) -> float:
    """Equation 5 with the mean over patches, image by image in numpy."""
    terms = []
    for maps, label, wanted in zip(attributions.numpy(), labels.tolist(), reference.numpy(), strict=True):
        column = maps[:, label]
        a = (column - column.mean()) / column.std()
        b = (wanted - wanted.mean()) / wanted.std()
        terms.append(((a - b) ** 2).mean())
    return float(np.mean(terms))


def test_losses_against_loops_in_float64() -> None:
    logits, attributions, reference = randn(4, CLASSES), randn(4, 16, CLASSES, seed=1), randn(4, 16, seed=2)
    classification = classification_loss(logits, LABELS)
    explanation = explanation_loss(attributions, LABELS, reference)
    assert float(classification) == pytest.approx(entropy_loop(logits, LABELS), rel=1e-12)
    assert float(explanation) == pytest.approx(explanation_loop(attributions, LABELS, reference), rel=1e-12)
    for alpha in (0.0, 0.3, 1.0):
        expected = alpha * float(classification) + (1 - alpha) * float(explanation)
        assert float(combined_loss(classification, explanation, alpha)) == pytest.approx(expected, rel=1e-12)


def test_only_the_column_of_the_true_class_counts() -> None:
    attributions, reference = randn(4, 16, CLASSES, seed=1).requires_grad_(), randn(4, 16, seed=2)
    explanation_loss(attributions, LABELS, reference).backward()  # type: ignore[no-untyped-call]
    reached = attributions.grad.abs().sum(1) > 0
    assert reached.nonzero().tolist() == [[row, label] for row, label in enumerate(LABELS.tolist())]


def test_the_explanation_loss_ignores_scale_and_shift_and_has_its_known_values() -> None:
    attributions, reference = randn(4, 16, CLASSES, seed=1), randn(4, 16, seed=2)
    plain = explanation_loss(attributions, LABELS, reference)
    torch.testing.assert_close(explanation_loss(7 * attributions - 3, LABELS, 0.1 * reference + 9), plain)
    own = attributions[torch.arange(4), :, LABELS]
    assert float(explanation_loss(attributions, LABELS, own)) == pytest.approx(0, abs=1e-12)
    assert float(explanation_loss(attributions, LABELS, -own)) == pytest.approx(4)
    assert float(explanation_loss(attributions, LABELS, torch.ones(4, 16).double())) == pytest.approx(1)


def test_gradients_of_constant_maps_are_finite() -> None:
    attributions = randn(4, 16, CLASSES, seed=1)
    attributions[0], attributions[1] = 0.25, 0.0
    attributions.requires_grad_()
    reference = randn(4, 16, seed=2)
    reference[2] = 3.0
    loss = explanation_loss(attributions, LABELS, reference)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.isfinite()
    assert attributions.grad.isfinite().all()
    assert attributions.grad[3].abs().sum() > 0


def batch(attributions: Tensor | None) -> Batch:
    return Batch(pictures(4).float(), LABELS, None, attributions)


def gradients(module: SelfExplainer) -> list[Tensor | None]:
    return [value.grad for value in module.model.parameters()]


def test_alpha_1_is_pure_cross_entropy_and_asks_for_no_supervision() -> None:
    module = SelfExplainer(classifier().float().requires_grad_(True), FIT, 1.0, "test")
    loss = module.training_step(batch(None), 0)
    logits = module.model(batch(None).pixels)
    assert float(loss.detach()) == pytest.approx(entropy_loop(logits.detach(), LABELS), rel=1e-5)
    supervised = SelfExplainer(module.model, FIT, 1.0, "test").training_step(batch(randn(4, 16).float()), 0)
    assert torch.equal(supervised, loss)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.9])
def test_a_step_is_equation_4(alpha: float) -> None:
    module = SelfExplainer(classifier().float().requires_grad_(True), FIT, alpha, "test")
    reference = randn(4, 16, seed=5).float()
    loss = module.training_step(batch(reference), 0)
    logits, attributions = (x.detach().double() for x in module.model.explain(batch(None).pixels))
    entropy = entropy_loop(logits, LABELS)
    explanation = explanation_loop(attributions, LABELS, reference.double())
    assert float(loss.detach()) == pytest.approx(alpha * entropy + (1 - alpha) * explanation, rel=1e-4)
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(grad is not None for grad in gradients(module))
    assert {name for name, _ in module.model.named_parameters()} == set(trainable(module.model))


def test_half_of_the_explanation_loss_may_be_of_another_class() -> None:
    module = SelfExplainer(classifier().float().requires_grad_(True), FIT, 0.3, "test")
    others, reference, second = torch.tensor([1, 0, 4, 2]), randn(4, 16, seed=5).float(), randn(4, 16, seed=6).float()
    loss = module.training_step(batch(reference)._replace(other=OtherColumn(others, second)), 0)
    logits, attributions = (x.detach().double() for x in module.model.explain(batch(None).pixels))
    own = explanation_loop(attributions, LABELS, reference.double())
    other = explanation_loop(attributions, others, second.double())
    expected = 0.3 * entropy_loop(logits, LABELS) + 0.7 * (own + other) / 2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-4)


def test_supervision_that_is_missing_is_named() -> None:
    module = SelfExplainer(classifier().float(), FIT, 0.5, "test")
    assert "alpha=0.5 needs explanation supervision" in refusal(module.training_step, batch(None), 0)


@pytest.mark.parametrize("alpha", [-0.1, 1.1, math.nan, math.inf])
def test_an_alpha_out_of_range_is_refused(alpha: float) -> None:
    with pytest.raises(UserError, match=r"must be between 0 .* and 1"):
        check_alpha(alpha)
    with pytest.raises(UserError, match=r"must be between 0 .* and 1"):
        SelfExplainer(classifier(), FIT, alpha, "test")
