"""The networks around a convolutional classifier: its surrogate, and FastSHAP; each trained once."""

from dataclasses import asdict, dataclass
from pathlib import Path

from xai.classifiers.networks import FILES, REVISION, ClassifierStages
from xai.classifiers.params import FastShapParams
from xai.core.store import Artifact
from xai.methods.vit_shapley import VitShapley
from xai.models.cnn import CnnParams, build_cnn
from xai.models.families import seeded
from xai.models.maskable import MaskableClassifier, PaintedClassifier
from xai.models.unet import FastShapNetwork
from xai.models.weights import load_weights, read_weights


@dataclass
class CnnStages(ClassifierStages):
    """A convolutional network, and everything that is trained around it."""

    model: CnnParams

    def fast_shap(self, params: FastShapParams) -> Artifact:
        """A trained FastSHAP explainer (Jethani et al. 2022)."""
        spec = {"surrogate": self.surrogate.key, **asdict(params), "seed": self.seed, "revision": REVISION}

        def make(workdir: Path) -> None:
            network, surrogate = self.untrained(params), self.network("surrogate")
            self._begin(network, surrogate)
            stage = f"fast_shap/{self.data.name}"
            module = VitShapley(network, surrogate, params.fit, params.masks, self.seed, stage)
            self.train(module, params.fit, workdir, "fast_shap")
            self._write(workdir, "fast_shap", network, unet={"width": params.width})

        return self.get("fast_shap", spec, make)

    def _begin(self, network: FastShapNetwork, surrogate: MaskableClassifier) -> None:
        """An explainer starts where the classifier has arrived."""
        assert isinstance(surrogate, PaintedClassifier)
        arrived = surrogate.network.state_dict()
        network.backbone.load_state_dict({name: arrived[name] for name in network.backbone.state_dict()})

    def explainer(self, params: FastShapParams, artifact: Artifact) -> FastShapNetwork:
        """An explainer from the store, on the device, in evaluation mode."""
        network = self.untrained(params)
        tensors = read_weights(artifact.file(FILES["fast_shap"]), what="fast_shap").tensors
        load_weights(network, tensors, what="fast_shap", model=self.model.name)
        return network.to(self.runtime.trainer.device).eval().requires_grad_(False)

    def untrained(self, params: FastShapParams) -> FastShapNetwork:
        """The explainer before its training, with weights of its own.

        Raises:
            UserError: The network gives no intermediate features.
        """
        model, grid = self.model, (self.model.grid, self.model.grid)
        backbone = build_cnn(model, self.outputs, self.seed)
        with seeded(self.seed):
            return FastShapNetwork(backbone, params.width, self.outputs, grid, model.image_size, model.mean, model.std)
