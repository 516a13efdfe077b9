"""CLIPs of open_clip as classifiers: what they tell apart is what their text tower says of the names of the classes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD

from xai.api.model import Model, check_resizing, class_names, open_device
from xai.core.errors import UserError
from xai.core.settings import build
from xai.data.prompts import DEFAULT_PROMPTS
from xai.models.clip import class_embeddings
from xai.models.factory import (
    ClipParams,
    base_weights_file,
    build_explainer,
    build_tokenizer,
    load_base,
    read_base_weights,
)
from xai.models.maskable import MaskableClassifier, Removal

_OWN = ("mean", "std", "fit", "interpolation", "pretrained", "quick_gelu", "templates", "removal", "name")


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
    if spare := sorted(set(settings) - set(_OWN)):
        raise UserError(f"a CLIP takes no {', '.join(spare)}: leave it out; it has {', '.join(_OWN)}")
    templates = settings.get("templates") or DEFAULT_PROMPTS
    if isinstance(templates, str) or not all(isinstance(each, str) and "{}" in each for each in templates):
        raise UserError(f"templates={templates!r} must be a list of captions with {{}} where the name of a class goes")
    params = _params(path, architecture, settings)
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


def _params(path: Path | None, architecture: str, settings: Mapping[str, Any]) -> ClipParams:
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
