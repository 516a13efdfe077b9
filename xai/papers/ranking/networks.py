"""The networks of a Learn to Rank experiment: the explainer beside the classifier it explains, trained once."""

import copy
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from torch import nn

from xai.classifiers.networks import ClassifierStages
from xai.core.errors import UserError
from xai.core.files import fingerprint_file, write_atomically
from xai.core.settings import unknown
from xai.core.store import Artifact
from xai.core.training import fit
from xai.data.module import ImageDataModule
from xai.methods.ranking import Ranking
from xai.models import files
from xai.models.backbone import headless, read_body
from xai.models.dense import DenseExplainer
from xai.models.families import seeded
from xai.models.features import FrozenFeatures
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.spec import describe
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
        made = files.load(self.trained(params).file(FILE), self.stages.model)
        device = self.stages.runtime.trainer.device
        assert isinstance(made.network, DenseExplainer)
        assert made.classifier is not None
        # It looks at the classifier's gradient without owning it.
        made.classifier.to(device)
        return made.network.to(device)

    def hand_over(self, folder: Path) -> Path:
        """Copy the file of the explainer into a folder; returns where it lies."""
        artifact = self.trained(self.params)
        write_atomically(folder / FILE, lambda path: shutil.copyfile(artifact.file(FILE), path))
        return folder / FILE

    def _untrained(self, params: RankingParams) -> DenseExplainer:
        """An explainer before its training."""
        model, backbone = self.stages.model, params.backbone
        if backbone.architecture is None:
            classifier: Any = self.classifier()
            network, mean, std = copy.deepcopy(classifier.network).cpu(), model.mean, model.std
        else:
            network = _of_timm(backbone, model.image_size, self.stages.seed)
            mean, std = backbone.mean, backbone.std
        features = FrozenFeatures(network, params.levels, mean, std, model.image_size)
        explained = self.classifier() if params.decoder.gradient else None
        with seeded(self.stages.seed):
            return DenseExplainer(features, params.decoder, len(self.classes), explained, model.mean)

    def _write(self, path: Path, explainer: DenseExplainer, params: RankingParams) -> None:
        model, backbone = self.stages.model, params.backbone
        classifier: Any = self.classifier()
        networks: dict[str, nn.Module] = {"classifier": classifier.network, "decoder": explainer.decoder}
        through = None
        if backbone.architecture is not None:
            networks["backbone"] = explainer.features.network
            through = {"architecture": backbone.architecture, "mean": backbone.mean, "std": backbone.std}
        ranking = {"levels": params.levels, "decoder": params.decoder, "backbone": through}
        spec = describe(model, "ranking", self.stages.data.name, self.classes, seed=self.stages.seed, ranking=ranking)
        files.write(path, networks, spec)


def _fingerprint(path: str) -> str:
    try:
        return fingerprint_file(Path(path))
    except OSError as error:
        why = f"ranking.backbone.weights={path} cannot be read ({error.strerror})"
        raise UserError(f"{why}: give a file of weights") from error


def _of_timm(backbone: BackboneParams, size: int, seed: int) -> nn.Module:
    """A network of timm without its head, with the weights asked for."""
    assert backbone.architecture is not None
    published = backbone.pretrained and backbone.weights is None
    network = headless(backbone.architecture, size, seed, published=published)
    if backbone.weights is not None:
        what = f"ranking.backbone.weights={backbone.weights}"
        weights = read_body(network, backbone.weights, what=what, model=backbone.architecture)
        network.load_state_dict(weights)
    return network
