"""Where and how a job computes: settings, which are checked before torch is imported wherever that can be."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from xai.core.settings import Count, FieldError, NonNegative, settings

if TYPE_CHECKING:
    import torch


@settings
class TrainerParams:
    """Where and how to compute.

    Args:
        accelerator: `auto` (a GPU where there is one), `cpu` or `gpu`.
        precision: `32-true`, `bf16-mixed` or `16-mixed`.
        devices: How many GPUs train together, or processes on the CPU. Each takes `batch_size` images a step, so a step
            sees `batch_size * devices`. What is not training uses one.
        workers: Processes that read images from disk in training, for each device, and threads that do when a split is
            explained.
        threads: Threads of one tensor operation on the CPU; null gives small models one and others all cores.
        checkpoint_minutes: The most work that is lost when a training is killed; 0 writes a checkpoint after each step.
    """

    accelerator: Literal["auto", "cpu", "gpu", "cuda"] = "auto"
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    devices: Count = 1
    workers: Annotated[int, Field(ge=0, le=1024)] = 0
    threads: Count | None = None
    checkpoint_minutes: NonNegative = 5.0

    def __post_init__(self) -> None:
        """Refuse what this machine or Lightning does not have."""
        if self.accelerator in ("auto", "cpu") and self.precision != "16-mixed" and self.devices == 1:
            return  # without torch
        import torch

        if self.accelerator in ("gpu", "cuda") and not torch.cuda.is_available():
            raise FieldError("accelerator", "needs a GPU, and none is visible: use trainer=cpu")
        if self.precision == "16-mixed" and self.device.type == "cpu":
            raise FieldError("precision", "needs a GPU: use bf16-mixed or 32-true on a CPU")
        if self.devices == 1:
            return
        if self.device.type == "cuda" and self.devices > (visible := torch.cuda.device_count()):
            raise FieldError("devices", f"is more than the {visible} GPU(s) that are visible: use that many at most")
        if "LOCAL_RANK" in os.environ:
            raise FieldError("devices", "starts the processes itself: start the job once, without torchrun")

    @property
    def device(self) -> "torch.device":
        """Where to compute: of several GPUs the one that torchrun or SLURM give this process, where they do."""
        import torch

        if self.accelerator == "cpu" or not torch.cuda.is_available():
            return torch.device("cpu")
        local = os.environ.get("LOCAL_RANK", os.environ.get("SLURM_LOCALID", ""))
        # SLURM may show each process one GPU only, which then is number 0 for all of them.
        if local.isdecimal() and int(local) < torch.cuda.device_count():
            return torch.device("cuda", int(local))
        return torch.device("cuda")

    @contextmanager
    def autocast(self) -> Iterator[None]:
        """The trainer's precision for what is not training."""
        import torch

        dtype = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision)
        with torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not None):
            yield
