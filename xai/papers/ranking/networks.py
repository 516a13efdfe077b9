"""The networks of a Learn to Rank experiment: the explainer beside the classifier it explains, trained once."""

import copy
import json
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

from xai.classifiers.networks import ClassifierStages, fingerprint_weights
from xai.core.errors import UserError
from xai.core.settings import unknown
from xai.core.store import Artifact
from xai.data.registry import load_images, subset
from xai.methods.ranking import Ranking
from xai.models import files
from xai.models.backbone import headless, read_body
from xai.models.dense import DenseExplainer
from xai.models.families import NetworkParams, seeded
from xai.models.features import FrozenFeatures
from xai.models.maskable import MaskableClassifier
from xai.models.spec import describe
from xai.papers.ranking.correction import differences_of_shares, largest_as_good
from xai.papers.ranking.params import BackboneParams, CorrectionParams, RankingSettings

FILE, KEPT = "ranking.safetensors", "kept.json"
_REVISION = 2
_BLOCK = 50
"""Validation images that maps are made of at once."""


@dataclass
class RankingStages:
    """The explainer of one classifier, made when it is first asked for.

    Args:
        stages: Where the classifier comes from.
        params: The explainer.
    """

    stages: ClassifierStages
    params: RankingSettings

    def check(self) -> None:
        """Refuse what would only show after the training of the classifier.

        Raises:
            UserError: A level, a factor, a grid or weights that do not fit, no network of timm, or fewer images to
                choose on than are asked for.
        """
        if self.params.correction is not None:
            self._chosen_on(self.params.correction)
        size, backbone = self.stages.model.image_size, self.params.backbone
        self.params.objective.check_size(size, size)
        check_levels(self.stages.model, self.params)
        if backbone.weights is not None and backbone.architecture is not None:
            _fingerprint(backbone.weights)
            with torch.device("meta"):
                network = headless(backbone.architecture, size)
            _body(backbone, network)

    @cached_property
    def trained(self) -> Artifact:
        """The trained explainer, with as much of its correction as validation images say."""
        return self.whole if self.params.correction is None else self._corrected(self.params.correction)

    @cached_property
    def whole(self) -> Artifact:
        """The trained explainer as training leaves it."""
        stages, params = self.stages, self.params
        spec: dict[str, Any] = {
            "classifier": stages.classifier.key,
            "data": stages.data.spec,
            "ranking": params.numbers,
            "seed": stages.seed,
            "revision": _REVISION,
        }
        if params.backbone.weights is not None:
            spec["weights"] = _fingerprint(params.backbone.weights)

        def make(workdir: Path) -> None:
            classifier = stages.network("classifier")
            explainer = self.untrained(classifier)
            how = (params.fit, params.objective, params.loss, stages.seed, f"ranking/{stages.data.name}")
            stages.train(Ranking(explainer, classifier, stages.model.mean, *how), params.fit, workdir, "ranking")
            self._write(workdir / FILE, explainer, classifier)

        return stages.get("ranking", spec, make)

    def explainer(self) -> DenseExplainer:
        """The trained explainer from the store, on the device, in evaluation mode, frozen."""
        return self._read(self.trained)[0]

    @property
    def seconds(self) -> float:
        """What it took to train the explainer, and to choose how much of it is kept."""
        return self.whole.seconds + (0.0 if self.trained is self.whole else self.trained.seconds)

    @property
    def kept(self) -> float | None:
        """The share of the correction that is kept; None where none was chosen."""
        if self.params.correction is None:
            return None
        return float(json.loads(self.trained.file(KEPT).read_text())["kept"])

    def _corrected(self, params: CorrectionParams) -> Artifact:
        """The same with the share of its correction that is best; what was trained is used as it is."""
        stages, objective = self.stages, self.params.objective
        spec = {"whole": self.whole.key, "correction": asdict(params), "seed": stages.seed}

        def make(workdir: Path) -> None:
            explainer, classifier = self._read(self.whole)
            mean = objective.mean_of(torch.tensor(stages.model.mean))
            generator = torch.Generator().manual_seed(stages.seed)
            asked = (params.shares, objective.references, mean, params.steps, generator)
            found = [
                differences_of_shares(explainer, classifier, self._images(rows), *asked)
                for rows in self._chosen_on(params).split(_BLOCK)
            ]
            differences = torch.cat(found, dim=1).mean(1)
            kept = largest_as_good(params.shares, differences, params.within)
            explainer.decoder.keep(kept)
            self._write(workdir / FILE, explainer, classifier)
            tried = dict(zip(map(str, params.shares), differences.tolist(), strict=True))
            (workdir / KEPT).write_text(json.dumps({"kept": kept, "differences": tried}))

        return stages.get("ranking", spec, make)

    def _chosen_on(self, params: CorrectionParams) -> Tensor:
        return subset(self.stages.data.source, "validation", params.images, self.stages.seed)

    def _images(self, rows: Tensor) -> Tensor:
        stages, trainer = self.stages, self.stages.runtime.trainer
        found = load_images(stages.data.source, "validation", rows, 0, stages.model.image_size, trainer.workers)
        return found.pixels.to(trainer.device)

    def _read(self, artifact: Artifact) -> tuple[DenseExplainer, MaskableClassifier]:
        made = files.load(artifact.file(FILE), self.stages.model)
        device = self.stages.runtime.trainer.device
        assert isinstance(made.network, DenseExplainer)
        assert made.classifier is not None
        # It looks at the classifier's gradient without owning it.
        return made.network.to(device), made.classifier.to(device)

    def untrained(self, classifier: Any) -> DenseExplainer:
        """The explainer of a classifier before its training."""
        model, params, backbone = self.stages.model, self.params, self.params.backbone
        if backbone.architecture is None:
            network, mean, std = copy.deepcopy(classifier.network).cpu(), model.mean, model.std
        else:
            published = backbone.pretrained and backbone.weights is None
            network = headless(backbone.architecture, model.image_size, self.stages.seed, published=published)
            if backbone.weights is not None:
                network.load_state_dict(_body(backbone, network))
            mean, std = backbone.mean, backbone.std
        features = FrozenFeatures(network, params.levels, mean, std, model.image_size)
        with seeded(self.stages.seed):
            classes = len(self.stages.data.source.classes)
            return DenseExplainer(features, params.decoder, classes, classifier, model.mean)

    def _write(self, path: Path, explainer: DenseExplainer, classifier: Any) -> None:
        model, backbone, data = self.stages.model, self.params.backbone, self.stages.data
        networks: dict[str, nn.Module] = {"classifier": classifier.network, "decoder": explainer.decoder}
        through = None
        if backbone.architecture is not None:
            networks["backbone"] = explainer.features.network
            through = {"architecture": backbone.architecture, "mean": backbone.mean, "std": backbone.std}
        shape = {"levels": self.params.levels, "decoder": self.params.decoder, "backbone": through}
        spec = describe(model, "ranking", data, tuple(data.source.classes), seed=self.stages.seed, ranking=shape)
        files.write(path, networks, spec)


def check_levels(model: NetworkParams, params: RankingSettings) -> None:
    """Refuse an explainer that does not fit what it looks through, by building it without memory for its weights.

    Raises:
        UserError: A level, a factor or a grid that does not fit, or no network of timm.
    """
    name = params.backbone.architecture
    if name is not None and not timm.is_model(name):
        raise UserError(unknown(f"ranking.backbone.architecture={name}", name, timm.list_models(), "network of timm"))
    with torch.device("meta"):
        network = model.build(2) if name is None else headless(name, model.image_size)
        features = FrozenFeatures(network, params.levels, model.mean, model.std, model.image_size)
        DenseExplainer(features, replace(params.decoder, gradient=False, skip=False), 2)


def _fingerprint(path: str) -> str:
    return fingerprint_weights(Path(path), "ranking.backbone.weights")


def _body(backbone: BackboneParams, network: nn.Module) -> dict[str, torch.Tensor]:
    what = f"ranking.backbone.weights={backbone.weights}"
    return read_body(network, str(backbone.weights), what=what, model=str(backbone.architecture))
