"""What the tests of SALVAGE's methods share: networks of 2 x 2 patches, a batch, and a few steps of Lightning."""

from collections.abc import Sequence
from typing import Any, TypeVar

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from xai.core.optimisation import FitParams
from xai.data.module import Batch
from xai.models.explainer import ExplainerNetwork, MaskTransformer
from xai.models.timm_vit import MaskableVit
from xai.models.vit import SmallVit, VitParams

PARAMS = VitParams("tiny", 8, 4, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), tower=SmallVit(8, 1, 2, 2.0, 1, 0.3))
PLAYERS = 4
FIT = FitParams(epochs=1, batch_size=6, learning_rate=1e-2, weight_decay=0.0, warmup=0.0, clip=0.0)
Network = TypeVar("Network", bound=ExplainerNetwork)


def classifier(outputs: int = 3, seed: int = 0) -> MaskableVit:
    """Frozen, and with weights that make its answers depend on what it sees."""
    network = PARAMS.build(outputs, seed)
    generator = torch.Generator().manual_seed(seed)
    for value in network.parameters():
        value.data += 0.5 * torch.randn(value.shape, generator=generator)
    return PARAMS.maskable(network).eval().requires_grad_(False)


def explainer(kind: type[Network], outputs: int = 3, *, parts: int = 2, seed: int = 0) -> Network:
    """Untrained: its decoder starts at zero. SALVAGE has two parts, ViT-Shapley one."""
    backbone = PARAMS.build(outputs, seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(backbone, MaskTransformer(8, parts * outputs, 1, 2), PARAMS.mean, PARAMS.std)


def speaking(network: Network) -> Network:
    """The same, with a decoder that says something."""
    torch.nn.init.normal_(network.decoder.patch_projection.weight, generator=torch.Generator().manual_seed(2))
    return network


def batch(images: int = 6, classes: int = 3, seed: int = 0) -> Batch:
    """Random pictures, the object of each in one patch."""
    generator = torch.Generator().manual_seed(seed)
    regions = torch.zeros(images, 8, 8, dtype=torch.bool)
    for image in range(images):
        top, left = 4 * (image % 2), 4 * (image // 2 % 2)
        regions[image, top + 1 : top + 3, left + 1 : left + 3] = True
    pixels = torch.rand(images, 3, 8, 8, generator=generator)
    return Batch(pixels, torch.arange(images) % classes, regions, None)


class Losses(pl.Callback):
    """Remembers the loss of every step."""

    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.seen.append(float(outputs["loss"]))


def train(module: pl.LightningModule, batches: Sequence[Batch], precision: Any = "32-true") -> tuple[list[float], Any]:
    """One epoch of Lightning over some batches; the losses, and the checkpoint it would write."""
    losses = Losses()
    trainer = pl.Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision=precision,
        callbacks=[losses],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module.train(), DataLoader(list(batches), batch_size=None))
    return losses.seen, trainer._checkpoint_connector.dump_checkpoint(weights_only=False)


def copied(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(before: dict[str, Tensor], module: torch.nn.Module) -> bool:
    after = module.state_dict()
    return before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def check_mixed_precision(module: pl.LightningModule) -> None:
    """A few steps in bfloat16 leave losses and weights finite."""
    losses, _ = train(module, [batch()] * 3, precision="bf16-mixed")
    assert torch.tensor(losses).isfinite().all()
    assert all(value.isfinite().all() for value in module.parameters())


def check_trained(network: torch.nn.Module, start: dict[str, Tensor], name: str, checkpoint: Any) -> None:
    """The network has moved from its start, and it alone is what the checkpoint holds, under a name."""
    assert not same(start, network)
    assert set(checkpoint["state_dict"]) == {f"{name}.{key}" for key in network.state_dict()}


def check_untouched(network: torch.nn.Module, before: dict[str, Tensor]) -> None:
    """The network is what it was and has collected no gradient."""
    assert same(before, network)
    assert all(value.grad is None for value in network.parameters())
