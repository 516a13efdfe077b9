"""Small classifiers of real digits, trained in a minute, for questions that random weights cannot answer."""

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from xai.data import catalogue, registry
from xai.models.maskable import Removal
from xai.models.timm_vit import MaskableVit
from xai.models.weights import read_weights, write_weights

Say = Callable[[str], None]

_SIDE = 28


@dataclass(frozen=True)
class Digits:
    """Centred digits of MNIST: images [N, 3, 28, 28] in [0, 1] and labels [N]."""

    images: Tensor
    labels: Tensor


def digits(split: str) -> Digits:
    """A split of the packaged MNIST."""
    catalogue.fill()
    entry = registry.entry("mnist5k")
    source = entry.open(entry.params())
    labels = source.labels(split)
    return Digits(source.images(split, torch.arange(len(labels)), 0).pixels, labels)


def classifier(patch: int, steps: int, folder: Path, say: Say) -> MaskableVit:
    """A ViT that has learned to tell digits apart from what is left of them.

    Each training image shows a random share of its patches, so that the value of a coalition means something; removed
    patches are dropped tokens. Trained once and kept in `folder`.

    Args:
        patch: Side of a patch in pixels, a divisor of 28.
        steps: Of training.
        folder: Where the weights are kept.
        say: Told what is going on.
    """
    torch.manual_seed(0)
    network = VisionTransformer(
        img_size=_SIDE, patch_size=patch, num_classes=10, embed_dim=64, depth=3, num_heads=4, mlp_ratio=2
    )
    model = MaskableVit(network, (0.5,) * 3, (0.5,) * 3, Removal("tokens"))
    file = folder / f"digits_patch{patch}_{steps}.safetensors"
    if file.exists():
        network.load_state_dict(read_weights(file, what="classifier").tensors)
        return model.eval().requires_grad_(False)
    data, generator = digits("train"), torch.Generator().manual_seed(1)

    def loss(rows: Tensor) -> Tensor:
        # One size for the whole batch: then no sequence of the step is longer than another.
        size = int(torch.randint(1, model.players + 1, (), generator=generator))
        keep = torch.rand(len(rows), model.players, generator=generator).argsort(1).argsort(1) < size
        return F.cross_entropy(model(data.images[rows], keep), data.labels[rows])

    _fit(network, loss, len(data.labels), steps, generator, lambda line: say(f"digits, patch {patch}: {line}"))
    file.parent.mkdir(parents=True, exist_ok=True)
    write_weights(file, dict(network.state_dict()), {})
    seen = digits("validation")
    with torch.inference_mode():
        accuracy = (model.eval()(seen.images).argmax(1) == seen.labels).float().mean()
    say(f"digits, patch {patch}: validation accuracy {accuracy:.3f}")
    return model.requires_grad_(False)


def amortised(model: MaskableVit, targets: Tensor, data: Digits, steps: int, say: Say) -> nn.Module:
    """A network that guesses Shapley values in one pass, from noisy estimates of them (stochastic amortisation).

    Args:
        model: The classifier that is explained; the network starts from its weights.
        targets: [N, M] estimates of the true class's values.
        data: The N images; the network is told the class it is asked about.
        steps: Of training.
        say: Told what is going on.

    Returns:
        (images [B, 3, 28, 28], labels [B]) to guesses [B, M].
    """
    torch.manual_seed(0)
    network, scale = _Amortised(copy.deepcopy(model.network)), float(targets.std())
    generator = torch.Generator().manual_seed(2)

    def loss(rows: Tensor) -> Tensor:
        return F.mse_loss(network(data.images[rows], data.labels[rows]) / scale, targets[rows] / scale)

    _fit(network, loss, len(targets), steps, generator, lambda line: say(f"amortised explainer: {line}"))
    return network.eval().requires_grad_(False)


class _Amortised(nn.Module):
    def __init__(self, tower: VisionTransformer) -> None:
        super().__init__()
        self.tower = tower.requires_grad_(True)
        self.head = nn.Linear(tower.embed_dim, 10)

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        maps = self.head(self.tower.forward_features((images - 0.5) / 0.5)[:, 1:])
        return maps.gather(2, labels[:, None, None].expand(-1, maps.shape[1], 1))[..., 0]


def _fit(
    network: nn.Module, loss: Callable[[Tensor], Tensor], size: int, steps: int, generator: torch.Generator, say: Say
) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
    warmup = max(1, steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warmup, 0.5 + 0.5 * math.cos(math.pi * step / steps))
    )
    for step in range(steps):
        value = loss(torch.randint(size, (64,), generator=generator))
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            say(f"step {step + 1} of {steps}, loss {value.item():.3f}")
