"""From a study in the store to the folder of its run: results, networks to hold, and the pictures of the report."""

import shutil
from pathlib import Path

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import unknown
from xai.data.registry import Images
from xai.reports.removal_pictures import Pictures
from xai.reports.removal_roles import ROLES
from xai.reports.removal_run import present
from xai.results import copy_result
from xai.stages.study import CLASSIFIERS, Study


def run_study(study: Study, output: Path, pictures: int, command: str) -> None:
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
    lengths = study.over_length()
    likelihood = study.mask_likelihood if study.likelihood else None
    for name in ("results", "length"):
        shutil.rmtree(output / name, ignore_errors=True)
    for role, artifact in measured.items():
        copy_result(artifact, output / "results" / role)
    for (role, share), artifact in lengths.items():
        copy_result(artifact, output / "length" / f"{role}-{share:g}")
    if likelihood is not None:
        copy_result(likelihood, output / "results" / "figure6")
    _networks(study, output)
    trained = {f"training of {role}": f"{seconds:.0f} s" for role, seconds in study.training_seconds().items()}
    present(study.stages.runtime, output, _pictures(study, pictures), command, trained)


def _networks(study: Study, output: Path) -> None:
    """Copy what a user can hold out of the store: the classifier, the surrogate, the explainers."""
    for kind in CLASSIFIERS:
        study.stages.hand_over(kind, output)
    if "salvage" in study.rows:
        study.stages.hand_over("salvage", output, study.salvage)
    if "vit_shapley" in study.rows:
        study.stages.hand_over("vit_shapley", output, study.vit_shapley)


def _pictures(study: Study, count: int) -> Pictures | None:
    """Test images; a third of them are ones the classifier is wrong about, whose two maps differ."""
    examination = study.examination
    roles = [role for role in study.rows if role not in CLASSIFIERS]
    if not count or not roles:
        return None
    labels, predicted = examination.labels, examination.classifier_logits.argmax(1)
    chosen = chosen_images(predicted == labels, count)
    pixels, regions = examination.images
    images = Images(pixels[chosen], None if regions is None else regions[chosen])
    maps: dict[str, Tensor] = {}
    for role in roles:
        explain = study.row(role).explain
        assert explain is not None
        both = [examination.maps(explain, images, targets[chosen]) for targets in (predicted, labels)]
        maps[role] = torch.stack(both, dim=1)
    shown = (images.pixels * 255).round().to(torch.uint8)
    return Pictures(shown, labels[chosen], predicted[chosen], study.stages.data.source.classes, maps)


def chosen_images(right: Tensor, count: int) -> Tensor:
    """Numbers of images, spread over the split, for it may be sorted by class: a third wrong where there are so many.

    Args:
        right: Bool [N], whether the classifier is right about an image.
        count: How many are wanted.
    """
    hits, misses = right.nonzero()[:, 0], (~right).nonzero()[:, 0]
    wrong = min(len(misses), max(count // 3, count - len(hits)))
    return torch.cat([_spread(misses, wrong), _spread(hits, count - wrong)])


def _spread(numbers: Tensor, count: int) -> Tensor:
    """`count` of some numbers at even distances, all of them where there are fewer."""
    places = torch.linspace(0, max(len(numbers) - 1, 0), min(count, len(numbers)))
    return numbers[places.round().long()]
