import pytest
import torch
from torch import Tensor

from benchmarks.explainer_step import cases
from benchmarks.learned import (
    CLASSES,
    AttentionMasked,
    Learner,
    OwnSizes,
    SalvageStep,
    VitShapleyStep,
    explainer_of,
    surrogate_of,
)
from benchmarks.setup import Setup
from xai.data.module import Batch
from xai.games import PatchGame
from xai.models.explainer import SalvageNetwork

(CASE,) = cases(Setup(), small=True)
MODEL, PARAMS = CASE.model, CASE.params


def drawn(images: int) -> Tensor:
    return torch.rand(images, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def every_coalition_of_three() -> Tensor:
    keep = torch.ones(8, 9, dtype=torch.bool)
    keep[:, 2:5] = torch.cartesian_prod(*[torch.tensor([False, True])] * 3)
    keep[0] = False
    return keep


def asked(monkeypatch: pytest.MonkeyPatch, method: type[Learner], steps: int = 1) -> list[Tensor]:
    """The coalitions of the first steps of a method."""
    module, found = method.of(MODEL, PARAMS, surrogate_of(MODEL)), []
    with monkeypatch.context() as patch:
        value = PatchGame.value
        patch.setattr(PatchGame, "value", lambda game, keep: found.append(keep) or value(game, keep))
        for step in range(steps):
            module.taken = step
            module.training_step(Batch(drawn(4), torch.arange(4), None, None), 0)
    return found


def test_masking_attention_gives_the_values_of_dropping_tokens() -> None:
    plain, images, keep = surrogate_of(MODEL).double(), drawn(2).double(), every_coalition_of_three()
    expected = PatchGame(plain, images, output="logit").value(keep)
    masked = PatchGame(AttentionMasked(plain).eval(), images, output="logit").value(keep)
    torch.testing.assert_close(masked, expected, rtol=1e-6, atol=1e-6)


def test_masking_attention_costs_every_token_whatever_is_kept() -> None:
    masked = AttentionMasked(surrogate_of(MODEL))
    assert [masked.cost(kept) for kept in (0, 4, 9)] == [11, 11, 11]


def test_coalitions_of_a_surrogate_differ_in_value() -> None:
    values = PatchGame(surrogate_of(MODEL), drawn(2)).value(every_coalition_of_three())
    apart = (values[:, :, None] - values[:, None]).abs().amax(-1)
    assert apart[:, ~torch.eye(8, dtype=torch.bool)].median() > 0.01


def test_an_explainer_is_the_same_each_time_and_attributes_something() -> None:
    first, second = (explainer_of(MODEL, PARAMS, SalvageNetwork, scores=2) for _ in range(2))
    assert all(torch.equal(value, second.state_dict()[name]) for name, value in first.state_dict().items())
    present, absent = first.parts(drawn(2))
    assert present.shape == (2, 9, CLASSES)
    assert (present - absent).std(1).min() > 0.1


def test_sizes_are_one_a_slot_or_every_images_own(monkeypatch: pytest.MonkeyPatch) -> None:
    (shared,), (own,) = asked(monkeypatch, SalvageStep), asked(monkeypatch, OwnSizes)
    assert shared.shape == own.shape == (4, PARAMS.masks, 9)
    assert (shared.sum(2) == shared.sum(2)[:1]).all()
    assert (own.sum(2) != own.sum(2)[:1]).any()


def test_vit_shapley_asks_for_as_many_coalitions_and_both_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    (coalitions,) = asked(monkeypatch, VitShapleyStep)
    assert coalitions.shape == (4, PARAMS.masks + 2, 9)


def test_every_step_has_coalitions_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = asked(monkeypatch, SalvageStep, steps=2)
    assert not torch.equal(first, second)
    assert torch.equal(asked(monkeypatch, SalvageStep)[0], first)
