"""A classifier from a file: one of ours, which says everything itself, or weights of an architecture that is named.

What a CLIP of open_clip tells apart is what its text tower says of the names of the classes.
"""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import Tensor, nn

from xai.api.model import Model, check_resizing, class_names, open_device, square_side, wrap
from xai.core.errors import UserError
from xai.core.settings import build
from xai.data.class_names import read_class_names
from xai.data.images import crop_of
from xai.data.prompts import DEFAULT_PROMPTS
from xai.models import files
from xai.models.clip import class_embeddings
from xai.models.cnn import PACKAGES, package_weights, published_classes
from xai.models.factory import (
    ClipParams,
    base_weights_file,
    build_explainer,
    build_tokenizer,
    load_base,
    read_base_weights,
)
from xai.models.families import seeded
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.named import INCEPTIONS, is_known, is_torchvisions, of_weights, torchvisions, unknown_architecture
from xai.models.weights import load_weights, read_weights, without_prefix

_OF_TRAINING = re.compile(r"(^|\.)(aux[12]|AuxLogits)\.")
"""What the names of heads begin with that only the training of `INCEPTIONS` asks."""
_EARLIER = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
"""What the files of torchvision's DenseNets and ViTs call tensors, and what it calls them by now."""
_OF_CLIPS = ("mean", "std", "fit", "interpolation", "pretrained", "quick_gelu", "templates", "removal", "name")


def load(
    path: str | Path | None = None,
    *,
    architecture: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    device: str | torch.device = "cpu",
    **settings: Any,
) -> Model:
    """A classifier that can be explained, from a file.

    Args:
        path: A checkpoint of this framework, which needs no other argument; or weights (safetensors, or a torch file of
            tensors, whatever was wrapped around them) of `architecture`. None takes the published weights of
            `architecture`, from an installed package where one ships them.
        architecture: A name of timm or torchvision, such as `resnet18`; or of open_clip, such as `ViT-B-32`, which
            tells the `classes` apart that it is given, see `xai.api.loading.load_clip`.
        classes: Names of the classes, or a file of them: text with one a line, or JSON, see
            `xai.data.class_names.read_class_names`; None numbers them.
        device: Where it computes.
        settings: Those of `xai.wrap`, where timm's own for the architecture are not right: `mean`, `std`,
            `image_size`, `crop`, `grid`, `removal`, ...

    Raises:
        UserError: There is no such file or architecture, or they do not fit each other; in one line.
    """
    if path is not None and not isinstance(path, (str, os.PathLike)):
        raise UserError(
            f"xai.load reads a file, and was given a {type(path).__name__}: a network goes to xai.wrap(network, ...), "
            "weights are loaded into one first"
        )
    if path is not None:
        path = Path(path).expanduser()
        if files.read_spec(path) is not None:
            return _of_ours(path, device, {"architecture": architecture, "classes": classes, **settings})
    if architecture is None:
        if path is not None:
            read_weights(path, what="checkpoint")  # which says what is missing or damaged
        what = "give a path, or architecture=" if path is None else f"{path} says nothing of itself: give architecture="
        raise UserError(f"{what}<a name of timm, torchvision or open_clip, such as resnet18>")
    names = read_class_names(classes) if isinstance(classes, (str, Path)) else classes
    if is_clip(architecture):
        return load_clip(path, architecture, names, device, settings)
    if not is_known(architecture):
        raise UserError(f"architecture={architecture} {unknown_architecture(architecture)}")
    tensors = None if path is None else read_weights(path, what="checkpoint", require_finite=True).tensors
    file = None if path is None else path.name
    with seeded(0):  # the weights that a network has until it gets its own
        if tensors is None:
            network = _published(architecture)
        else:
            network = _with_weights(architecture, tensors, f"checkpoint {path}", settings.get("image_size"), file)
    if tensors is None and names is None and getattr(network, "num_classes", None) == len(known := published_classes()):
        names = known
    if not getattr(network, "pretrained_cfg", None) or is_torchvisions(architecture, file):
        settings = {**of_weights(architecture, file), **settings}
    return wrap(
        network, **{"classes": names, "device": device, "name": architecture, "probabilities": False, **settings}
    )


def _of_ours(path: Path, device: str | torch.device, settings: Mapping[str, Any]) -> Model:
    if given := sorted(name for name, value in settings.items() if value is not None):
        raise UserError(f"{path} says itself what it is: leave {', '.join(given)} out")
    spec, tensors = files.held(path)
    if files.filled(spec, tensors, f"checkpoint {path}").classifier is None:
        raise UserError(f"{path} is a {spec.kind} without the classifier that it explains: give the file of that")

    def make(removal: Removal | None) -> MaskableClassifier:
        classifier = files.filled(spec, tensors, f"checkpoint {path}", removal).classifier
        assert classifier is not None
        return classifier

    shape = spec.model
    return Model(
        shape.name,
        spec.classes,
        shape.image_size,
        shape.mean,
        shape.std,
        crop_of(shape.image_size, spec.side),
        make,
        open_device(device),
        source=(spec, tensors),
        fit=spec.fit,
        interpolation=spec.interpolation,
    )


def _with_weights(
    architecture: str, tensors: Mapping[str, Tensor], what: str, image_size: Any, file: str | None
) -> nn.Module:
    """A network with weights, by timm or torchvision, whichever knows their names; as wide as its head is there.

    Networks that are made for images of one size are made for `image_size` where that is said, else as their library
    has it.
    """
    size = None if image_size is None else square_side(image_size)
    faults: list[UserError] = []
    of_file = of_weights(architecture, file).get("image_size") if size is None else size
    for make, side in ((_timm, size), (torchvisions, of_file)):
        try:
            with torch.device("meta"):
                network = make(architecture, None, side)
        except Exception as error:  # whatever a hundred builders make of a size
            reason = " ".join(str(error).split())[:120]
            faults.append(UserError(f"architecture={architecture} cannot be built, image_size={size} ({reason})"))
            continue
        if network is None:
            continue
        given = tensors if make is _timm else as_torchvision_has_them(architecture, tensors)
        named, head = without_prefix(given, network.state_dict().keys()), _head(network)
        if head in named:
            network = make(architecture, len(named[head]), side)
            assert network is not None
        try:
            load_weights(network, named, what=what, model=architecture)
            if head in named:
                return network
            faults.append(UserError(f"{what} has no head that architecture={architecture} has"))
        except UserError as error:
            faults.append(error)
    raise faults[0]


def _published(architecture: str) -> nn.Module:
    for name, package in PACKAGES.items():
        if architecture in (name, package.architecture):
            network = timm.create_model(package.architecture)
            tensors = package_weights(name, network.state_dict())
            load_weights(network, tensors, what=f"weights of {name}", model=architecture)
            return network
    if not timm.is_model(architecture):
        raise UserError(f"the weights of {architecture} are torchvision's: give a file of them, xai.load(path, ...)")
    try:
        return timm.create_model(architecture, pretrained=True)
    except Exception as error:  # no network, no such weights
        raise UserError(
            f"the weights of {architecture} could not be fetched ({type(error).__name__}): give a file of them, "
            f"xai.load(path, architecture={architecture!r}), or architecture={next(iter(PACKAGES))!r}, which is "
            "installed"
        ) from error


def _timm(architecture: str, outputs: int | None, size: int | None) -> nn.Module | None:
    if not timm.is_model(architecture):
        return None
    settings: dict[str, Any] = {} if outputs is None else {"num_classes": outputs}
    config: Any = timm.get_pretrained_cfg(architecture)
    if size is not None and config is not None and config.fixed_input_size and size != config.input_size[-1]:
        settings["img_size"] = size
    return timm.create_model(architecture, **settings)


def as_torchvision_has_them(architecture: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by the names that torchvision gives them today, without heads that only a training asks."""
    found = {}
    for name, value in tensors.items():
        if architecture in INCEPTIONS and _OF_TRAINING.search(name):
            continue
        for earlier, today in _EARLIER:
            name = earlier.sub(today, name)
        found[name] = value
    return found


def _head(network: nn.Module) -> str:
    """Name of the tensor whose rows are the classes."""
    config = getattr(network, "pretrained_cfg", None) or {}
    named = config.get("classifier")
    if isinstance(named, str):
        return f"{named}.weight"
    linear = [name for name, module in network.named_modules() if isinstance(module, (nn.Linear, nn.Conv2d))]
    return f"{linear[-1]}.weight"


def is_clip(architecture: str) -> bool:
    """Whether open_clip knows an architecture of this name."""
    return architecture in open_clip.list_models()


@torch.no_grad()
def load_clip(
    path: Path | None,
    architecture: str,
    classes: Sequence[str] | None,
    device: str | torch.device,
    settings: Mapping[str, Any],
) -> Model:
    """A CLIP that classifies without training, by captions of the names of the classes.

    Args:
        path: Its weights, of both towers; None takes those that `pretrained` names.
        architecture: open_clip's name, such as `ViT-B-32`.
        classes: Names of the classes.
        device: Where it computes.
        settings: `pretrained` (open_clip's tag of the weights, which says how they activate and normalise), `mean`,
            `std`, `fit`, `interpolation`, `quick_gelu`, `templates` (captions with `{}` for the name), `removal` and
            `name`.

    Raises:
        UserError: There are no names, another setting, or weights that do not fit; in one line.
    """
    names = () if classes is None else class_names(classes)
    if not names:
        raise UserError(f"{architecture} tells apart what it is told: give classes=[...], the names of them")
    if len(names) < 2:
        raise UserError(f"classes={list(names)} leaves nothing to tell apart: give two names at least")
    if spare := sorted(set(settings) - set(_OF_CLIPS)):
        raise UserError(f"a CLIP takes no {', '.join(spare)}: leave it out; it has {', '.join(_OF_CLIPS)}")
    templates = settings.get("templates") or DEFAULT_PROMPTS
    if isinstance(templates, str) or not all(isinstance(each, str) and "{}" in each for each in templates):
        raise UserError(f"templates={templates!r} must be a list of captions with {{}} where the name of a class goes")
    params = _clip_params(path, architecture, settings)
    mode = params.published.get("resize_mode") or "shortest"
    fit = settings.get("fit") or {"shortest": "crop", "longest": "border"}.get(mode, mode)
    interpolation = settings.get("interpolation") or params.published.get("interpolation") or "bicubic"
    check_resizing(fit, interpolation)
    clip = load_base(params, read_base_weights(params, base_weights_file(params)))
    head = class_embeddings(clip, build_tokenizer(params), names, templates)
    asked = settings.get("removal", "mean")
    own = Removal("tokens") if asked == "tokens" else Removal("pixels", str(asked))

    def make(removal: Removal | None) -> MaskableClassifier:
        return build_explainer(params, clip, head, removal or own)

    name = settings.get("name") or architecture
    shape = (name, names, params.image_size, params.mean, params.std, 1.0)
    return Model(*shape, make, open_device(device), source=clip, fit=fit, interpolation=interpolation)


def _clip_params(path: Path | None, architecture: str, settings: Mapping[str, Any]) -> ClipParams:
    shape = (open_clip.get_model_config(architecture) or {}).get("vision_cfg", {})
    if not shape.get("patch_size"):
        raise UserError(f"architecture={architecture} is no plain CLIP with a ViT tower; use one, such as ViT-B-32")
    tag = settings.get("pretrained")
    published = open_clip.get_pretrained_cfg(architecture, tag) if tag else {}
    if tag and not published:
        known = ", ".join(open_clip.list_pretrained_tags_by_model(architecture)) or "none"
        raise UserError(f"pretrained={tag} is no tag of {architecture}: known are {known}")
    values = {
        "name": architecture,
        "image_size": shape.get("image_size", 224),
        "patch_size": shape["patch_size"],
        "mean": list(settings.get("mean") or published.get("mean") or OPENAI_DATASET_MEAN),
        "std": list(settings.get("std") or published.get("std") or OPENAI_DATASET_STD),
        "architecture": architecture,
        "pretrained": tag,
        "weights": None if path is None else str(path),
        "quick_gelu": settings.get("quick_gelu"),
    }
    return build(ClipParams, values)
