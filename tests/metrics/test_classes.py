"""The torchmetrics classes: parts add up to the whole, undefined images are left out, broken ones refused."""

import numpy as np
import pytest
import torch
from torchmetrics.regression import KendallRankCorrCoef

from xai.core.errors import UserError
from xai.metrics import functional as F
from xai.metrics.classes import (
    CentredCorrelation,
    ExplanationRMSE,
    GridPointingGame,
    IoUAtK,
    KendallTau,
    PointingGame,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
)

GENERATOR = torch.Generator().manual_seed(0)
MAPS = torch.randn(10, 3, 3, generator=GENERATOR)
REFERENCE = MAPS + torch.randn(10, 3, 3, generator=GENERATOR)
REGIONS = torch.rand(10, 6, 6, generator=GENERATOR) > 0.8
MAPS[2], MAPS[7] = 1.0, -1.0
REGIONS[8] = False

CASES = [
    (ExplanationRMSE, REFERENCE, lambda a, b: F.e_rmse(a.flatten(1), b.flatten(1)).item()),
    (KendallTau, REFERENCE, lambda a, b: np.nanmean(F.kendall(a.flatten(1), b.flatten(1)))),
    (lambda: IoUAtK(3), REFERENCE, lambda a, b: F.iou_at_k(a.flatten(1), b.flatten(1), 3).nanmean().item()),
    (CentredCorrelation, REFERENCE, lambda a, b: np.nanmean(F.centred_correlation(a.flatten(1), b.flatten(1)))),
    (RelevanceMassAccuracy, REGIONS, lambda a, b: np.nanmean(F.relevance_mass_accuracy(a, b))),
    (RelevanceRankAccuracy, REGIONS, lambda a, b: np.nanmean(F.relevance_rank_accuracy(a, b))),
    (GridPointingGame, REGIONS, lambda a, b: np.nanmean(F.grid_pointing_game(a, b))),
    (PointingGame, REGIONS, lambda a, b: np.nanmean(F.pointing_game(a, b))),
]
IDS = ["e_rmse", "kendall", "iou", "centred", "rma", "rra", "grid", "pointing"]


@pytest.mark.parametrize(("make", "other", "whole"), CASES, ids=IDS)
def test_batches_devices_and_forward_give_the_value_of_the_whole(make, other, whole):
    expected = pytest.approx(whole(MAPS, other), rel=1e-12)
    batched, forward, ranks = make(), make(), [make(), make()]
    for part in (slice(0, 3), slice(3, 4), slice(4, 10)):
        batched.update(MAPS[part], other[part])
        forward(MAPS[part], other[part])
    for rank, part in zip(ranks, (slice(0, 7), slice(7, 10)), strict=True):
        rank.update(MAPS[part], other[part])
    ranks[0].merge_state(ranks[1])
    assert batched.compute().item() == expected
    assert forward.compute().item() == expected
    assert ranks[0].compute().item() == expected
    batched.reset()
    batched.update(MAPS[:5], other[:5])
    assert batched.compute().item() == pytest.approx(whole(MAPS[:5], other[:5]), rel=1e-12)


@pytest.mark.parametrize(("make", "other", "whole"), CASES, ids=IDS)
def test_states_gathered_from_two_processes_reduce_to_the_whole(make, other, whole):
    ranks = [make(), make()]
    ranks[0].update(MAPS[:4], other[:4])
    ranks[0].update(MAPS[4:6], other[4:6])
    ranks[1].update(MAPS[6:], other[6:])
    gathered = {name: [getattr(rank, name) for rank in ranks] for name in ranks[0]._defaults}

    def all_gather(state, group=None):
        for values in gathered.values():
            parts = [torch.cat(value) if isinstance(value, list) else value for value in values]
            if parts[0].dtype == state.dtype and torch.equal(parts[0], state):
                return parts
        raise AssertionError("a state that was not gathered")

    ranks[0].dist_sync_fn, ranks[0].distributed_available_fn = all_gather, lambda: True
    assert ranks[0].compute().item() == pytest.approx(whole(MAPS, other), rel=1e-12)


@pytest.mark.parametrize(("make", "other", "whole"), CASES, ids=IDS)
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_nothing_defined_is_nan(make, other, whole):
    metric = make()
    assert metric.compute().isnan().item()
    metric.update(MAPS[:0], other[:0])
    assert metric.compute().isnan().item()
    assert metric.compute().dtype == torch.float64


@pytest.mark.parametrize(("make", "other", "whole"), CASES, ids=IDS)
@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_broken_maps_are_refused_and_leave_no_trace(make, other, whole, value):
    metric = make()
    metric.update(MAPS, other)
    before = metric.compute()
    broken = MAPS.clone()
    broken[4, 0, 0] = value
    with pytest.raises(UserError, match="1 of 10 images"):
        metric.update(broken, other)
    assert metric.compute().item() == before.item()


def test_broken_reference_is_refused():
    broken = REFERENCE.clone()
    broken[:2] = torch.nan
    for metric in (ExplanationRMSE(), KendallTau(), IoUAtK(1), CentredCorrelation()):
        with pytest.raises(UserError, match="reference maps of 2 of 10"):
            metric.update(MAPS, broken)


def test_mismatched_maps_are_refused_on_update():
    for metric in (ExplanationRMSE(), CentredCorrelation()):
        with pytest.raises(UserError, match=r"\[N, M\]"):
            metric.update(MAPS, REFERENCE[:, :2])


def test_iou_refuses_k():
    with pytest.raises(UserError, match="at least 1"):
        IoUAtK(0)
    with pytest.raises(UserError, match="from 1 to 9"):
        IoUAtK(10).update(MAPS, REFERENCE)


def test_flat_maps_are_maps():
    flat, grid = KendallTau(), KendallTau()
    flat.update(MAPS.flatten(1), REFERENCE.flatten(1))
    grid.update(MAPS, REFERENCE)
    assert flat.compute() == grid.compute()


def test_kendall_is_torchmetrics_own_tau_b():
    defined = [i for i in range(10) if i not in (2, 7)]
    peer = KendallRankCorrCoef(variant="b", num_outputs=len(defined))
    peer.update(MAPS[defined].flatten(1).T, REFERENCE[defined].flatten(1).T)
    ours = KendallTau()
    ours.update(MAPS, REFERENCE)
    assert ours.compute().item() == pytest.approx(peer.compute().mean().item(), abs=1e-6)
