"""Base weights theta_base: pre-trained by the framework itself, or read from an open_clip checkpoint."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from open_clip.model import CLIP
from pydantic import Field
from torch import Tensor
from torch.utils.data import DataLoader

from xai.core.errors import UserError
from xai.core.files import fingerprint_file
from xai.core.launching import own_cores
from xai.core.optimisation import FitParams
from xai.core.runtime import Runtime
from xai.core.settings import Count, FieldError, NonNegative, Positive, Share, Whole, settings
from xai.core.store import Artifact
from xai.core.training import EpochDataModule, fit
from xai.data.captions import CaptionedGlyphs, GlyphStream
from xai.data.catalogue import OpenData
from xai.data.module import StepSampler
from xai.data.scatter import ScatterParams
from xai.methods.contrastive import ContrastivePretraining
from xai.models.clip import class_embeddings, visual_tower
from xai.models.factory import ClipParams, base_weights_file, build_clip, build_tokenizer, load_base, read_base_weights
from xai.models.weights import fingerprint, read_weights, write_weights

_REVISION = 1
_STEPS_BETWEEN_CHECKPOINTS = 50


@settings
class PretrainParams:
    """Contrastive pre-training of the embedded model.

    Args:
        steps: Steps in all.
        focused_steps: How many of them see only the patches around the object.
        batch_size: Scenes a step; small batches make many steps, which matters most.
        learning_rate: Peak of the schedule.
        weight_decay: AdamW's decay.
        warmup: Share of the steps with a rising rate.
        clip: Largest gradient norm.
        scene: The layout of the scenes.
    """

    steps: Annotated[int, Field(ge=1, multiple_of=_STEPS_BETWEEN_CHECKPOINTS)]
    focused_steps: Whole
    batch_size: Count
    learning_rate: Positive
    weight_decay: NonNegative
    warmup: Share
    clip: NonNegative
    scene: ScatterParams

    def __post_init__(self) -> None:
        """Refuse more steps of one kind than there are."""
        if self.focused_steps > self.steps:
            raise FieldError("focused_steps", f"must be at most steps={self.steps}")

    @property
    def fit(self) -> FitParams:
        """The optimisation, an epoch being the steps between two checkpoints."""
        epochs = self.steps // _STEPS_BETWEEN_CHECKPOINTS
        return FitParams(epochs, self.batch_size, self.learning_rate, self.weight_decay, self.warmup, self.clip)


@settings
class ModelParams(ClipParams):
    """A CLIP model and, for the embedded one, how its base weights come about."""

    pretraining: PretrainParams | None = None

    def __post_init__(self) -> None:
        """Refuse scenes of the pre-training that do not fit, and settings that would be ignored without a word."""
        super().__post_init__()
        if self.random_weights and self.weights is not None:
            raise FieldError("weights", "and random_weights=true exclude each other: set one")
        if not self.embedded and self.pretraining is not None:
            raise FieldError("name", "is an open_clip model, which is not pre-trained here: drop pretraining")
        if self.embedded:
            for name in ("weights", "pretrained"):
                if getattr(self, name) is not None:
                    raise FieldError(
                        name,
                        f"does nothing for {self.name}, which is pre-trained here: use model=clip_vit_b32 for "
                        "open_clip weights",
                    )
            if self.pretraining is not None and self.pretraining.scene.canvas != self.image_size:
                raise FieldError("pretraining.scene.canvas", f"must equal image_size={self.image_size}")


class _Stream(EpochDataModule):
    def __init__(self, stream: GlyphStream) -> None:
        super().__init__()
        self._stream = stream

    def train_dataloader(self) -> DataLoader[CaptionedGlyphs]:
        sampler = StepSampler(_STEPS_BETWEEN_CHECKPOINTS, self.rank, self.ranks)
        sampler.start_at(self.first_epoch, self.first_batch)
        # A seventh of a step is spent on drawing, which a core that is left does beside it.
        is_left = own_cores() > torch.get_num_threads()
        return DataLoader(self._stream, None, sampler=sampler, num_workers=is_left, persistent_workers=is_left)


def base_weights(runtime: Runtime, model: ModelParams, seed: int) -> Artifact:
    """The base weights of a model as an artifact (`base.safetensors`).

    The seed matters to the embedded model only: real ones come from one checkpoint.
    """
    shape: dict[str, Any] = {"image_size": model.image_size, "patch_size": model.patch_size}
    if model.activates_quickly:
        # The same tensors with another activation are other weights.
        shape["quick_gelu"] = True
    if not model.embedded and model.random_weights:
        spec = {**shape, "architecture": model.architecture, "random": True, "seed": seed}
        return runtime.store.get("base", spec, lambda work: _write(work, build_clip(model, seed).state_dict(), model))
    if not model.embedded:
        path = base_weights_file(model)
        if not path.is_file():
            read_weights(path, what="base weights")
        spec = {**shape, "architecture": model.architecture, "sha256": fingerprint_file(path)}
        return runtime.store.get("base", spec, lambda work: _write(work, read_base_weights(model, path), model))
    if model.pretraining is None:
        raise UserError(
            f"model={model.name} has no weights of its own and no pretraining settings: use model=clip_tiny"
        )
    assert model.towers is not None
    normalisation = {"mean": model.mean, "std": model.std}
    training = {"towers": asdict(model.towers), "pretraining": asdict(model.pretraining)}
    spec = runtime.with_precision({**shape, **normalisation, **training, "seed": seed, "revision": _REVISION})
    return runtime.store.get(
        "base", spec, lambda work: _pretrain(runtime, model, seed, work), title=f"base weights of {model.name}"
    )


def _pretrain(runtime: Runtime, model: ModelParams, seed: int, workdir: Path) -> None:
    assert model.pretraining is not None
    params, clip = model.pretraining, build_clip(model, seed)
    stream = GlyphStream(build_tokenizer(model), params.scene, model.patch_size, params.batch_size, params.steps, seed)
    module = ContrastivePretraining(clip, params.fit, params.focused_steps, list(model.mean), list(model.std))
    fit(module, _Stream(stream), params.fit, runtime.trainer, workdir, f"base weights of {model.name}", runtime.logger)
    _write(workdir, clip.state_dict(), model)


def _write(workdir: Path, state: Mapping[str, Tensor], model: ModelParams) -> None:
    write_weights(workdir / "base.safetensors", dict(state), {"model": model.name})


@dataclass(frozen=True)
class Base:
    """Base weights that have been loaded; the fingerprint is of theta_base."""

    artifact: Artifact
    clip: CLIP
    fingerprint: str

    @property
    def theta(self) -> dict[str, Tensor]:
        """theta_base, the parameters of the visual tower; they are those of `clip`."""
        return visual_tower(self.clip.state_dict())


def load(model: ModelParams, artifact: Artifact) -> Base:
    """Load base weights."""
    tensors = read_weights(artifact.file("base.safetensors"), what="base weights").tensors
    return Base(artifact, load_base(model, tensors), fingerprint(visual_tower(tensors)))


def head(runtime: Runtime, model: ModelParams, base: Base, data: OpenData) -> tuple[Artifact, Tensor]:
    """The fixed class embeddings W [K, C] of a data set, as an artifact and as a tensor."""
    classes, templates = list(data.source.classes), list(data.source.templates)
    spec: dict[str, Any] = {"base": base.artifact.key, "classes": classes, "templates": templates}

    def make(workdir: Path) -> None:
        embeddings = class_embeddings(base.clip, build_tokenizer(model), classes, templates)
        write_weights(workdir / "head.safetensors", {"head": embeddings}, {"base": base.artifact.key})

    artifact = runtime.store.get("head", spec, make, title=f"class embeddings of {data.name}")
    return artifact, read_weights(artifact.file("head.safetensors"), what="class embeddings").tensors["head"]
