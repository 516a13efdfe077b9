"""torchmetrics made from the registry: parts add up to the whole, undefined images are left out, broken refused."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score
from torch import Tensor
from torchmetrics.regression import KendallRankCorrCoef

from tests.metrics.test_removal import table_game
from tests.toolbox import refusal
from xai.core.errors import UserError
from xai.metrics import functional as F
from xai.metrics import torchmetric
from xai.metrics.streaming import measured

GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.randn(10, 3, 3, generator=GENERATOR)
REFERENCE = MAPS + torch.randn(10, 3, 3, generator=GENERATOR)
REGIONS = torch.rand(10, 6, 6, generator=GENERATOR) > 0.8
MAPS[2], MAPS[7] = 1.0, -1.0
REGIONS[8] = False
FLAT = (MAPS.flatten(1), REFERENCE.flatten(1))

CASES = {
    "e_rmse": ({"reference": REFERENCE}, lambda n: F.e_rmse(*(maps[:n] for maps in FLAT))),
    "kendall": ({"reference": REFERENCE}, lambda n: F.kendall(*(maps[:n] for maps in FLAT)).nanmean()),
    "iou@5": ({"reference": REFERENCE}, lambda n: F.iou_at_k(*(maps[:n] for maps in FLAT), 5).nanmean()),
    "centred_correlation": (
        {"reference": REFERENCE},
        lambda n: F.centred_correlation(*(maps[:n] for maps in FLAT)).nanmean(),
    ),
    "rma": ({"regions": REGIONS}, lambda n: F.relevance_mass_accuracy(MAPS[:n], REGIONS[:n]).nanmean()),
    "rra": ({"regions": REGIONS}, lambda n: F.relevance_rank_accuracy(MAPS[:n], REGIONS[:n]).nanmean()),
    "grid_pointing": ({"cells": REGIONS}, lambda n: F.relevance_mass_accuracy(MAPS[:n], REGIONS[:n]).nanmean()),
    "pointing_game": ({"regions": REGIONS}, lambda n: F.pointing_game(MAPS[:n], REGIONS[:n]).nanmean()),
}


def part_of(what: dict[str, Tensor], part: slice) -> dict[str, Tensor]:
    return {name: tensor[part] for name, tensor in what.items()}


@pytest.mark.parametrize("name", CASES)
def test_batches_devices_and_forward_give_the_value_of_the_whole(name):
    what, whole = CASES[name]
    expected = pytest.approx(whole(10).item(), rel=1e-12)
    batched, forward, ranks = torchmetric(name), torchmetric(name), [torchmetric(name), torchmetric(name)]
    for part in (slice(0, 3), slice(3, 4), slice(4, 10)):
        batched.update(MAPS[part], **part_of(what, part))
        forward(MAPS[part], **part_of(what, part))
    for rank, part in zip(ranks, (slice(0, 7), slice(7, 10)), strict=True):
        rank.update(MAPS[part], **part_of(what, part))
    ranks[0].merge_state(ranks[1])
    assert batched.compute().item() == expected
    assert forward.compute().item() == expected
    assert ranks[0].compute().item() == expected
    assert pickle.loads(pickle.dumps(batched)).compute().item() == expected
    batched.reset()
    batched.update(MAPS[:5], **part_of(what, slice(0, 5)))
    assert batched.compute().item() == pytest.approx(whole(5).item(), rel=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_states_gathered_from_two_processes_reduce_to_the_whole(name):
    what, whole = CASES[name]
    ranks = [torchmetric(name), torchmetric(name)]
    for rank, part in ((0, slice(0, 4)), (0, slice(4, 6)), (1, slice(6, 10))):
        ranks[rank].update(MAPS[part], **part_of(what, part))
    gathered = {state: [getattr(rank, state) for rank in ranks] for state in ranks[0]._defaults}

    def all_gather(state, group=None):
        for values in gathered.values():
            parts = [torch.cat(value) if isinstance(value, list) else value for value in values]
            if parts[0].dtype == state.dtype and torch.equal(parts[0], state):
                return parts
        raise AssertionError("a state that was not gathered")

    ranks[0].dist_sync_fn, ranks[0].distributed_available_fn = all_gather, lambda: True
    assert ranks[0].compute().item() == pytest.approx(whole(10).item(), rel=1e-12)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_defined_is_nan(name):
    metric = torchmetric(name)
    assert metric.compute().isnan().item()
    metric.update(MAPS[:0], **part_of(CASES[name][0], slice(0, 0)))
    assert metric.compute().isnan().item()
    assert metric.compute().dtype == torch.float64


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_maps_are_refused_by_their_rows_and_leave_no_trace(name, value):
    metric, (what, _) = torchmetric(name), CASES[name]
    metric.update(MAPS, **what)
    before = metric.compute()
    broken = MAPS.clone()
    broken[4, 0, 0] = value
    assert "the maps of rows 4 hold NaN or infinity" in refusal(metric.update, broken, **what)
    assert metric.compute().item() == before.item()


def test_broken_and_misfitting_references_are_refused():
    broken = REFERENCE.clone()
    broken[:2] = torch.nan
    for name in ("e_rmse", "centred_correlation"):
        with pytest.raises(UserError, match="the reference maps of rows 20, 21 hold NaN"):
            torchmetric(name).update(MAPS, reference=broken, rows=torch.arange(20, 30))
        assert "of one grid" in refusal(torchmetric(name).update, MAPS, reference=REFERENCE[:, :2])
        assert "of the same images" in refusal(torchmetric(name).update, MAPS, reference=REFERENCE[:2])
        assert "there are no reference maps" in refusal(torchmetric(name).update, MAPS)


def test_names_and_settings_are_those_of_the_registry():
    metric = torchmetric("iou@3", ks=[3])
    metric.update(MAPS, reference=REFERENCE)
    assert metric.compute().item() == pytest.approx(F.iou_at_k(*FLAT, 3).nanmean().item(), rel=1e-12)
    better = [torchmetric(name).higher_is_better for name in ("iou@1", "e_rmse", "sparseness")]
    assert better == [True, False, None]
    for call, message in (
        (lambda: torchmetric("srgg"), "did you mean srg"),
        (lambda: torchmetric("srg", mask=3), "removal.mask is not a known setting: did you mean masks"),
        (lambda: torchmetric("removal", masks=-1), "at least 0"),
        (lambda: torchmetric("agreement_with_reference", ks=[0]), "at least 1"),
        (lambda: torchmetric("rma").update(MAPS, region=REGIONS), "did you mean regions"),
        (lambda: torchmetric("srg").update(MAPS), "a game is asked for: give game="),
        (lambda: torchmetric("class_correlation").update(MAPS, second=MAPS), "give images="),
    ):
        assert message in refusal(call)


def test_kendall_is_torchmetrics_own_tau_b():
    defined = [i for i in range(10) if i not in (2, 7)]
    peer = KendallRankCorrCoef(variant="b", num_outputs=len(defined))
    peer.update(MAPS[defined].flatten(1).T, REFERENCE[defined].flatten(1).T)
    ours = torchmetric("kendall")
    ours.update(MAPS, reference=REFERENCE)
    assert ours.compute().item() == pytest.approx(peer.compute().mean().item(), abs=1e-6)


def test_one_metric_of_all_its_columns_shares_their_passes_and_keeps_the_mean_curves():
    sizes = (3, 1, 2)
    games = [table_game(images, 4, seed) for seed, images in enumerate(sizes)]
    maps = [torch.randn(images, 2, 2, generator=torch.Generator().manual_seed(images)) for images in sizes]
    curves = [
        F.removal_curves(game.value, phi.flatten(1), 3, torch.Generator().manual_seed(9))
        for game, phi in zip(games, maps, strict=True)
    ]
    batched, ranks = torchmetric("removal", masks=3), [torchmetric("removal", masks=3) for _ in range(2)]
    for number, (game, phi) in enumerate(zip(games, maps, strict=True)):
        game.asked.clear()
        for metric in (batched, ranks[number % 2]):
            metric.update(phi, game=game, generator=torch.Generator().manual_seed(9))
        assert len(game.asked) == 2
    ranks[0].merge_state(ranks[1])
    expected = {name: np.mean([v for c in curves for v in F.scores(c)[name]]) for name in F.scores(curves[0])}
    for metric in (batched, ranks[0]):
        assert {name: value.item() for name, value in metric.compute().items()} == pytest.approx(expected, rel=1e-12)
    for name, curve in batched.curves().items():
        each = [getattr(of_batch, name.removeprefix("curve_")) for of_batch in curves]
        torch.testing.assert_close(curve, torch.cat(each).mean(0))
    assert "the game has 4 patches" in refusal(batched.update, MAPS[:1], game=games[1])
    with pytest.raises(UserError, match="constant=random"):
        torchmetric("removal", constant="refuse").update(torch.ones(1, 2, 2), game=games[1])


def test_a_batch_gives_the_same_draws_each_time_and_the_next_batch_others():
    source = torch.Generator().manual_seed(3)
    first, second = (measured(maps=MAPS, generator=source) for _ in range(2))
    draws = [torch.rand(5, generator=batch.generator) for batch in (first, first, second)]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])


def test_quality_is_that_of_all_images_and_not_a_mean_over_batches():
    logits = torch.randn(10, 3, generator=GENERATOR)
    labels = torch.arange(10) % 3
    metric = torchmetric("f1")
    for part in (slice(0, 3), slice(3, 10)):
        metric.update(logits=logits[part], labels=labels[part])
    assert metric.compute().item() == pytest.approx(f1_score(labels, logits.argmax(1), average="macro"), abs=1e-6)
