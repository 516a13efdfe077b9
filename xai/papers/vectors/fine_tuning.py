"""Fine-tuning theta: the prediction-only classifier theta_ft, and the self-explaining theta_ft*."""

from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.optimisation import FitParams
from xai.core.runtime import Runtime
from xai.core.store import Artifact
from xai.core.training import fit
from xai.data.catalogue import OpenData
from xai.data.module import ImageDataModule, OtherColumn
from xai.data.registry import subset
from xai.methods.self_explainer import SelfExplainer, check_alpha
from xai.models import files
from xai.models.clip import SelfExplainingClip, load_parameters, visual_tower
from xai.models.factory import build_explainer
from xai.models.maskable import Removal
from xai.models.spec import Spec, describe
from xai.models.weights import read_weights
from xai.papers.vectors import base as base_stage
from xai.papers.vectors.base import Base, ModelParams
from xai.study.blocks import read_blocks
from xai.study.case import ExplainedModel

FILE = "classifier.safetensors"
_REVISION = 1


@dataclass(frozen=True)
class Domain:
    """A CLIP in a domain: what is fine-tuned from theta_base on a data set, and the classifiers that parameters make.

    Args:
        runtime: Where to work.
        model: The CLIP.
        base: Its base weights; every fine-tuning starts there.
        data: The data set, whose words the class embeddings are of.
    """

    runtime: Runtime
    model: ModelParams
    base: Base
    data: OpenData

    def fine_tune(
        self,
        params: FitParams,
        seed: int,
        *,
        images: int | None = None,
        fixed: bool = False,
        alpha: float = 1.0,
        supervision: Artifact | None = None,
        other: Artifact | None = None,
    ) -> Artifact:
        """Fine-tune from theta_base on the train split (section 4.2).

        Args:
            params: The optimisation.
            seed: Of the order of images, and of the subset.
            images: Size of the subset; None takes all.
            fixed: Keep each image as it looks in epoch 0.
            alpha: The balance of equation 4; 1 trains a classifier only.
            supervision: Maps of these images (kind `maps`), of their true classes; needed where alpha is below 1.
            other: Maps of the same images, of one other class each, which are learned as well.

        Returns:
            An artifact with `classifier.safetensors`.
        """
        check_alpha(alpha)
        runtime, model, data = self.runtime, self.model, self.data
        head_artifact, head = base_stage.head(runtime, model, self.base, data)
        spec = runtime.with_precision(
            {
                "head": head_artifact.key,
                "data": data.spec,
                "fit": asdict(params),
                "images": images,
                "seed": seed,
                "fixed": fixed or supervision is not None or not data.source.varies,
                "alpha": alpha,
                "supervision": supervision.key if supervision else None,
                "image_size": model.image_size,
                "mean": model.mean,
                "std": model.std,
                "revision": _REVISION,
                **({} if other is None else {"other": other.key}),
            }
        )
        explains = alpha < 1
        kind = "explainer" if explains else "classifier"
        title = f"{kind} of {data.name}" + (f", alpha {alpha:g}" if explains else "")

        def make(workdir: Path) -> None:
            classifier = build_explainer(model, self.base.clip, head, copied=True).requires_grad_(True)
            rows = subset(data.source, "train", images, seed)
            labels = data.source.labels("train")[rows]
            reference = None if supervision is None else _reference(supervision, rows, labels, classifier.grid)
            second = None
            if other is not None:
                classes = read_blocks(other)["targets"]  # whoever had them explained has drawn them
                second = OtherColumn(classes, _reference(other, rows, classes, classifier.grid).flatten(1))
            read = (data.source, model.image_size, params.batch_size, seed, rows, fixed, reference)
            batches = ImageDataModule(*read, workers=runtime.trainer.workers, other=second)
            learner = SelfExplainer(classifier, params, alpha, f"{kind}/{data.name}")
            fit(learner, batches, params, runtime.trainer, workdir, title, runtime.logger)
            files.write(workdir / FILE, classifier, self.described(explains, seed))

        return runtime.store.get(kind, spec, make, title=title)

    def described(self, explains: bool, seed: int | None = None) -> Spec:
        """What a classifier's file says of itself."""
        kind = "self_explaining" if explains else "classifier"
        return describe(self.model, kind, self.data, self.data.source.classes, seed=seed, base=self.base.fingerprint)

    def assemble(self, theta: dict[str, Tensor] | None, removal: Removal | None = None) -> SelfExplainingClip:
        """A classifier from parameters theta (None: theta_base), on the device, in evaluation mode."""
        _, head = base_stage.head(self.runtime, self.model, self.base, self.data)
        classifier = build_explainer(self.model, self.base.clip, head, removal, copied=True)
        if theta is not None:
            load_parameters(classifier, theta)
        return classifier.to(self.runtime.trainer.device).eval().requires_grad_(False)

    def explained(self, classifier: Artifact, networks: Any = None) -> ExplainedModel:
        """A fine-tuned classifier as what a case explains; all cases of it share one network for each removal."""

        @cache
        def make(removal: Removal | None) -> SelfExplainingClip:
            return self.assemble(parameters(classifier), removal)

        model, classes = self.model, tuple(self.data.source.classes)
        return ExplainedModel(
            model.name, lambda: classifier.key, model.image_size, tuple(model.mean), classes, make, networks
        )


def parameters(artifact: Artifact) -> dict[str, Tensor]:
    """The parameters theta of a fine-tuned model."""
    return visual_tower(read_weights(artifact.file(FILE), what="classifier").tensors)


def _reference(supervision: Artifact, rows: Tensor, labels: Tensor, grid: tuple[int, int]) -> Tensor:
    """The attributions [N, h, w] of these classes of exactly these rows of the train split."""
    stored = read_blocks(supervision)
    wanted = f"make supervision of these {len(rows)} images for this model"
    if not torch.equal(stored["rows"], rows):
        raise UserError(f"{supervision.path} explains other images than the ones to be trained on: {wanted}")
    if not torch.equal(stored["targets"], labels):
        raise UserError(f"{supervision.path} explains other classes than the labels to be trained on: {wanted}")
    if stored["attributions"].shape != (len(rows), *grid):
        held = " x ".join(map(str, stored["attributions"].shape))
        raise UserError(
            f"{supervision.path} holds attributions of {held}, and {len(rows)} x {grid[0]} x {grid[1]} are needed: "
            f"{wanted}"
        )
    return stored["attributions"]
