"""BatchNorm over the images of all processes that train together; for the CPU, where torch has none, our own."""

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn.modules.batchnorm import _BatchNorm


class SharedBatchNorm(_BatchNorm):
    """Normalises by mean and variance over the images of all processes, as `torch.nn.SyncBatchNorm` does on GPUs.

    Every process must give as many values as the others.
    """

    def forward(self, values: Tensor) -> Tensor:
        """Values [B, D, ...] to the same shape."""
        if not self.training:
            return super().forward(values)
        dims = [0, *range(2, values.ndim)]
        shape = (1, -1, *(1 for _ in dims[1:]))
        mean = _mean_over_processes(values.mean(dims))
        centred = values - mean.view(shape)
        variance = _mean_over_processes(centred.square().mean(dims))
        self._remember(mean.detach(), variance.detach(), values.numel() // values.shape[1])
        normalised = centred * (variance + self.eps).rsqrt().view(shape)
        return normalised * self.weight.view(shape) + self.bias.view(shape) if self.affine else normalised

    def _remember(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
        count *= distributed.get_world_size()
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)

    def _check_input_dim(self, input: Tensor) -> None:
        # What may come is what the BatchNorm in whose place this stands has let through.
        pass


def share_batch_norms(module: nn.Module, device: torch.device) -> None:
    """Make every BatchNorm of a module take its statistics over all processes; its tensors and their names stay."""
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(module)
        return
    for part in module.modules():
        if isinstance(part, _BatchNorm):
            part.__class__ = SharedBatchNorm


class _MeanOverProcesses(torch.autograd.Function):
    """Its own adjoint: what each process adds to the mean of all, the gradients of all add to its own."""

    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        total = value.clone()
        distributed.all_reduce(total)
        return total / distributed.get_world_size()

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        return _mean_over_processes(gradients[0].contiguous())


def _mean_over_processes(value: Tensor) -> Tensor:
    mean: Tensor = _MeanOverProcesses.apply(value)
    return mean
