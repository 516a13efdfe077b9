"""Explainers that learn from the surrogate of a classifier: each is trained once, and found again."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule

from xai.classifiers.networks import FILES, REVISION, ClassifierStages
from xai.classifiers.params import FastShapParams, SalvageParams, VitShapleyParams
from xai.core.checkpoints import kept_weights, on_the_way
from xai.core.store import Artifact
from xai.models.weights import load_weights, read_weights

LearnedParams = SalvageParams | VitShapleyParams | FastShapParams


@dataclass
class LearningStages(ClassifierStages):
    """A classifier, its surrogate, and explainers with layers like theirs; a subclass says of which family they are."""

    def learned(self, params: LearnedParams) -> Artifact:
        """A trained explainer, of the kind that its settings are of."""
        kind = params.kind
        spec = {"surrogate": self.surrogate.key, **_asked(params), "seed": self.seed, "revision": REVISION}

        def make(workdir: Path) -> None:
            network, surrogate = self.untrained(params), self.network("surrogate")
            self._begin(network, surrogate)
            module = self._module(network, surrogate, params, f"{kind}/{self.data.name}")
            self.train(module, params.fit, workdir, _called(params), params.snapshots)
            self.write(workdir, kind, network, **self._said(params))
            for share in params.snapshots:
                module.load_state_dict(kept_weights(workdir, on_the_way(share)))
                self.write(workdir, kind, network, _snapshot(share), **self._said(params))

        return self.get(kind, spec, make)

    def explainer(self, params: LearnedParams, artifact: Artifact, share: float = 1.0) -> Any:
        """An explainer from the store after a share of its training, on the device, in evaluation mode."""
        network = self.untrained(params)
        file = artifact.file(FILES[params.kind] if share == 1 else _snapshot(share))
        load_weights(network, read_weights(file, what=params.kind).tensors, what=params.kind, model=self.model.name)
        return network.to(self.runtime.trainer.device).eval().requires_grad_(False)

    def untrained(self, params: LearnedParams) -> Any:
        """The explainer before its training, with weights of its own; UserError: the network does not fit it."""
        raise NotImplementedError

    def _begin(self, network: Any, surrogate: Any) -> None:
        """An explainer starts where the classifier has arrived."""
        arrived, own = surrogate.network.state_dict(), network.backbone.state_dict()
        network.backbone.load_state_dict({name: arrived[name] for name in own})

    def _module(self, network: Any, surrogate: Any, params: Any, stage: str) -> LightningModule:
        """The training of an explainer."""
        raise NotImplementedError

    def _said(self, params: Any) -> dict[str, Any]:
        """What its file says of its decoder."""
        raise NotImplementedError


def _asked(params: LearnedParams) -> dict[str, Any]:
    """What a training is made of; one of before there was a choice keeps its key."""
    values = asdict(params)
    if not values.get("anchored", True):
        del values["anchored"]
    if values.get("anchored") and values["temperature"] != 1:
        values["anchor"] = "temperature"  # it was not heeded before
    if isinstance(params, VitShapleyParams) and params.sampling in ("paired", "shapley_kernel"):
        del values["weighted"]
        if params.sampling == "paired":
            del values["sampling"]
    return values


def _called(params: LearnedParams) -> str:
    """What the training of an explainer is called: with its masks and loss, where they are not the paper's."""
    usual = {field.name: field.default for field in fields(params)}
    apart = [
        str(value)
        for name in ("sampling", "divergence")
        if (value := getattr(params, name, None)) is not None and value != usual[name]
    ]
    if getattr(params, "anchored", False):
        apart.append("anchored")
    if getattr(params, "weighted", True) is False and "sampling" in _asked(params):
        apart.append("unweighted")
    return f"{params.kind} ({', '.join(apart)})" if apart else params.kind


def _snapshot(share: float) -> str:
    """The file of an explainer after a share of its training."""
    return f"snapshots/{share:g}.safetensors"
