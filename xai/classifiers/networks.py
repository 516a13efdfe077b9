"""What the stages of all families of classifiers share: networks that are trained once, found again and handed over."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from xai.classifiers.params import ClassifierParams, SurrogateParams
from xai.core import plugins
from xai.core.errors import UserError
from xai.core.files import fingerprint_file, write_atomically
from xai.core.optimisation import FitParams
from xai.core.runtime import Runtime
from xai.core.store import Artifact
from xai.core.training import fit
from xai.data.catalogue import OpenData
from xai.data.module import ImageDataModule, in_order
from xai.data.registry import ImageSource
from xai.methods.classifier import Classifier
from xai.methods.surrogate import Surrogate
from xai.models import files
from xai.models.families import seeded
from xai.models.maskable import MaskableClassifier, Removal
from xai.models.spec import describe
from xai.models.weights import load_weights, match_weights, read_weights
from xai.sampling import random_masks
from xai.study.case import ExplainedModel

FILES = {name: f"{name}.safetensors" for name in ("classifier", "surrogate", "salvage", "vit_shapley", "fast_shap")}
_EVALUATION_BATCH = 128
REVISION = 1


@dataclass
class ClassifierStages:
    """A classifier for one model, one data set and one seed, and what is made from it; made when it is asked for.

    Args:
        runtime: Where to work.
        model: The network.
        data: The data set.
        classifier_params: How the classifier is trained, where it is.
        seed: Of weights, order of images, masks.
        surrogate_params: How it is fine-tuned on masked images; None where only the classifier is wanted.
    """

    runtime: Runtime
    model: Any
    data: OpenData
    classifier_params: ClassifierParams
    seed: int
    surrogate_params: SurrogateParams | None = None

    def __post_init__(self) -> None:
        """Refuse what would only show after the training before it."""
        self.outputs = self.model.outputs(len(self.data.source.classes))
        self.model.maskable(self._shell())
        params, source = self.classifier_params, self.data.source
        is_trained = not self.is_published and params.checkpoint is None
        if is_trained and params.focus and source.images("train", torch.tensor([0]), 0).regions is None:
            raise UserError(
                f"classifier.focus={params.focus} needs the regions of the objects, and data={self.data.name} has "
                "none: set classifier.focus=0"
            )

    @property
    def surrogate_removal(self) -> Removal:
        """How patches are removed from what the surrogate learns from."""
        return Removal()

    @property
    def is_published(self) -> bool:
        """Whether the published network is the classifier: nobody gave another, and it knows the very classes."""
        given = self.classifier_params.checkpoint is not None
        return not given and bool(self.model.is_published_for(self.data.source.classes))

    @cached_property
    def classifier(self) -> Artifact:
        """The classifier: the user's own, the published network, or one trained from the model's start weights."""
        checkpoint = self.classifier_params.checkpoint
        if checkpoint is not None:
            return self._own_classifier(checkpoint)
        return self._published_classifier() if self.is_published else self._trained_classifier()

    @cached_property
    def surrogate(self) -> Artifact:
        """The classifier fine-tuned on masked images: what v(S) is asked of."""
        params = self.surrogate_params
        assert params is not None
        spec = {"classifier": self.classifier.key, **asdict(params), "seed": self.seed, "revision": REVISION}

        def make(workdir: Path) -> None:
            frozen, student = self.network("classifier"), self._student()
            how = (params.fit, params.teacher, params.sizes, self.seed, f"surrogate/{self.data.name}")
            self.train(Surrogate(student.requires_grad_(True), frozen, *how), params.fit, workdir, "surrogate")
            self.write(workdir, "surrogate", student.network)

        return self.get("surrogate", spec, make)

    def _student(self) -> Any:
        """What becomes the surrogate, in the mode in which it is trained: batch statistics follow masked images too."""
        return self.network("classifier").train()

    def network(self, kind: str, removal: Removal | None = None) -> MaskableClassifier:
        """A classifier from the store by its kind, on the device, in evaluation mode."""
        return self.read(getattr(self, kind), kind, removal)

    def read(self, artifact: Artifact, kind: str, removal: Removal | None = None) -> MaskableClassifier:
        """The classifier of an artifact, as of `network`."""
        tensors = read_weights(artifact.file(FILES[kind]), what=kind).tensors
        network = self.model.maskable(self._loaded(tensors), removal)
        return network.to(self.runtime.trainer.device).eval().requires_grad_(False)

    def blank(self, removal: Removal | None = None) -> MaskableClassifier:
        """A classifier whose weights mean nothing, on the device, in evaluation mode; nothing is trained."""
        network = self.model.maskable(self._blank(), removal)
        return network.to(self.runtime.trainer.device).eval().requires_grad_(False)

    def hand_over(self, kind: str, folder: Path) -> Path:
        """Copy the file of a classifier into a folder; the copy."""
        file = getattr(self, kind).file(FILES[kind])
        write_atomically(folder / FILES[kind], lambda path: shutil.copyfile(file, path))
        return folder / FILES[kind]

    def validation_accuracy(self, kind: str) -> dict[str, float]:
        """Accuracy on the validation split, by what is shown: all patches, and a random half; empty without images."""
        # Before inference mode: what is not in the store is trained now.
        network, source, device = self.network(kind), self.data.source, self.runtime.trainer.device
        generator = torch.Generator().manual_seed(self.seed)
        correct = {"whole images": 0, "half of the patches": 0}
        workers, size = self.runtime.trainer.workers, torch.tensor([network.players // 2])
        for batch in in_order(source, "validation", self.model.image_size, _EVALUATION_BATCH, workers):
            half = random_masks(len(batch.labels), network.players, size, generator)[:, 0]
            for shown, keep in zip(correct, (None, half.to(device)), strict=True):
                with torch.inference_mode(), self.runtime.trainer.autocast():
                    predicted = network(batch.pixels.to(device), keep).argmax(1).cpu()
                correct[shown] += int((predicted == batch.labels).sum())
        images = len(source.labels("validation"))
        return {shown: count / images for shown, count in correct.items()} if images else {}

    def _trained_classifier(self) -> Artifact:
        """Trained from the model's start weights."""
        params = self.classifier_params
        spec = {**self._common, **self._given, "focus": params.focus, "fit": asdict(params.fit)}

        def make(workdir: Path) -> None:
            with seeded(self.seed):
                network = self.model.start(self.outputs, self.seed)
            stage = f"classifier/{self.data.name}"
            module = Classifier(self.model.maskable(network).train(), params.fit, params.focus, self.seed, stage)
            self.train(module, params.fit, workdir, "classifier")
            self.write(workdir, "classifier", network)

        return self.get("classifier", spec, make)

    def _published_classifier(self) -> Artifact:
        """The published network as it is; nothing of how a training would go is part of it."""
        spec = {**self._common, **self._given, "published": True}
        model, outputs = self.model, self.outputs
        return self.get("classifier", spec, lambda work: self.write(work, "classifier", model.published(outputs)))

    def _shell(self) -> nn.Module:
        """A network of the model without memory for its weights: a file may have said how large it is."""
        with torch.device("meta"):
            return self._blank()

    def _blank(self) -> nn.Module:
        """A network of the model, to load weights into."""
        with seeded(self.seed):
            return self.model.build(self.outputs, self.seed)

    def _own_classifier(self, checkpoint: str) -> Artifact:
        """A classifier of the user's.

        Raises:
            UserError: Its file is broken, of another architecture, or tells other classes apart.
        """
        path, classes = Path(checkpoint), tuple(self.data.source.classes)
        info, tensors = files.read(path, self.model)
        if info is not None and (info.kind not in ("classifier", "surrogate") or info.classes != classes):
            raise UserError(
                f"{path} is a {info.kind} of {len(info.classes)} classes of {info.data}: a classifier of the "
                f"{len(classes)} classes of data={self.data.name} is needed"
            )
        expected = {name: value.shape for name, value in self._shell().state_dict().items()}
        tensors = match_weights(tensors, expected, what=f"checkpoint {path}", model=self.model.name)
        spec = {**self._common, "checkpoint": fingerprint_file(path)}
        return self.get("classifier", spec, lambda work: self.write(work, "classifier", self._loaded(tensors)))

    @property
    def _common(self) -> dict[str, Any]:
        model = {key: value for key, value in asdict(self.model).items() if key not in ("name", "weights")}
        code = plugins.code_of(type(self.model).__module__)
        return {"model": model, "data": self.data.spec, "seed": self.seed, "revision": REVISION, **code}

    @property
    def _given(self) -> dict[str, str]:
        """The fingerprint of the file of start weights, where there is one."""
        path = self.model.file
        return {} if path is None else {"weights": fingerprint_weights(path, "model.weights")}

    def get(self, kind: str, spec: dict[str, Any], make: Callable[[Path], None]) -> Artifact:
        """A network from the store, made where it is not there."""
        return self.runtime.store.get(
            kind, self.runtime.with_precision(spec), make, title=f"{kind} of {self.data.name}"
        )

    def train(
        self,
        module: LightningModule,
        params: FitParams,
        workdir: Path,
        what: str,
        shares: Sequence[float] = (),
        source: ImageSource | None = None,
    ) -> None:
        """Train a module on the images of the data set, or of another `source` with its classes."""
        size, workers = self.model.image_size, self.runtime.trainer.workers
        batches = ImageDataModule(source or self.data.source, size, params.batch_size, self.seed, workers=workers)
        title = f"{what} of {self.data.name}"
        fit(module, batches, params, self.runtime.trainer, workdir, title, self.runtime.logger, shares)

    def _loaded(self, tensors: dict[str, Tensor]) -> nn.Module:
        network = self._blank()
        load_weights(network, tensors, what="classifier", model=self.model.name)
        return network

    def write(self, workdir: Path, kind: str, network: nn.Module, name: str | None = None, **more: Any) -> None:
        """Write a network, None: under its usual name; `more` is what is to be said of an explainer's decoder."""
        if kind == "surrogate":
            # It has learned to answer with patches removed in this way, and in no other.
            more["removal"] = self.surrogate_removal
        spec = describe(self.model, kind, self.data, self.data.source.classes, seed=self.seed, **more)
        path = workdir / (name or FILES[kind])
        path.parent.mkdir(exist_ok=True)
        files.write(path, network, spec)


def fingerprint_weights(path: Path, setting: str) -> str:
    """What tells a file of weights from all others; UserError: what was given as a setting cannot be read."""
    try:
        return fingerprint_file(path)
    except OSError as error:
        raise UserError(f"{setting}={path} cannot be read ({error.strerror}): give a file of weights") from error


def explained(networks: ClassifierStages, kind: str = "classifier") -> ExplainedModel:
    """The classifier of some networks as what is explained; it is trained when it is asked for.

    Args:
        networks: Where it comes from.
        kind: `classifier`, or `surrogate`: the one that was fine-tuned on masked images.
    """
    model: Any = networks.model
    return ExplainedModel(
        name=model.name,
        identify=lambda: getattr(networks, kind).key,
        image_size=model.image_size,
        mean=tuple(model.mean),
        classes=tuple(networks.data.source.classes),
        make=lambda removal: networks.network(kind, removal),
        networks=networks,
        blank=networks.blank,
    )
