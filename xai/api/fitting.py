"""Explainers that are trained: for a classifier, on images, to be used by name or as what comes back."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import timm
import torch
import torchvision
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from xai.api.case import InMemory, case_of, row_of, workplace
from xai.api.explaining import Ready, open_explainer
from xai.api.model import Model, check_model
from xai.classifiers.beside import EMBEDDED, CnnBeside, VitBeside, own_network
from xai.classifiers.networks import ClassifierStages
from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.core.composing import shipped
from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.runtime import Runtime
from xai.core.settings import FieldError, build
from xai.models import files
from xai.models.cnn import CnnParams
from xai.models.families import NetworkParams
from xai.models.named import of_torchvision
from xai.models.spec import describe
from xai.models.vit import VitParams
from xai.papers.families import classifier_stages

_FILE = "given.safetensors"
_PRETRAINED = "training/vit_b14_dinov2"
"""The settings of SALVAGE's paper for vision transformers that come pre-trained."""
_WANTED: dict[str, type[NetworkParams]] = {"salvage": VitParams, "vit_shapley": VitParams, "fast_shap": CnnParams}
"""Explainers that can be trained beside any classifier, and what their networks are."""


def fit(
    explainer: str,
    model: Model,
    images: Any,
    labels: Any = None,
    *,
    normalised: bool = False,
    seed: int = 0,
    network: str | None = None,
    surrogate: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Ready:
    """Train an explainer of a model on images: what their parts make the classifier say.

    Where the layers of the classifier are known (a network of timm, one of torchvision that timm has too, a checkpoint
    of this framework) and are what the explainer is made of (a plain vision transformer for `salvage` and
    `vit_shapley`, a convolutional network for `fast_shap`), the explainer starts from them, and learns from a
    surrogate, a copy of the classifier that has been fine-tuned on masked images, as in the papers.

    Any other network is left as it is, and asked by forward passes alone, in one thread. The explainer gets a network
    of its own (`network`), and there is no surrogate: v(S) is what the classifier itself says of an image whose other
    patches are painted over (`removal` of `xai.wrap`). The losses of SALVAGE (equation 5), ViT-Shapley and FastSHAP are
    of any game v, so they stay; what changes is the game, which is then the one that `kernel_shap` and `exact_shapley`
    of the same model are asked about. What a fine-tuned surrogate is there for is missing: a classifier that has never
    seen a painted image may say anything of one (Frye et al. 2021).

    Args:
        explainer: A trained one: `salvage`, `vit_shapley`, `fast_shap` (these for any model), or `ranking`, which looks
            through the layers of the classifier and wants known ones.
        model: Of `xai.load` or `xai.wrap`.
        images: What it learns from: pictures (PIL, or paths), uint8, or floats [N, 3, H, W] in [0, 1].
        labels: Their classes, numbers or names; None takes what the model predicts.
        normalised: Whether the floats have been normalised as the model does, which is undone.
        seed: Of all that is drawn.
        network: The explainer's own network, beside the classifier: `vit_tiny` (`cnn_tiny` for `fast_shap`), trained
            from nothing; or a name of timm, trained on from the weights that timm publishes (a plain vision
            transformer, or a convolutional network for `fast_shap`). None: the layers of the classifier where they will
            do, else `vit_tiny`, or `cnn_tiny` for `fast_shap`, at the classifier's size of images and grid.
        surrogate: Settings of the fine-tuning on masked images that comes first, instead of conf/method/surrogate.yaml.
        settings: Of the explainer, instead of those of conf/explainer.

    Returns:
        The explainer. `model.fitted` has it by its name, so that `xai.explain(model, images, "salvage")` finds it.

    Raises:
        UserError: It cannot be trained for this model; in one line, before anything is trained.
    """
    check_model(model)
    pixels = model.pixels(images, normalised=normalised)
    source = InMemory(model.classes, pixels, model.targets(labels, pixels))
    entry = row_of(explainer, {}, {}).entry
    if entry.info.kind != "trained":
        raise UserError(f"{explainer} is {entry.info.kind} and learns nothing: use xai.explain(model, images, ...)")
    wanted = _WANTED.get(entry.name)
    own = _own(model) if network is None else None
    beside = own is None or (wanted is not None and not isinstance(own[0], wanted))
    if beside and wanted is None:
        raise UserError(
            f"{explainer} starts from layers of the classifier, which are known of networks of timm as they are there "
            f"(xai.load(path, architecture=<timm's name>)) and of classifiers of this framework: {', '.join(_WANTED)} "
            f"are trained for any model, {model.name} too"
        )
    if beside and surrogate is not None:
        raise UserError(f"{model.name} is asked as it is, there is no surrogate to fine-tune: leave surrogate= out")
    shape = _beside(model, network, wanted) if beside else own[0]  # type: ignore[arg-type, index]
    large = _training(shape)
    row = row_of(explainer, {**large.get("explainers", {}).get(entry.name, {}), **settings}, {})
    with workplace(model.device) as runtime:
        if beside:
            networks = _asking(model, shape, runtime, source, seed)
        else:
            given = {**shipped("method/surrogate")["surrogate"], **large.get("surrogate", {}), **(surrogate or {})}
            how = build(SurrogateParams, given, "surrogate")
            networks = _networks(model, own[1], shape, runtime, source, seed, how)  # type: ignore[index]
        case = case_of(runtime, model, source, targets="label", seed=seed)
        case = replace(case, model=replace(case.model, networks=networks))
        model.fitted[explainer] = found = open_explainer(row, case, model)
    return found


def _asking(model: Model, shape: NetworkParams, runtime: Runtime, source: InMemory, seed: int) -> ClassifierStages:
    """What trains explainers beside a classifier that is only asked."""
    stages = VitBeside if isinstance(shape, VitParams) else CnnBeside
    how = ClassifierParams(focus=0.0, fit=build(FitParams, shipped("method/classifier")["classifier"]["fit"]))
    return stages(runtime, shape, source.opened, how, seed, asked=model.network)


def _beside(model: Model, network: str | None, wanted: type[NetworkParams]) -> NetworkParams:
    """The network of an explainer that is trained beside a model, normalising as the model does where it may choose."""
    more = {"mean": list(model.mean), "std": list(model.std)}
    return own_network(wanted, network or EMBEDDED[wanted], model.image_size, model.network().grid, **more)


def _networks(
    model: Model,
    network: nn.Module,
    shape: NetworkParams,
    runtime: Runtime,
    source: InMemory,
    seed: int,
    surrogate: SurrogateParams,
) -> ClassifierStages:
    """What trains explainers that start from the model's layers; the classifier itself is a file by now."""
    path = runtime.store.root / _FILE
    files.write(path, network, describe(shape, "classifier", "images", model.classes))
    how = build(FitParams, shipped("method/classifier")["classifier"]["fit"], "classifier.fit")
    classifier = ClassifierParams(focus=0.0, fit=how, checkpoint=str(path))
    return classifier_stages(runtime, shape, source.opened, classifier, surrogate, seed)


def _own(model: Model) -> tuple[NetworkParams, nn.Module] | None:
    """The settings of a model whose layers are known, by what its file or its network says of itself, and its network.

    None where nobody knows them: what starts from layers finds them by the architecture's name, and is kept in a file
    that it is built from again.
    """
    if isinstance(model.source, tuple):  # a file of ours, as it was read: it may be another one, or gone, by now
        spec, tensors = model.source
        if not isinstance(spec.model, NetworkParams):
            return None
        return spec.model, files.filled(spec, tensors, model.name).parts["classifier." if spec.ranking else ""]
    network = _of_timm(model)
    if network is None:
        return None
    down, across = model.network().grid
    name: str = network.pretrained_cfg["architecture"]  # type: ignore[index, assignment]
    shape: dict[str, Any] = {"name": name, "image_size": model.image_size, "mean": model.mean, "std": model.std}
    shape |= {"architecture": name, "patch_size": model.image_size // down}
    try:
        params = VitParams(**shape) if isinstance(network, VisionTransformer) else CnnParams(**shape, crop=model.crop)
        again = params.build(len(model.classes))
        again.load_state_dict(network.state_dict())
    except (UserError, FieldError, RuntimeError):  # a transformer that is not plain, another head, other parts
        return None
    # A hook, other pooling: of the name, and still another network than timm has under it.
    return (params, network) if down == across and _alike(again, network, model) else None


def _of_timm(model: Model) -> nn.Module | None:
    """The model's network as timm builds it, which says of itself what it is; one of torchvision where timm has it too.

    None where it is somebody's own.
    """
    network: Any = model.source
    config = getattr(network, "pretrained_cfg", None) or {}
    if timm.is_model(config.get("architecture") or ""):
        return network
    if type(network).__module__.startswith("torchvision."):
        shapes, family = _shapes(network), _file_of(type(network))
        for name in filter(timm.is_model, of_torchvision()):
            if _file_of(torchvision.models.get_model_builder(name)) != family:
                continue
            with torch.device("meta"):
                twin = timm.create_model(name, num_classes=len(model.classes))
            if _shapes(twin) == shapes and (found := _with_its_weights(name, network, model)) is not None:
                return found
    return None


def _file_of(made_there: Any) -> str:
    """The name of a class's or a function's file; what torchvision quantises stands in one of the same name."""
    return str(made_there.__module__.rpartition(".")[2])


def _shapes(network: nn.Module) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in network.state_dict().items()}


def _with_its_weights(name: str, network: nn.Module, model: Model) -> nn.Module | None:
    """Timm's network of the name with the weights of torchvision's, where both say the same of an image."""
    twin = timm.create_model(name, num_classes=len(model.classes)).eval()
    twin.load_state_dict(network.state_dict())
    return twin if _alike(twin, network, model) else None


@torch.no_grad()
def _alike(twin: nn.Module, network: nn.Module, model: Model) -> bool:
    noise = torch.randn(1, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0))
    found, expected = twin.eval()(noise), network(noise.to(next(network.parameters()))).to(noise)
    return found.shape == expected.shape and torch.allclose(found, expected, rtol=1e-3, atol=1e-4)


def _training(shape: NetworkParams) -> dict[str, Any]:
    """How explainers of a large network are trained, where that is not what small ones need."""
    if not isinstance(shape, VitParams) or shape.embedded:
        return {}
    found = shipped(_PRETRAINED)
    for each in found["explainers"].values():
        each["heads"] = shape.build(2).blocks[0].attn.num_heads  # type: ignore[union-attr]
    return found
