"""The networks of a SALVAGE experiment as artifacts: classifier, surrogate, explainers; each trained once."""

import copy
import shutil
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Tensor, nn

from xai.artifacts import Artifact
from xai.data.module import ImageDataModule, load_images
from xai.errors import UserError
from xai.files import fingerprint_file, write_atomically
from xai.methods.classifier import Classifier
from xai.methods.optimisation import FitParams
from xai.methods.salvage import Salvage
from xai.methods.surrogate import Surrogate
from xai.methods.vit_shapley import VitShapley
from xai.models.explainer import ExplainerNetwork, SalvageNetwork, ShapleyNetwork
from xai.models.maskable import Removal
from xai.models.segmenter import build_decoder
from xai.models.timm_vit import MaskableVit
from xai.models.vit import VitParams, build_vit, maskable, outputs_of, start_weights
from xai.models.vit_file import VitInfo, load_vit, read_vit, write_vit
from xai.models.weights import read_weights
from xai.shapley.masks import random_masks
from xai.stages.context import Lab, OpenData
from xai.stages.vit_params import ClassifierParams, SalvageParams, SurrogateParams, VitShapleyParams
from xai.training import fit

FILES = {name: f"{name}.safetensors" for name in ("classifier", "surrogate", "salvage", "vit_shapley")}
_EVALUATION_BATCH = 128
_REVISION = 1


@dataclass
class VitStages:
    """Everything that is trained for one model, one data set and one seed; made when it is first asked for.

    Args:
        lab: Where to work.
        model: The vision transformer.
        data: The data set.
        classifier_params: How the classifier is trained.
        surrogate_params: How it is fine-tuned on masked images; None where only the classifier is wanted.
        seed: Of weights, order of images, masks.
    """

    lab: Lab
    model: VitParams
    data: OpenData
    classifier_params: ClassifierParams
    surrogate_params: SurrogateParams | None
    seed: int

    def __post_init__(self) -> None:
        """Refuse what would only show after the training before it."""
        self.outputs = outputs_of(len(self.data.source.classes), self.model.binary)
        network = build_vit(self.model, self.outputs, self.seed)
        maskable(self.model, network)
        self.width = int(network.embed_dim)
        params = self.classifier_params
        if params.checkpoint is None and params.focus and not self._has_regions:
            raise UserError(
                f"classifier.focus={params.focus} needs the regions of the objects, and data={self.data.name} has "
                "none: set classifier.focus=0"
            )

    @cached_property
    def classifier(self) -> Artifact:
        """The classifier: trained from the model's start weights, or the user's own."""
        params = self.classifier_params
        spec: dict[str, Any] = {**self._common, "focus": params.focus, "fit": asdict(params.fit)}
        if params.checkpoint is not None:
            path = Path(params.checkpoint)
            tensors = self._own_classifier(path)
            spec = {**self._common, "checkpoint": fingerprint_file(path)}
            return self._get("classifier", spec, lambda work: self._write(work, "classifier", self._loaded(tensors)))
        if self.model.weights is not None:
            spec["weights"] = _fingerprint(self.model.weights)

        def make(workdir: Path) -> None:
            network = build_vit(self.model, self.outputs, self.seed, published=self.model.pretrained)
            if self.model.weights is not None:
                network.load_state_dict(start_weights(self.model, network))
            module = Classifier(
                maskable(self.model, network), params.fit, params.focus, self.seed, f"classifier/{self.data.name}"
            )
            self._fit(module, params.fit, workdir, "classifier")
            self._write(workdir, "classifier", network)

        return self._get("classifier", spec, make)

    @cached_property
    def surrogate(self) -> Artifact:
        """The classifier fine-tuned on masked images: what v(S) is asked of."""
        params = self.surrogate_params
        assert params is not None
        spec = {"classifier": self.classifier.key, **asdict(params), "seed": self.seed, "revision": _REVISION}

        def make(workdir: Path) -> None:
            frozen, student = self.network("classifier"), self.network("classifier")
            module = Surrogate(
                student.requires_grad_(True),
                frozen,
                params.fit,
                params.teacher,
                params.sizes,
                self.seed,
                f"surrogate/{self.data.name}",
            )
            self._fit(module, params.fit, workdir, "surrogate")
            self._write(workdir, "surrogate", student.network)

        return self._get("surrogate", spec, make)

    def salvage(self, params: SalvageParams) -> Artifact:
        """A trained SALVAGE explainer."""
        return self._explainer("salvage", params)

    def vit_shapley(self, params: VitShapleyParams) -> Artifact:
        """A trained ViT-Shapley explainer."""
        return self._explainer("vit_shapley", params)

    def network(self, kind: str, removal: Removal | None = None) -> MaskableVit:
        """`classifier` or `surrogate` from the store, on the device, in evaluation mode."""
        artifact = self.classifier if kind == "classifier" else self.surrogate
        tensors = read_weights(artifact.file(FILES[kind]), what=kind).tensors
        network = maskable(self.model, self._loaded(tensors), removal)
        return network.to(self.lab.trainer.device).eval().requires_grad_(False)

    def explainer(self, kind: str, params: SalvageParams | VitShapleyParams, artifact: Artifact) -> ExplainerNetwork:
        """A trained explainer from the store, on the device, in evaluation mode."""
        network = self._untrained(kind, params)
        load_vit(network, read_weights(artifact.file(FILES[kind]), what=kind).tensors, kind, self.model.name)
        return network.to(self.lab.trainer.device).eval().requires_grad_(False)

    def hand_over(self, kind: str, folder: Path, params: SalvageParams | VitShapleyParams | None = None) -> Path:
        """Copy the file of a network into a folder; returns where it lies."""
        artifact = getattr(self, kind) if params is None else getattr(self, kind)(params)
        write_atomically(folder / FILES[kind], lambda path: shutil.copyfile(artifact.file(FILES[kind]), path))
        return folder / FILES[kind]

    def validation_accuracy(self, kind: str) -> dict[str, float]:
        """Accuracy on the validation split, by what is shown: all patches, and a random half of them."""
        # Before inference mode: what is not in the store is trained now.
        network, source, device = self.network(kind), self.data.source, self.lab.trainer.device
        labels, generator = source.labels("validation"), torch.Generator().manual_seed(self.seed)
        correct = {"whole images": 0, "half of the patches": 0}
        for rows in torch.arange(len(labels)).split(_EVALUATION_BATCH):
            images = load_images(source, "validation", rows, 0, self.model.image_size, self.lab.trainer.workers)
            half = random_masks(len(rows), network.players, torch.tensor([network.players // 2]), generator)[:, 0]
            for shown, keep in zip(correct, (None, half.to(device)), strict=True):
                with torch.inference_mode(), self.lab.trainer.autocast():
                    predicted = network(images.pixels.to(device), keep).argmax(1).cpu()
                correct[shown] += int((predicted == labels[rows]).sum())
        return {shown: count / len(labels) for shown, count in correct.items()}

    def _explainer(self, kind: str, params: SalvageParams | VitShapleyParams) -> Artifact:
        spec = {"surrogate": self.surrogate.key, **asdict(params), "seed": self.seed, "revision": _REVISION}

        def make(workdir: Path) -> None:
            network, surrogate = self._untrained(kind, params), self.network("surrogate")
            # An explainer starts where the classifier has arrived.
            backbone = surrogate.network.state_dict()
            own = {name: value for name, value in backbone.items() if not name.startswith("head.")}
            network.backbone.load_state_dict(own)
            self._fit(self._module(network, surrogate, params), params.fit, workdir, kind)
            self._write(workdir, kind, network, params)

        return self._get(kind, spec, make)

    def _module(
        self, network: ExplainerNetwork, surrogate: MaskableVit, params: SalvageParams | VitShapleyParams
    ) -> LightningModule:
        if isinstance(params, SalvageParams):
            assert isinstance(network, SalvageNetwork)
            stage = f"salvage/{self.data.name}"
            how = (params.masks, params.sampling, params.temperature, params.divergence)
            return Salvage(network, surrogate, params.fit, *how, self.seed, stage)
        assert isinstance(network, ShapleyNetwork)
        return VitShapley(network, surrogate, params.fit, params.masks, self.seed, f"vit_shapley/{self.data.name}")

    def _untrained(self, kind: str, params: SalvageParams | VitShapleyParams) -> ExplainerNetwork:
        backbone = build_vit(self.model, self.outputs, self.seed)
        scores = self.outputs * (2 if kind == "salvage" else 1)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            decoder = build_decoder(params.decoder, backbone.embed_dim, scores, params.depth, params.heads)
        made: type[ExplainerNetwork] = SalvageNetwork if kind == "salvage" else ShapleyNetwork
        return made(backbone, decoder, self.model.mean, self.model.std)

    @property
    def _has_regions(self) -> bool:
        return self.data.source.images("train", torch.tensor([0]), 0).regions is not None

    @property
    def _common(self) -> dict[str, Any]:
        model = {key: value for key, value in asdict(self.model).items() if key not in ("name", "weights")}
        return {"model": model, "data": self.data.spec, "seed": self.seed, "revision": _REVISION}

    def _get(self, kind: str, spec: dict[str, Any], make: Any) -> Artifact:
        return self.lab.store.get(kind, self.lab.with_precision(spec), make, title=f"{kind} of {self.data.name}")

    def _fit(self, module: LightningModule, params: FitParams, workdir: Path, what: str) -> None:
        size, workers = self.model.image_size, self.lab.trainer.workers
        batches = ImageDataModule(self.data.source, size, params.batch_size, self.seed, workers=workers)
        title = f"{what} of {self.data.name}"
        fit(module, batches, params, self.lab.trainer, workdir, title, self.lab.logger)

    def _loaded(self, tensors: dict[str, Tensor]) -> Any:
        network = build_vit(self.model, self.outputs, self.seed)
        load_vit(network, tensors, "classifier", self.model.name)
        return network

    def _own_classifier(self, path: Path) -> dict[str, Tensor]:
        """The tensors of a classifier file of the user's.

        Raises:
            UserError: It is broken, of another architecture, or tells other classes apart.
        """
        tensors, info = read_vit(path)
        classes = tuple(self.data.source.classes)
        if info is not None and (info.kind not in ("classifier", "surrogate") or info.classes != classes):
            raise UserError(
                f"{path} is a {info.kind} of {len(info.classes)} classes of {info.data}: a classifier of the "
                f"{len(classes)} classes of data={self.data.name} is needed"
            )
        network = build_vit(self.model, self.outputs, self.seed)
        load_vit(network, tensors, f"checkpoint {path}", self.model.name)
        return tensors

    def _write(
        self, workdir: Path, kind: str, network: nn.Module, params: SalvageParams | VitShapleyParams | None = None
    ) -> None:
        shape: dict[str, Any] = {}
        if params is not None:
            shape = {"decoder": params.decoder, "decoder_depth": params.depth, "decoder_heads": params.heads}
        info = VitInfo(
            kind, self.model.name, self.data.name, tuple(self.data.source.classes), self.model.binary, **shape
        )
        write_vit(workdir / FILES[kind], copy.deepcopy(network).cpu(), info)


def _fingerprint(weights: str) -> str:
    try:
        return fingerprint_file(Path(weights))
    except OSError as error:
        raise UserError(f"model.weights={weights} cannot be read ({error.strerror}): give a file of weights") from error
