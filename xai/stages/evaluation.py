"""What a self-explaining CLIP says of images, in batches."""

from dataclasses import dataclass

import torch
from torch import Tensor

from xai.models.clip import SelfExplainingClip


@dataclass(frozen=True)
class Maps:
    """What a row of the table says of N images: attributions [N, h, w] and, where it is a classifier, logits [N, C]."""

    attributions: Tensor
    logits: Tensor | None = None


@torch.inference_mode()
def self_explanation(network: SelfExplainingClip, pixels: Tensor, columns: Tensor, batch: int = 128) -> Maps:
    """One forward pass an image: its logits, and the attributions of one class.

    Args:
        network: The classifier.
        pixels: [N, 3, H, W] in [0, 1].
        columns: [N] the class to explain of each image.
        batch: Images a pass.

    Returns:
        Attributions [N, h, w] and logits [N, C], on the CPU.
    """
    device = network.head.device
    logits, maps = [], []
    for rows in torch.arange(len(pixels)).split(batch):
        explained = network.explain(pixels[rows].to(device))
        index = columns[rows].to(device)[:, None, None].expand(-1, explained.attributions.shape[1], 1)
        maps.append(explained.attributions.gather(2, index).reshape(-1, *network.grid).float().cpu())
        logits.append(explained.logits.float().cpu())
    return Maps(torch.cat(maps), torch.cat(logits))
