"""`method=explain`: one picture, one forward pass, one heat map."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from xai.config import unknown
from xai.data.images import read_image, to_tensor
from xai.errors import UserError
from xai.models.checkpoint import read_classifier
from xai.models.factory import ClipParams
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
    model: ClipParams, checkpoint: Path, image: Path, target: str | None, trainer: TrainerParams
) -> Explanation:
    """Explain a picture for the predicted class, or for the class called `target`.

    Raises:
        UserError: For a picture or checkpoint that cannot be read, or a class the classifier does not know.
    """
    pixels = to_tensor(read_image(image), model.image_size)
    network, info = read_classifier(checkpoint, model)
    if target is not None and target not in info.classes:
        raise UserError(unknown(f"target={target}", target, info.classes, "class"))
    logits, attributions = network.to(trainer.device).explain(pixels[None].to(trainer.device))
    predicted = int(logits[0].argmax())
    chosen = predicted if target is None else info.classes.index(target)
    return Explanation(
        pixels,
        attributions[0, :, chosen].reshape(network.grid).float().cpu(),
        info.classes[chosen],
        info.classes[predicted],
        float(logits[0].softmax(0)[chosen]),
        info.explains,
    )
