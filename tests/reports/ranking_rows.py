"""Made-up results of Learn to Rank: curves that part at a rate of their own, so that who is ahead is known."""

import os
from pathlib import Path

import pytest
import torch

from tests.reports.removal_rows import measured
from xai.metrics.functional.perturbation import area
from xai.reports.measured import Evidence
from xai.reports.ranking_roles import REFERENCES
from xai.results import write_result

IMAGES, SIDE, POINTS = 8, 6, 21
QUALITY = {
    "ranking": 0.50,
    "ranking_t1": 0.56,
    "ranking_t3": 0.62,
    "ranking_t5": 0.66,
    "decoder_t1": 0.52,
    "decoder_t3": 0.54,
    "decoder_t5": 0.55,
    "ranking_published": 0.40,
    "salvage": 0.44,
    "rise": 0.36,
    "attention_rollout": 0.30,
    "integrated_gradients": 0.25,
    "saliency_pixels": 0.20,
    "flat_t3": 0.42,
    "rollout_t3": 0.46,
    "random": 0.0,
    "object_mask": 0.34,
}
"""Roles, and how far their insertion and deletion lie apart."""
CORRELATION = {"ranking": 0.6, "ranking_t3": 0.5, "ranking_published": 0.95, "random": 0.0}


def row(role, seed=0, data="cluttered", quality=None, **params):
    """A row as the perturbation stage writes it."""
    generator = torch.Generator().manual_seed(1000 * seed + len(role))
    gap = (QUALITY[role] if quality is None else quality) + 0.01 * torch.rand((), generator=generator).item()
    share = torch.linspace(0, 1, POINTS)
    tensors = {"attributions": torch.rand(IMAGES, SIDE, SIDE, generator=generator), "labels": torch.arange(IMAGES) % 4}
    tensors["attributions_second"] = tensors["attributions"].flip(1)
    for target, wrong in (("", 0.0), ("_true", 0.1)):
        for kind, sign in (("deletion", -1), ("insertion", 1)):
            for number, name in enumerate(REFERENCES):
                noise = 0.01 * torch.rand(IMAGES, 1, generator=generator)
                middle = share if kind == "insertion" else 1 - share
                bent = sign * gap * 2 * share * (1 - share) * (1.2 - 0.1 * number)
                tensors[f"curve_{kind}{target}_{name}"] = (0.8 - wrong) * middle + bent + noise
                tensors[f"{kind}_auc{target}_{name}"] = area(tensors[f"curve_{kind}{target}_{name}"])
            alone = [tensors[f"{kind}_auc{target}_{name}"] for name in REFERENCES]
            tensors[f"{kind}_auc{target}"] = torch.stack(alone).mean(0)
        tensors[f"difference_auc{target}"] = tensors[f"insertion_auc{target}"] - tensors[f"deletion_auc{target}"]
    tensors["class_correlation"] = CORRELATION.get(role, 0.7) + 0.01 * torch.rand(IMAGES, generator=generator)
    tensors["pointing_game"] = (torch.rand(IMAGES, generator=generator) < 0.5 + gap / 2).double()
    tensors["rra"] = 0.2 + gap * torch.rand(IMAGES, generator=generator)
    metrics = {name: values.double().mean().item() for name, values in tensors.items() if values.ndim == 1}
    del metrics["labels"]
    params = {"seconds_per_image": 0.002 * (1 + seed)} | params
    return measured(role, seed, data, tensors, method="perturbation", params=params, metrics=metrics)


def shortcut(seed=0, data="cluttered"):
    """Figure 5: the mass on the mark grows with T, less so from a flat map, and not for the classifier before."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {"attributions": torch.zeros(IMAGES, SIDE, SIDE), "mark_area": torch.full((IMAGES,), 0.04)}
    for steps in range(6):
        noise = 0.01 * torch.rand(2, IMAGES, generator=generator)
        tensors[f"mass_t{steps}"] = 0.05 + 0.05 * steps + noise[0]
        tensors[f"flat_mass_t{steps}"] = 0.04 + 0.03 * steps + noise[1]
        tensors[f"clean_mass_t{steps}"] = 0.05 - 0.005 * steps + noise.mean(0)
    metrics = {name: values.mean().item() for name, values in tensors.items() if values.ndim == 1}
    return measured("shortcut", seed, data, tensors, method="perturbation", metrics=metrics)


def evidence(seeds=3, data=("cluttered",)):
    """Everything a sweep leaves behind."""
    runs = [(seed, name) for name in data for seed in range(seeds)]
    rows = [row(role, *run) for run in runs for role in QUALITY]
    steps = [row("ranking", *run, quality=0.45 + 0.01 * s, path_steps=float(s)) for run in runs for s in (4, 8, 16)]
    refinement = [row(f"ranking_t{t}", *run, quality=0.50 + 0.04 * t, refined=float(t)) for run in runs for t in (2, 4)]
    return Evidence(
        tuple(rows),
        steps=tuple(steps),
        refinement=tuple(refinement),
        shortcut=tuple(shortcut(*run) for run in runs),
    )


def write(folder: Path, found: Evidence):
    """The folder of a run."""
    places = [(f"results/{one.result.role}", one) for one in found.rows]
    places += [(f"steps/{one.result.params['path_steps']:g}", one) for one in found.steps]
    places += [(f"refinement/{one.result.role.replace('_t', '-')}", one) for one in found.refinement]
    places += [("shortcut", one) for one in found.shortcut]
    # None of it has to outlast a power cut, and waiting for the disk takes longer than the tests.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        for place, one in places:
            (folder / place).mkdir(parents=True)
            write_result(folder / place, one.result, one.tensors)
