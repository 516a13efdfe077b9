"""From a study of Learn to Rank in the store to the folder of its run: results, networks to hold, and the pictures."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import unknown
from xai.core.store import Artifact
from xai.reports.measured import Measured
from xai.reports.ranking_pictures import ShortcutPictures
from xai.reports.ranking_roles import ROLES
from xai.reports.ranking_run import present
from xai.reports.removal_pictures import Pictures
from xai.reports.study_run import chosen_images
from xai.results import copy_result, read_result, read_tensors
from xai.stages.ranking_study import RankingStudy

_MARKED = 4
"""Marked images whose maps are shown."""


def run_ranking(study: RankingStudy, output: Path, pictures: int, command: str) -> None:
    """Measure every row, write the folder of the run, and show what came of it.

    Args:
        study: The rows.
        output: The folder.
        pictures: How many test images the report shows.
        command: What was typed.

    Raises:
        UserError: A row is none of the tables; said before anything is trained.
    """
    for role in study.rows:
        if role not in ROLES:
            raise UserError(unknown(f"rows: {role}", role, ROLES, "row of the tables"))
    measured = {role: study.measured(role) for role in study.rows}
    refined, steps, shortcut = study.over_refinement(), study.over_path_steps(), study.find_shortcut()
    for name in ("results", "refinement", "steps", "shortcut"):
        shutil.rmtree(output / name, ignore_errors=True)
    for role, artifact in measured.items():
        copy_result(artifact, output / "results" / role)
    for (start, number), artifact in refined.items():
        copy_result(artifact, output / "refinement" / f"{start}-{number}")
    for number, artifact in steps.items():
        copy_result(artifact, output / "steps" / str(number))
    if shortcut is not None:
        copy_result(shortcut, output / "shortcut")
    study.networks.stages.hand_over("classifier", output)
    study.networks.hand_over(output)
    trained = {"training of ranking": f"{study.networks.trained(study.networks.params).seconds:.0f} s"}
    runtime, marked = study.networks.stages.runtime, None if shortcut is None else _marked(shortcut)
    present(runtime, output, _pictures(study, measured, pictures), marked, command, trained)


def _pictures(study: RankingStudy, measured: Mapping[str, Artifact], count: int) -> Pictures | None:
    """Test images and what was measured of them; a third of them are ones the classifier is wrong about."""
    examination = study.examination
    if not count:
        return None
    right = examination.right
    chosen = chosen_images(right, count)
    maps = {role: _pair(read_tensors(artifact.path), right, chosen) for role, artifact in measured.items()}
    shown = (examination.images.pixels[chosen] * 255).round().to(torch.uint8)
    labels, predicted = examination.labels[chosen], examination.targets[chosen, 0]
    return Pictures(shown, labels, predicted, study.networks.classes, maps)


def _pair(tensors: Mapping[str, Tensor], right: Tensor, chosen: Tensor) -> Tensor:
    """Maps [n, 2, H, W] of the predicted and of the true class."""
    predicted, second = tensors["attributions"][chosen], tensors["attributions_second"][chosen]
    true = torch.where(right[chosen, None, None], predicted, second)
    return torch.stack([predicted, true], dim=1)


def _marked(artifact: Artifact) -> ShortcutPictures:
    measured = Measured(read_result(artifact.path), read_tensors(artifact.path))
    tensors = measured.tensors
    steps = range(tensors["path"].shape[1])
    mass = torch.stack([tensors[f"mass_t{step}"][:_MARKED] for step in steps], dim=1)
    return ShortcutPictures(
        tensors["images"][:_MARKED], tensors["marks"][:_MARKED].bool(), tensors["path"][:_MARKED], mass
    )
