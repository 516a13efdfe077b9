"""`task=explain`: pictures, one class and one heat map each."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from xai.core.errors import UserError
from xai.core.files import explain_disk_errors, write_atomically
from xai.core.job import Common
from xai.core.progress import console
from xai.core.settings import settings, unknown
from xai.core.training import TrainerParams
from xai.data.images import read_image, to_tensor
from xai.explainers.rows import load_row
from xai.models import files
from xai.models.clip import SelfExplainingClip
from xai.models.dense import DenseExplainer
from xai.models.explainer import SalvageNetwork
from xai.models.families import NetworkParams, published_classes
from xai.models.geometry import Geometry
from xai.models.maskable import MaskableClassifier
from xai.models.spec import Spec
from xai.papers.families import AnyModel
from xai.ranking.objective import ObjectiveParams
from xai.ranking.refinement import RefinementParams
from xai.report.figures import to_bytes
from xai.report.pictures import Gallery, sheets
from xai.tasks.picture import Explain, Measured, PostHocParams, explain_post_hoc
from xai.tasks.registry import Task

_MOST_CLASSES_NAMED = 20
_INCHES = 4.4


@settings
class ExplainSettings(Common):
    """Settings of task=explain.

    Args:
        model: The classifier.
        checkpoint: Its file; null takes one as it was published.
        image: A picture, or several.
        target: Name of the class that is explained; null takes the predicted one.
        row: The explainer of a classifier that does not explain itself: a file of conf/explainer.
        explainers: By row, settings that replace those of its file.
        refinement: How its map is refined.
        objective: What that improves, and by which references maps are measured.
    """

    model: AnyModel
    checkpoint: str | None
    image: str | tuple[str, ...]
    target: str | int | float | bool | None
    row: str
    explainers: dict[str, Any]
    refinement: RefinementParams
    objective: ObjectiveParams


def task(values: Mapping[str, Any]) -> Task:
    """There is one way to explain pictures."""
    return Task("task=explain", ExplainSettings, run)


def run(asked: ExplainSettings, output: Path) -> None:
    """Explain each picture, and write its heat map beside it."""
    row = load_row(asked.row, asked.explainers)
    post_hoc = PostHocParams(row, asked.objective, asked.refinement, asked.seed)
    checkpoint = None if asked.checkpoint is None else Path(asked.checkpoint)
    target = None if asked.target is None else str(asked.target)
    images = [Path(image) for image in ([asked.image] if isinstance(asked.image, str) else asked.image)]
    for image in images:
        present(explain_image(asked.model, checkpoint, image, target, asked.trainer, post_hoc), image)


@dataclass(frozen=True)
class Explanation:
    """What the classifier says of a picture.

    Args:
        pixels: [3, H, W] in [0, 1], as the classifier saw it.
        attributions: [h, w] of the explained class; of several maps the last.
        target: Name of the explained class.
        predicted: Name of the predicted class.
        probability: Of the explained class.
        explains: Whether the classifier has learned to explain; True where an explainer does it for it.
        measured: Maps that were made from outside, in the order they came in: of the explainer, and refined. Empty for
            a classifier that explains itself.
    """

    pixels: Tensor
    attributions: Tensor
    target: str
    predicted: str
    probability: float
    explains: bool
    measured: tuple[Measured, ...] = ()


def explain_image(
    model: Geometry,
    checkpoint: Path | None,
    image: Path,
    target: str | None,
    trainer: TrainerParams,
    post_hoc: PostHocParams,
) -> Explanation:
    """Explain a picture for the predicted class, or for the class called `target`.

    A self-explaining CLIP and a SALVAGE explainer are classifiers, so their own prediction is what they explain. Any
    other classifier is explained from outside.

    Args:
        model: The model, where there is no file to say it.
        checkpoint: A file of ours; None takes a network as it was published.
        image: The picture.
        target: Name of a class.
        trainer: Device and precision.
        post_hoc: How a classifier is explained that does not explain itself.

    Raises:
        UserError: For a picture or checkpoint that cannot be read, a class the classifier does not know, or an
            explainer that cannot explain it.
    """
    picture, removal = read_image(image), post_hoc.row.params.classifier_removal
    if checkpoint is None:
        classes = published_classes()
        if not isinstance(model, NetworkParams) or not model.is_published_for(classes):
            raise UserError(
                f"model={model.name} needs a checkpoint: give checkpoint=FILE, or model=efficientnet_lite0, which "
                "comes trained"
            )
        published = model.maskable(model.published(model.outputs(len(classes))), removal)
        return _from_outside(published, classes, _as_seen(picture, model), target, trainer, post_hoc)
    made = files.load(checkpoint, model, removal)
    pixels, classes, network = _as_seen(picture, made.spec.model), made.spec.classes, made.network
    if isinstance(network, SelfExplainingClip | SalvageNetwork):
        return _by_itself(network, made.spec, pixels, target, trainer)
    if made.classifier is None:
        raise UserError(
            f"{checkpoint} is a {made.spec.kind}: give the classifier.safetensors of task=train method=classifier, the "
            "salvage.safetensors of task=train method=salvage or the ranking.safetensors of task=train method=ranking"
        )
    own = ("ranking", network.to(trainer.device).attribute) if isinstance(network, DenseExplainer) else None
    return _from_outside(made.classifier, classes, pixels, target, trainer, post_hoc, own)


def _as_seen(image: Image.Image, shape: Geometry) -> Tensor:
    """The middle of a picture, [3, H, W], as a network takes it."""
    size = shape.image_size
    resized = to_tensor(image, shape.resized)
    edge = (resized.shape[-1] - size) // 2
    return resized[:, edge : edge + size, edge : edge + size]


@torch.inference_mode()
def _by_itself(
    network: SelfExplainingClip | SalvageNetwork,
    spec: Spec,
    pixels: Tensor,
    target: str | None,
    trainer: TrainerParams,
) -> Explanation:
    asked = None if target is None else _index_of(target, spec.classes)
    images = pixels[None].to(trainer.device)
    if isinstance(network, SalvageNetwork):
        parts = network.to(trainer.device).parts(images)
        logits, attributions = parts.present.sum(1), parts.present - parts.absent
    else:
        logits, attributions = network.to(trainer.device).explain(images)
    predicted = int(logits[0].argmax())
    chosen = predicted if asked is None else asked
    return Explanation(
        pixels,
        attributions[0, :, chosen].reshape(network.grid).float().cpu(),
        spec.classes[chosen],
        spec.classes[predicted],
        float(logits[0].softmax(0)[chosen]),
        spec.explains,
    )


def _from_outside(
    classifier: MaskableClassifier,
    classes: tuple[str, ...],
    pixels: Tensor,
    target: str | None,
    trainer: TrainerParams,
    post_hoc: PostHocParams,
    own: tuple[str, Explain] | None = None,
) -> Explanation:
    asked = None if target is None else _index_of(target, classes)
    classifier = classifier.to(trainer.device).eval().requires_grad_(False)
    images = pixels[None].to(trainer.device)
    with torch.no_grad(), trainer.autocast():
        probabilities = classifier(images)[0].float().softmax(0)
    predicted = int(probabilities.argmax())
    chosen = predicted if asked is None else asked
    measured = explain_post_hoc(classifier, images, chosen, post_hoc, trainer, own)
    return Explanation(
        pixels,
        measured[-1].attributions,
        classes[chosen],
        classes[predicted],
        float(probabilities[chosen]),
        explains=True,
        measured=tuple(measured),
    )


def _index_of(target: str, classes: Sequence[str]) -> int:
    """The number of a class; one that is unknown is refused without naming a thousand others."""
    if target in classes:
        return classes.index(target)
    if len(classes) <= _MOST_CLASSES_NAMED:
        raise UserError(unknown(f"target={target}", target, classes, "class"))
    near = difflib.get_close_matches(target, classes, 3) + [name for name in classes if target in name.split()]
    hint = f"did you mean {' or '.join(dict.fromkeys(near[:3]))}?" if near else f"one of them is {classes[0]}"
    raise UserError(f"target={target} is none of the {len(classes)} classes of this classifier: {hint}")


def present(found: Explanation, image: Path) -> Path:
    """Write the heat map and say what it is of; returns where it lies.

    Raises:
        UserError: The folder of the picture cannot be written to.
    """
    maps = {each.name: each.attributions[None] for each in found.measured} or {"its own": found.attributions[None]}
    shown = Gallery(found.pixels[None], maps, [found.target], predicted=[found.predicted])
    picture = to_bytes(sheets(shown, inches=_INCHES)[0])
    file = image.with_name(f"{image.stem}.explained.png")
    with explain_disk_errors(
        file.parent, "the heat map is written beside the picture: copy that to a folder you can write to"
    ):
        write_atomically(file, picture)
    said = f"predicted: {found.predicted}; explained: {found.target} (probability {found.probability:.3f})"
    console.print(escape(said), highlight=False)
    if not found.explains:
        console.print("this classifier has not learned to explain itself: give it a vector first (task=apply_vector)")
    if found.measured:
        console.print(_table(found.measured))
    console.print(f"heat map: [bold]{escape(str(file))}[/]", highlight=False)
    return file


def _table(measured: Sequence[Measured]) -> Table:
    """Areas under the curves of the class's probability, a row a map."""
    table = Table("map", "deletion ↓", "insertion ↑", "seconds", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    for row in measured:
        table.add_row(escape(row.name), f"{row.deletion:.3f}", f"{row.insertion:.3f}", f"{row.seconds:.1f}")
    return table
