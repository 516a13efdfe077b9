"""`task=explain`: pictures, one class and one heat map each."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.markup import escape
from rich.table import Table
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.core.files import explain_disk_errors, write_atomically
from xai.core.job import Common
from xai.core.progress import console
from xai.core.settings import settings, unknown
from xai.core.training import TrainerParams
from xai.data.images import read_image, to_tensor
from xai.explainers.rows import load_row
from xai.models.checkpoint import read_classifier
from xai.models.cnn import CnnParams, build_cnn, maskable_cnn, published_classes, published_cnn
from xai.models.dense import DenseExplainer
from xai.models.explainer import SalvageNetwork
from xai.models.factory import ClipParams
from xai.models.features import FrozenFeatures
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.ranking_file import RankingInfo, part_of, ranking_info
from xai.models.segmenter import build_decoder
from xai.models.vit import VitParams, build_vit, maskable, outputs_of
from xai.models.vit_file import VitInfo, load_vit, read_vit, vit_info
from xai.models.weights import read_weights
from xai.papers.ranking.networks import blank_backbone
from xai.papers.vectors.base import ModelParams
from xai.ranking.objective import ObjectiveParams
from xai.ranking.refinement import RefinementParams
from xai.reports.figures import heatmap_overlay
from xai.tasks.picture import Explain, Measured, PostHocParams, explain_post_hoc
from xai.tasks.registry import Task

_MOST_CLASSES_NAMED = 20


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

    model: ModelParams | VitParams | CnnParams
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
    model: ClipParams | VitParams | CnnParams,
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
        model: The model.
        checkpoint: Its file; None takes a CNN as it was published.
        image: The picture.
        target: Name of a class.
        trainer: Device and precision.
        post_hoc: How a classifier is explained that does not explain itself.

    Raises:
        UserError: For a picture or checkpoint that cannot be read, a class the classifier does not know, or an
            explainer that cannot explain it.
    """
    pixels = _as_seen(read_image(image), model)
    if isinstance(model, ClipParams):
        return _by_itself(_of_clip(model, _needed(checkpoint, model.name)), pixels, target, trainer)
    removal = post_hoc.row.params.classifier_removal
    if isinstance(model, CnnParams) and checkpoint is None and not model.embedded:
        published = maskable_cnn(model, published_cnn(model), removal)
        return _from_outside(published, published_classes(), pixels, target, trainer, post_hoc)
    path = _needed(checkpoint, model.name)
    weights = read_weights(path, what="checkpoint", require_finite=True)
    info, ranking = vit_info(weights, path), ranking_info(weights, path)
    if ranking is not None:
        explainer, classifier = _of_ranking(model, path, weights.tensors, ranking)
        own = ("ranking", explainer.to(trainer.device).attribute)
        return _from_outside(classifier, ranking.classes, pixels, target, trainer, post_hoc, own)
    if isinstance(model, VitParams) and info is not None and info.kind == "salvage":
        return _by_itself(_of_salvage(model, path, weights.tensors, info), pixels, target, trainer)
    classifier, classes = _classifier(model, path, weights.tensors, info, removal)
    return _from_outside(classifier, classes, pixels, target, trainer, post_hoc)


class _Explaining(nn.Module):
    """Images to logits [B, C] and attributions [B, M, C]."""

    def __init__(self, network: nn.Module, explain: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.network, self._explain = network, explain

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self._explain(images)


_Read = tuple[_Explaining, tuple[str, ...], tuple[int, int], bool]
"""What explains, its classes, its patch grid, and whether it has learned to explain."""


def _as_seen(image: Image.Image, model: ClipParams | VitParams | CnnParams) -> Tensor:
    """The middle of a picture, [3, H, W], as the model takes it."""
    size, crop = model.image_size, model.crop if isinstance(model, CnnParams) else 1.0
    resized = to_tensor(image, round(size / crop))
    edge = (resized.shape[-1] - size) // 2
    return resized[:, edge : edge + size, edge : edge + size]


@torch.inference_mode()
def _by_itself(read: _Read, pixels: Tensor, target: str | None, trainer: TrainerParams) -> Explanation:
    network, classes, grid, explains = read
    asked = None if target is None else _index_of(target, classes)
    logits, attributions = network.to(trainer.device)(pixels[None].to(trainer.device))
    predicted = int(logits[0].argmax())
    chosen = predicted if asked is None else asked
    return Explanation(
        pixels,
        attributions[0, :, chosen].reshape(grid).float().cpu(),
        classes[chosen],
        classes[predicted],
        float(logits[0].softmax(0)[chosen]),
        explains,
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


def _needed(checkpoint: Path | None, model: str) -> Path:
    if checkpoint is None:
        raise UserError(
            f"model={model} needs a checkpoint: give checkpoint=FILE, or model=efficientnet_lite0, which comes trained"
        )
    return checkpoint


def _classifier(
    model: VitParams | CnnParams,
    path: Path,
    tensors: dict[str, Tensor],
    info: VitInfo | None,
    removal: Removal | None,
) -> tuple[MaskableClassifier, tuple[str, ...]]:
    """A classifier that does not explain itself, and its classes.

    Raises:
        UserError: The file is of another kind or model.
    """
    if info is None or info.kind not in ("classifier", "surrogate"):
        what = "says nothing of itself" if info is None else f"is a {info.kind}"
        also = ", the salvage.safetensors of method=salvage" if isinstance(model, VitParams) else ""
        raise UserError(
            f"{path} {what}: give the classifier.safetensors of task=train{also} or the ranking.safetensors of "
            "method=ranking"
        )
    if info.model != model.name:
        raise UserError(f"{path} is a {info.kind} of model={info.model}, not of {model.name}: add model={info.model}")
    made = _blank(model, outputs_of(len(info.classes), info.binary), removal)
    load_vit(made.network, tensors, f"checkpoint {path}", model.name)
    return made, info.classes


def _blank(model: VitParams | CnnParams, outputs: int, removal: Removal | None) -> Any:
    """A classifier with random weights, which those of a file replace."""
    if isinstance(model, CnnParams):
        return maskable_cnn(model, build_cnn(model, outputs, 0), removal)
    return maskable(model, build_vit(model, outputs, 0), removal)


def _of_ranking(
    model: VitParams | CnnParams, checkpoint: Path, tensors: dict[str, Tensor], info: RankingInfo
) -> tuple[DenseExplainer, MaskableClassifier]:
    """An explainer of Learn to Rank, and the classifier it was trained on.

    Raises:
        UserError: The file is of another model.
    """
    if info.model != model.name:
        raise UserError(f"{checkpoint} explains a model={info.model}, not {model.name}: add model={info.model}")
    what, classes = f"checkpoint {checkpoint}", len(info.classes)
    classifier = _blank(model, outputs_of(classes, info.binary), None)
    load_vit(classifier.network, part_of(tensors, "classifier"), what, model.name)
    backbone: nn.Module = classifier.network
    if info.backbone:
        backbone = blank_backbone(info.backbone, model.image_size)
        load_vit(backbone, part_of(tensors, "backbone"), what, info.backbone)
    features = FrozenFeatures(backbone, info.levels, info.mean, info.std, model.image_size)
    explainer = DenseExplainer(features, info.decoder, classes, classifier, model.mean)
    load_vit(explainer.decoder, part_of(tensors, "decoder"), what, model.name)
    return explainer.eval().requires_grad_(False), classifier


def _of_clip(model: ClipParams, checkpoint: Path) -> _Read:
    _, other = read_vit(checkpoint)
    if other is not None:
        raise UserError(
            f"{checkpoint} is a {other.kind} of model={other.model}, not of {model.name}: add model={other.model}"
        )
    network, info = read_classifier(checkpoint, model)

    def explain(images: Tensor) -> tuple[Tensor, Tensor]:
        found = network.explain(images)
        return found.logits, found.attributions

    return _Explaining(network, explain), info.classes, network.grid, info.explains


def _of_salvage(model: VitParams, checkpoint: Path, tensors: dict[str, Tensor], info: VitInfo) -> _Read:
    outputs = outputs_of(len(info.classes), info.binary)
    backbone = build_vit(model, outputs, 0)
    decoder = build_decoder(info.decoder, backbone.embed_dim, 2 * outputs, info.decoder_depth, info.decoder_heads)
    network = SalvageNetwork(backbone, decoder, model.mean, model.std)
    load_vit(network, tensors, f"checkpoint {checkpoint}", model.name)

    def explain(images: Tensor) -> tuple[Tensor, Tensor]:
        parts = network.parts(images)
        return parts.present.sum(1), parts.present - parts.absent

    return _Explaining(network.eval(), explain), info.classes, network.grid, True


def present(found: Explanation, image: Path) -> Path:
    """Write the heat map and say what it is of; returns where it lies.

    Raises:
        UserError: The folder of the picture cannot be written to.
    """
    title = found.measured[-1].name if found.measured else ""
    picture = heatmap_overlay((found.pixels * 255).round().to(torch.uint8), found.attributions, title)
    file = image.with_name(f"{image.stem}.explained.png")
    with explain_disk_errors(
        file.parent, "the heat map is written beside the picture: copy that to a folder you can write to"
    ):
        write_atomically(file, lambda temporary: picture.save(temporary, format="PNG"))
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
