"""A picture explained by a classifier that explains itself, or from outside by any explainer, refined by some steps."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isqrt
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from xai.api.loading import is_clip, load
from xai.api.model import Model
from xai.core.common import TrainerParams
from xai.core.composing import stem
from xai.core.errors import UserError, check_finite
from xai.core.progress import Stopwatch, console
from xai.data.class_names import class_number
from xai.data.images import read_image, to_tensor
from xai.explainers.block import Block, BlockExplainer, Explainer, explain
from xai.explainers.controls.position_prior import SameMap
from xai.explainers.learned.networks import Salvage, SelfExplaining
from xai.explainers.learned.refined import RefinedMaps
from xai.explainers.registry import Row
from xai.games import asked_at_once
from xai.metrics.functional.perturbation import area, enlarge_map, perturbation_curves
from xai.models import files
from xai.models.clip import SelfExplainingClip
from xai.models.dense import DenseExplainer
from xai.models.explainer import SalvageNetwork
from xai.models.families import Geometry, NetworkParams, published_classes
from xai.models.maskable import MaskableClassifier, Removal, reference_image
from xai.models.named import NamedParams, is_known, named_settings
from xai.models.weights import read_weights
from xai.ranking.objective import ObjectiveParams
from xai.ranking.refinement import Refinement, RefinementParams

PASSES_OF_CURVES = 40
"""What the areas of a map by one reference cost: 21 points of two curves that have their ends in common."""
_TOP = 5


@dataclass(frozen=True)
class PostHocParams:
    """How a picture is explained by a classifier that does not explain itself: by a row, whose map is then refined.

    `references` are those that maps are measured by; without any, nothing is measured. `outside`: so is one that could
    explain itself.
    """

    row: Row
    objective: ObjectiveParams
    refinement: RefinementParams
    seed: int
    references: tuple[str, ...]
    outside: bool = False


@dataclass(frozen=True)
class Opened:
    """A classifier of pictures, and what explains it.

    Args:
        seen: A picture as it takes it, [3, H, W].
        classes: Names of its classes.
        logits: Images [B, 3, H, W] to [B, C].
        explainer: What gives the first map.
        classifier: What a map from outside is measured and refined with; None where it explains itself.
        name: Of the explainer from outside.
        explains: Whether it has learned to explain; True where an explainer does it for it.
    """

    seen: Callable[[Image.Image], Tensor]
    classes: tuple[str, ...]
    logits: Callable[[Tensor], Tensor]
    explainer: Explainer | BlockExplainer
    classifier: MaskableClassifier | None = None
    name: str = ""
    explains: bool = True


@dataclass(frozen=True)
class Measured:
    """A map of one class, and what it is worth.

    Args:
        name: What made it.
        attributions: [h, w], a patch or a pixel each.
        deletion: Area under the deletion curve, mean over the references; lower is better. None where nobody measured.
        insertion: Area under the insertion curve; higher is better.
        seconds: What making it took; a refined map takes those of the first one besides.
    """

    name: str
    attributions: Tensor
    deletion: float | None
    insertion: float | None
    seconds: float


@dataclass(frozen=True)
class Explained:
    """What is said of a picture.

    Args:
        pixels: [3, H, W] in [0, 1], as the classifier saw it.
        attributions: [h, w] of the explained class, as the explainer that was asked for gives it.
        target: Name of the explained class.
        predicted: Name of the predicted class.
        probability: Of the explained class.
        top: The most probable classes, five at most, with their probabilities.
        measured: Maps that were made from outside, in the order they came in: of the explainer, and refined. Empty for
            a classifier that explains itself.
    """

    pixels: Tensor
    attributions: Tensor
    target: str
    predicted: str
    probability: float
    top: tuple[tuple[str, float], ...]
    measured: tuple[Measured, ...] = ()


def open_classifier(
    model: Geometry,
    checkpoint: Path | None,
    trainer: TrainerParams,
    how: PostHocParams,
    classes: str | Sequence[str] | None = None,
) -> Opened:
    """What explains pictures, read once for all of them.

    A self-explaining CLIP and a SALVAGE explainer are classifiers, so their own prediction is what they explain. Any
    other classifier is explained from outside, and so is the CLIP where that is asked for.

    Args:
        model: The model, where there is no file to say it.
        checkpoint: A file of ours, or weights of a model that is only named; None takes a network as it was published.
        trainer: Device and precision.
        how: How a classifier is explained that does not explain itself.
        classes: Names of the classes of a model that is only named, or a text file of them.

    Raises:
        UserError: A checkpoint that cannot be read or has no classifier, or an explainer that is none for it.
    """
    removal, device = how.row.params.classifier_removal, trainer.device
    if isinstance(model, NamedParams):
        loaded = load_named(model, checkpoint, classes, device)
        maskable = loaded.network(removal)
        return _from_outside(model, lambda picture: loaded.pixels(picture)[0], loaded.classes, maskable, how)
    if classes is not None:
        if checkpoint is not None and files.read_spec(checkpoint, model) is None:
            raise UserError(says_nothing(checkpoint, model))
        raise UserError(
            f"classes={classes}: {checkpoint or f'model={model.name}'} says itself what they are: leave it out"
        )
    if checkpoint is None:
        classes = published_classes()
        if not isinstance(model, NetworkParams) or not model.is_published_for(classes):
            raise UserError(
                f"model={model.name} needs a checkpoint: give checkpoint=FILE, or model=efficientnet_lite0, which "
                "comes trained"
            )
        published = model.maskable(model.published(model.outputs(len(classes))), removal)
        seen = partial(to_tensor, size=model.image_size, side=model.resized)
        return _from_outside(model, seen, classes, published.to(device), how)
    made = files.load(checkpoint, model, removal)
    spec, network = made.spec, made.network.to(device)
    shape, classes = spec.model, spec.classes
    seen = partial(to_tensor, size=shape.image_size, side=spec.side, fit=spec.fit, interpolation=spec.interpolation)
    if isinstance(network, SelfExplainingClip) and not how.outside:
        clip, explains = network, made.spec.explains
        return Opened(
            seen, classes, lambda images: clip.explain(images).logits, SelfExplaining(clip), explains=explains
        )
    if isinstance(network, SalvageNetwork):
        if how.outside:
            raise UserError(
                f"explainer={stem(how.row.name)}: {checkpoint} explains itself, and holds no classifier for another "
                "explainer: leave that out, or give the classifier.safetensors that it was trained for"
            )
        return Opened(seen, classes, network.classify, Salvage(network))
    if made.classifier is None:
        raise UserError(
            f"{checkpoint} is a {made.spec.kind}: give the classifier.safetensors of task=train method=classifier, the "
            "salvage.safetensors of task=train method=salvage or the ranking.safetensors of task=train method=ranking"
        )
    own = network if isinstance(network, DenseExplainer) and not how.outside else None
    return _from_outside(shape, seen, classes, made.classifier.to(device), how, own)


def load_named(
    model: NamedParams, checkpoint: Path | None, classes: str | Sequence[str] | None, device: torch.device
) -> Model:
    """A classifier of timm or torchvision, and a line that says so where nobody knows what its classes are called.

    Raises:
        UserError: The weights or the names are not there, or do not fit.
    """
    names = ("mean", "std", "fit", "interpolation")
    shape: dict[str, Any] = {name: getattr(model, name) for name in names}
    if not is_clip(model.architecture):  # which cannot be fed otherwise
        shape |= {"image_size": model.image_size, "grid": model.grid, "crop": model.crop}
    loaded = load(checkpoint, architecture=model.architecture, classes=classes, device=device, **shape)
    if loaded.classes == tuple(map(str, range(len(loaded.classes)))):
        console.print(f"the classes are numbered, 0 to {len(loaded.classes) - 1}: classes=names.txt says what they are")
    return loaded


def says_nothing(checkpoint: Path, model: Geometry) -> str:
    """The line for a file that others wrote, whose classes nobody names, and what to type instead of `model`.

    Raises:
        UserError: The file is missing or damaged.
    """
    tensors = read_weights(checkpoint, what="checkpoint").tensors  # which says what is missing or damaged
    name, asked = getattr(model, "architecture", None), "NAME (of timm, torchvision or open_clip)"
    if name is not None and not model.embedded and is_known(name):
        size, usual = _size_of(tensors, model.patch_size) or model.image_size, named_settings(name, {})["image_size"]
        asked = name if usual == size else f"{name} model.image_size={size}"
    return (
        f"{checkpoint} says nothing of itself, and model={model.name} not what the classes are called: leave model out "
        f"and give model.architecture={asked}, and classes=names.txt"
    )


def _size_of(tensors: Mapping[str, Tensor], patch: int) -> int | None:
    """The side of the images that a transformer's positions [1, N, D] are of, in pixels; None where they do not tell.

    Beside the patches, N may count a token of the class, and one of distillation.
    """
    positions = next((value for name, value in tensors.items() if name.rpartition(".")[2] == "pos_embed"), None)
    if positions is None or positions.ndim != 3:
        return None
    counts = range(positions.shape[1], max(0, positions.shape[1] - 3), -1)
    return next((isqrt(count) * patch for count in counts if isqrt(count) ** 2 == count), None)


def _from_outside(
    shape: Geometry,
    seen: Callable[[Image.Image], Tensor],
    classes: tuple[str, ...],
    classifier: MaskableClassifier,
    how: PostHocParams,
    own: DenseExplainer | None = None,
) -> Opened:
    """By a trained explainer of its own, where there is one, or the post-hoc one that is asked for."""
    how.objective.check_size(shape.image_size, shape.image_size)
    classifier = classifier.eval().requires_grad_(False)
    if own is not None:
        return Opened(seen, classes, classifier, own, classifier, "ranking")
    explainer = how.row.entry.build(classifier, how.row.params.for_split("test"))
    return Opened(seen, classes, classifier, explainer, classifier, how.row.name)


def explain_picture(
    opened: Opened, image: Path, target: str | None, trainer: TrainerParams, how: PostHocParams, watch: Stopwatch
) -> Explained:
    """Explain a picture for the predicted class, or for the class called `target`.

    Raises:
        UserError: For a picture that cannot be read, a class the classifier does not know, or an explainer that cannot
            explain it.
    """
    asked = None if target is None else class_number(target, opened.classes, f"target={target}")
    pixels = opened.seen(read_image(image))
    images = pixels[None].to(trainer.device)
    with torch.no_grad(), trainer.autocast():
        logits = opened.logits(images).float()
    check_finite(logits, f"the classifier's answers to {image}", "give a checkpoint with finite outputs")
    probabilities = logits[0].softmax(0)
    predicted = int(probabilities.argmax())
    chosen = predicted if asked is None else asked
    block = Block(
        images,
        torch.tensor([chosen], device=images.device),
        None,
        None,
        torch.zeros(1, dtype=torch.long),
        torch.Generator().manual_seed(how.seed),
    )
    watch.lap("reading and classifying")
    measured: tuple[Measured, ...] = ()
    if opened.classifier is not None:
        measured = tuple(_measured(opened, opened.classifier, block, trainer, how, watch))
    if measured:
        attributions = measured[0].attributions
    else:
        with trainer.autocast():
            attributions = _map(opened.explainer, block)[0].cpu()
        watch.lap("maps")
    names = opened.classes
    first = probabilities.topk(min(_TOP, len(names)))
    top = tuple((names[i], value) for i, value in zip(first.indices.tolist(), first.values.tolist(), strict=True))
    probability = float(probabilities[chosen])
    return Explained(pixels, attributions, names[chosen], names[predicted], probability, top, measured)


def _measured(
    opened: Opened,
    classifier: MaskableClassifier,
    block: Block,
    trainer: TrainerParams,
    how: PostHocParams,
    watch: Stopwatch,
) -> list[Measured]:
    """The explainer's map and, where there are steps to be taken, the refined one."""
    mean, steps = classifier.normalisation.mean.flatten(), how.refinement.steps  # type: ignore[union-attr, operator]
    started = time.perf_counter()
    with trainer.autocast():
        first = _map(opened.explainer, block)
    made = [(opened.name, first, time.perf_counter() - started)]
    watch.lap("maps")
    if steps:
        started = time.perf_counter()
        # A soft order reads how large the numbers are, and every explainer has a scale of its own. Only the class that
        # is explained counts: what a training takes the second class from, the label, is not known.
        refined = RefinedMaps(SameMap(first[0]), Refinement(classifier, mean, how.objective, how.refinement), scale=1.0)
        with trainer.autocast():
            path = _map(refined, block)
        made.append((f"{opened.name}, T = {steps}", path[:, -1], time.perf_counter() - started))
        watch.lap("refining")
    means = how.objective.mean_of(mean)
    found = [
        Measured(name, maps[0].cpu(), *_areas(classifier, block, maps, means, how), seconds)
        for name, maps, seconds in made
    ]
    watch.lap("areas")
    return found


def _map(explainer: Explainer | BlockExplainer, block: Block) -> Tensor:
    maps = explain(explainer, block).maps
    assert maps is not None
    check_finite(maps, "the maps of this picture", "give another checkpoint, or another explainer=...")
    return maps.detach().float()


def _areas(
    classifier: MaskableClassifier, block: Block, maps: Tensor, mean: Tensor, how: PostHocParams
) -> tuple[float | None, float | None]:
    """Areas under the deletion and the insertion curve of a map [1, h, w], means over the references."""
    images, found = block.images, []
    if not how.references:
        return None, None
    for name in how.references:
        reference = reference_image(images, Removal("pixels", name), mean)
        pixels = enlarge_map(maps, images.shape[-2:])
        generator = torch.Generator(images.device).manual_seed(how.seed)
        curves = perturbation_curves(
            classifier, images, pixels, block.targets[:, None], reference, generator, chunk=asked_at_once(images)
        )
        found.append(torch.stack([area(curve[0, :, 0]) for curve in curves]))
    deletion, insertion = torch.stack(found).mean(0).tolist()
    return deletion, insertion
