"""Networks such as people bring, small and with random weights."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

SIZE = 32
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


class Plain(nn.Module):
    """A CNN with a BatchNorm, of `channels` to `outputs`."""

    def __init__(self, channels: int = 3, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.features = nn.Sequential(nn.Conv2d(channels, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.head = nn.Linear(8, outputs)

    def forward(self, images: Tensor) -> Any:
        return self.head(self.features(images).mean((2, 3)))


class Frozen(Plain):
    """A network that keeps no gradients."""

    def forward(self, images: Tensor) -> Any:
        with torch.no_grad():
            return super().forward(images)


class Returns(nn.Module):
    """A network whose logits are handed on in another form."""

    def __init__(self, form: Any, **shape: int) -> None:
        super().__init__()
        self.inner, self.form = Plain(**shape), form

    def forward(self, images: Tensor) -> Any:
        return self.form(self.inner(images))


def vit(outputs: int = 3) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=outputs, img_size=SIZE).eval()


def images(count: int = 2) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1))


def normalised(pixels: Tensor, mean: Any = MEAN, std: Any = STD) -> Tensor:
    return (pixels - torch.tensor(mean).reshape(3, 1, 1)) / torch.tensor(std).reshape(3, 1, 1)
