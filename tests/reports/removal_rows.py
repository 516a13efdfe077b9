"""Made-up results of SALVAGE and its rivals: curves that fall at a rate of their own, so that who is ahead is known."""

import os
from pathlib import Path

import pytest
import torch

from xai.reports.measured import Evidence, Measured
from xai.results import Result, write_result

IMAGES, SIDE, CLASSES = 12, 3, 4
PATCHES = SIDE * SIDE
QUALITY = {
    "salvage": 0.40,
    "salvage_uniform": 0.33,
    "salvage_kernel": 0.30,
    "vit_shapley": 0.28,
    "rise": 0.22,
    "grad_cam": 0.10,
    "random": 0.0,
    "object_mask": 0.25,
}
"""Roles with maps, and how far their curves part from the middle."""
ACCURACY = {"classifier": 1.0, "surrogate": 0.95, "salvage": 0.94, "vit_shapley": 0.2}
"""Roles that classify, and the probability that they are right on an image."""


def measured(role, seed=0, data="cluttered", tensors=None, **changes):
    """A result with only what is asked for."""
    tensors = {"attributions": torch.zeros(IMAGES, SIDE, SIDE)} if tensors is None else tensors
    values = {
        "method": "removal",
        "role": role,
        "data": data,
        "source": None,
        "model": "vit_tiny",
        "seed": seed,
        "params": {"share": 1.0},
        "metrics": {},
        "n_images": len(next(iter(tensors.values()))),
        "seconds": 1.0,
        "peak_memory_bytes": 2**20,
        "split": "test",
        "lineage": {"versions": {"torch": "2"}, "commit": "abc"},
    }
    return Measured(Result(**(values | changes)), tensors)


def curves(quality, generator):
    """The four curves [N, M], the gap of LIF and MIF between them `quality` on average."""
    size = torch.linspace(-1, 1, PATCHES)
    middle = 0.5 + 0.4 * size + 0.02 * torch.randn(IMAGES, PATCHES, generator=generator)
    return {
        "lif": middle + quality / 2,
        "mif": middle - quality / 2,
        "r_lif": middle + quality / 4,
        "r_mif": middle - quality / 4,
    }


def row(role, seed=0, data="cluttered", share=1.0, quality=None):
    """A row as a study writes it."""
    generator = torch.Generator().manual_seed(1000 * seed + len(role))
    labels = torch.arange(IMAGES) % CLASSES
    right = torch.nn.functional.one_hot(labels, CLASSES).float()
    regions = torch.zeros(IMAGES, 6, 6, dtype=torch.uint8)
    regions[:, 2:4, 2:4] = 1
    tensors = {
        "attributions": torch.rand(IMAGES, SIDE, SIDE, generator=generator),
        "labels": labels,
        "targets": labels,
        "regions": regions,
        "classifier_logits": right,
    }
    metrics = {}
    if role in QUALITY:
        gap = QUALITY[role] if quality is None else quality
        tensors |= curves(gap + 0.01 * torch.randn((), generator=generator).item(), generator)
        metrics |= {name: tensors[name].mean().item() for name in ("lif", "mif", "r_lif", "r_mif")}
        metrics |= {"srg": metrics["lif"] - metrics["mif"], "r_srg": metrics["r_lif"] - metrics["r_mif"]}
        metrics |= {"rma": 0.3 + gap, "rra": 0.2 + gap, "pointing_game": 0.5 + gap, "grid_pointing": 0.25 + gap}
    if role in ACCURACY:
        wrong = torch.rand(IMAGES, generator=generator) > ACCURACY[role]
        tensors["logits"] = torch.where(wrong[:, None], right.roll(1, 1), right)
        accuracy = (~wrong).double().mean().item()
        metrics |= {"accuracy": accuracy, "agreement": accuracy, "precision": accuracy, "recall": accuracy}
        metrics |= {"f1": accuracy, "mcc": accuracy}
    return measured(role, seed, data, tensors, metrics=metrics, params={"share": share})


def likelihood(seed=0, data="cluttered"):
    """Figure 6: random masks that leave one half with their size, informed ones that do not."""
    generator = torch.Generator().manual_seed(seed)
    noise = 0.02 * torch.randn(2, IMAGES, PATCHES, generator=generator)
    size = torch.linspace(-1, 1, PATCHES)
    tensors = {"random": 0.5 + 0.45 * size + noise[0], "informed": 0.5 + 0.1 * size + noise[1]}
    return measured("mask_likelihood", seed, data, tensors | {"attributions": torch.zeros(IMAGES, SIDE, SIDE)})


def evidence(seeds=3, data=("cluttered",)):
    """Everything a sweep leaves behind."""
    roles = dict.fromkeys([*ACCURACY, *QUALITY])
    runs = [(seed, name) for name in data for seed in range(seeds)]
    length = [
        row(role, seed, name, share, share**0.3 * QUALITY[role])
        for seed, name in runs
        for role in ("salvage", "salvage_uniform")
        for share in (0.25, 0.5, 1.0)
    ]
    rows = [row(role, seed, name) for seed, name in runs for role in roles]
    return Evidence((*rows, *(likelihood(*run) for run in runs)), tuple(length))


def write(folder: Path, found: Evidence):
    """The folder of a run."""
    # None of it has to outlast a power cut, and waiting for the disk takes longer than the tests.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        for part, rows in (("results", found.rows), ("length", found.length)):
            for one in rows:
                name = one.result.role if part == "results" else f"{one.result.role}-{one.result.params['share']:g}"
                place = folder / part / ("figure6" if name == "mask_likelihood" else "") / name
                place.mkdir(parents=True)
                write_result(place, one.result, one.tensors)
