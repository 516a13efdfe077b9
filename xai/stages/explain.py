"""`method=explain`: one picture, one forward pass, one heat map."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from xai.config import unknown
from xai.data.images import read_image, to_tensor
from xai.errors import UserError
from xai.models.checkpoint import read_classifier
from xai.models.explainer import SalvageNetwork
from xai.models.factory import ClipParams
from xai.models.segmenter import build_decoder
from xai.models.vit import VitParams, build_vit, outputs_of
from xai.models.vit_file import load_vit, read_vit
from xai.training import TrainerParams


@dataclass(frozen=True)
class Explanation:
    """What the classifier says of a picture.

    Args:
        pixels: [3, H, W] in [0, 1], as the classifier saw it.
        attributions: [h, w] of the explained class.
        target: Name of the explained class.
        predicted: Name of the predicted class.
        probability: Of the explained class.
        explains: Whether the classifier has learned to explain.
    """

    pixels: Tensor
    attributions: Tensor
    target: str
    predicted: str
    probability: float
    explains: bool


@torch.inference_mode()
def explain_image(
    model: ClipParams | VitParams, checkpoint: Path, image: Path, target: str | None, trainer: TrainerParams
) -> Explanation:
    """Explain a picture for the predicted class, or for the class called `target`.

    A self-explaining CLIP and a SALVAGE explainer are classifiers, so their own prediction is what they explain.

    Raises:
        UserError: For a picture or checkpoint that cannot be read, or a class the classifier does not know.
    """
    pixels = to_tensor(read_image(image), model.image_size)
    read = _of_salvage(model, checkpoint) if isinstance(model, VitParams) else _of_clip(model, checkpoint)
    network, classes, grid, explains = read
    if target is not None and target not in classes:
        raise UserError(unknown(f"target={target}", target, classes, "class"))
    logits, attributions = network.to(trainer.device)(pixels[None].to(trainer.device))
    predicted = int(logits[0].argmax())
    chosen = predicted if target is None else classes.index(target)
    return Explanation(
        pixels,
        attributions[0, :, chosen].reshape(grid).float().cpu(),
        classes[chosen],
        classes[predicted],
        float(logits[0].softmax(0)[chosen]),
        explains,
    )


class _Explaining(nn.Module):
    """Images to logits [B, C] and attributions [B, M, C]."""

    def __init__(self, network: nn.Module, explain: Callable[[Tensor], tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.network, self._explain = network, explain

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self._explain(images)


_Read = tuple[_Explaining, tuple[str, ...], tuple[int, int], bool]
"""What explains, its classes, its patch grid, and whether it has learned to explain."""


def _of_clip(model: ClipParams, checkpoint: Path) -> _Read:
    _, other = read_vit(checkpoint)
    if other is not None:
        raise UserError(
            f"{checkpoint} is a {other.kind} of model={other.model}, not of {model.name}: add model={other.model}"
        )
    network, info = read_classifier(checkpoint, model)

    def explain(images: Tensor) -> tuple[Tensor, Tensor]:
        found = network.explain(images)
        return found.logits, found.attributions

    return _Explaining(network, explain), info.classes, network.grid, info.explains


def _of_salvage(model: VitParams, checkpoint: Path) -> _Read:
    tensors, info = read_vit(checkpoint)
    if info is None or info.kind != "salvage":
        what = "says nothing of itself" if info is None else f"is a {info.kind}"
        raise UserError(f"{checkpoint} {what}: give the salvage.safetensors of a run of method=salvage")
    outputs = outputs_of(len(info.classes), info.binary)
    backbone = build_vit(model, outputs, 0)
    decoder = build_decoder(info.decoder, backbone.embed_dim, 2 * outputs, info.decoder_depth, info.decoder_heads)
    network = SalvageNetwork(backbone, decoder, model.mean, model.std)
    load_vit(network, tensors, f"checkpoint {checkpoint}", model.name)

    def explain(images: Tensor) -> tuple[Tensor, Tensor]:
        parts = network.parts(images)
        return parts.present.sum(1), parts.present - parts.absent

    return _Explaining(network.eval(), explain), info.classes, network.grid, True
