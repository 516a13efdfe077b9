"""The networks of a Learn to Rank experiment: the explainer beside the classifier it explains, trained once."""

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import is_model_in_modules
from torch import nn

from xai.classifiers.networks import ClassifierStages
from xai.core.errors import UserError
from xai.core.files import fingerprint_file, write_atomically
from xai.core.settings import unknown
from xai.core.store import Artifact
from xai.core.training import fit
from xai.data.module import ImageDataModule
from xai.methods.ranking import Ranking
from xai.models.dense import DenseExplainer
from xai.models.features import FrozenFeatures
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.ranking_file import RankingInfo, part_of, write_ranking
from xai.models.vit_file import load_vit
from xai.models.weights import match_weights, read_weights
from xai.papers.ranking.params import BackboneParams, RankingParams, numbers_of

FILE = "ranking.safetensors"
_REVISION = 1


@dataclass
class RankingStages:
    """Explainers of one classifier; each is made when it is first asked for.

    Args:
        stages: Where the classifier comes from.
        params: The explainer.
    """

    stages: ClassifierStages
    params: RankingParams

    def __post_init__(self) -> None:
        """Refuse what would only show after the training before it."""
        size = self.stages.model.image_size
        self.params.objective.check_size(size, size)
        backbone = self.params.backbone
        if backbone.architecture is not None and not timm.is_model(backbone.architecture):
            name = backbone.architecture
            raise UserError(
                unknown(f"ranking.backbone.architecture={name}", name, timm.list_models(), "network of timm")
            )

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return tuple(self.stages.data.source.classes)

    def classifier(self, removal: Removal | None = None) -> MaskableClassifier:
        """What is explained."""
        network: MaskableClassifier = self.stages.network("classifier", removal)
        return network

    def trained(self, params: RankingParams) -> Artifact:
        """A trained explainer."""
        stages, backbone = self.stages, params.backbone
        spec: dict[str, Any] = {
            "classifier": stages.classifier.key,
            "data": stages.data.spec,
            "ranking": numbers_of(params),
            "seed": stages.seed,
            "revision": _REVISION,
        }
        if backbone.weights is not None:
            spec["weights"] = _fingerprint(backbone.weights)

        def make(workdir: Path) -> None:
            explainer = self._untrained(params)
            model, seed, name = stages.model, stages.seed, stages.data.name
            module = Ranking(
                explainer,
                self.classifier(),
                model.mean,
                params.fit,
                params.objective,
                params.loss,
                seed,
                f"ranking/{name}",
            )
            workers = stages.runtime.trainer.workers
            batches = ImageDataModule(
                stages.data.source, model.image_size, params.fit.batch_size, seed, workers=workers
            )
            fit(
                module,
                batches,
                params.fit,
                stages.runtime.trainer,
                workdir,
                f"ranking of {name}",
                stages.runtime.logger,
            )
            self._write(workdir / FILE, explainer, params)

        title = f"ranking of {stages.data.name}"
        return stages.runtime.store.get("ranking", stages.runtime.with_precision(spec), make, title=title)

    def explainer(self, params: RankingParams) -> DenseExplainer:
        """A trained explainer from the store, on the device, in evaluation mode, frozen."""
        tensors = read_weights(self.trained(params).file(FILE), what="ranking").tensors
        explainer = self._untrained(params, blank=True)
        if params.backbone.architecture is not None:
            load_vit(explainer.features.network, part_of(tensors, "backbone"), "ranking", params.backbone.architecture)
        load_vit(explainer.decoder, part_of(tensors, "decoder"), "ranking", "decoder")
        return explainer.to(self.stages.runtime.trainer.device).eval().requires_grad_(False)

    def hand_over(self, folder: Path) -> Path:
        """Copy the file of the explainer into a folder; returns where it lies."""
        artifact = self.trained(self.params)
        write_atomically(folder / FILE, lambda path: shutil.copyfile(artifact.file(FILE), path))
        return folder / FILE

    def _untrained(self, params: RankingParams, *, blank: bool = False) -> DenseExplainer:
        """An explainer before its training; `blank` spares the weights of its backbone, where they come from a file."""
        model, backbone = self.stages.model, params.backbone
        if backbone.architecture is None:
            classifier: Any = self.classifier()
            network, mean, std = copy.deepcopy(classifier.network).cpu(), model.mean, model.std
        else:
            network = _of_timm(backbone, model.image_size, self.stages.seed, blank=blank)
            mean, std = backbone.mean, backbone.std
        features = FrozenFeatures(network, params.levels, mean, std, model.image_size)
        explained = self.classifier() if params.decoder.gradient else None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.stages.seed)
            return DenseExplainer(features, params.decoder, len(self.classes), explained, model.mean)

    def _write(self, path: Path, explainer: DenseExplainer, params: RankingParams) -> None:
        model, backbone = self.stages.model, params.backbone
        classifier: Any = self.classifier()
        networks: dict[str, nn.Module] = {"classifier": classifier.network, "decoder": explainer.decoder}
        mean, std = model.mean, model.std
        if backbone.architecture is not None:
            networks["backbone"], mean, std = explainer.features.network, backbone.mean, backbone.std
        info = RankingInfo(
            model.name,
            self.stages.data.name,
            self.classes,
            getattr(model, "binary", False),
            backbone.architecture or "",
            tuple(mean),
            tuple(std),
            params.levels,
            params.decoder,
        )
        copies: dict[str, nn.Module] = {name: copy.deepcopy(part).cpu() for name, part in networks.items()}
        write_ranking(path, copies, info)


def _fingerprint(path: str) -> str:
    try:
        return fingerprint_file(Path(path))
    except OSError as error:
        why = f"ranking.backbone.weights={path} cannot be read ({error.strerror})"
        raise UserError(f"{why}: give a file of weights") from error


def blank_backbone(architecture: str, size: int) -> nn.Module:
    """A network of timm without its head, whose weights are to come from a file."""
    return _of_timm(BackboneParams(architecture), size, 0, blank=True)


def _of_timm(backbone: BackboneParams, size: int, seed: int, *, blank: bool) -> nn.Module:
    """A network of timm without its head: with the weights asked for, or with random ones where others are to come.

    Raises:
        UserError: The weights cannot be had.
    """
    assert backbone.architecture is not None
    # Plain transformers are built for one size; all others take images as they come.
    plain = is_model_in_modules(backbone.architecture, ("vision_transformer", "deit"))
    settings: dict[str, Any] = {"img_size": size} if plain else {}
    fetch = backbone.pretrained and backbone.weights is None and not blank
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network: nn.Module = timm.create_model(backbone.architecture, fetch, num_classes=0, **settings)
    except Exception as error:  # timm and its hub have many ways to say that there is no network
        wanted = "be fetched" if fetch else f"be built for {size} px"
        raise UserError(
            f"ranking.backbone.architecture={backbone.architecture} cannot {wanted} ({type(error).__name__}): give "
            "ranking.backbone.weights=FILE, set pretrained=false, or use another architecture"
        ) from error
    if backbone.weights is not None and not blank:
        _load(network, backbone.weights, backbone.architecture)
    return network.eval()


def _load(network: nn.Module, path: str, architecture: str) -> None:
    tensors = read_weights(Path(path), what="weights", require_finite=True).tensors
    named: Any = network.pretrained_cfg["classifier"]  # type: ignore[index]
    heads = tuple(f"{name}." for name in ([named] if isinstance(named, str) else named))
    own = {name: value.shape for name, value in network.state_dict().items()}
    state = {name: value for name, value in tensors.items() if name in own or not name.startswith(heads)}
    match_weights(state, own, what=f"ranking.backbone.weights={path}", model=architecture)
    network.load_state_dict(state)
