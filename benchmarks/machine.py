"""What was measured on: the machine, its own rate of matrix products, and the versions."""

import os
import platform
import time
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.setup import Setup
from xai import __version__

_PACKAGES = {"torch": "torch", "open_clip": "open_clip_torch", "timm": "timm", "shap": "shap", "captum": "captum"}


def description() -> str:
    """Two lines of markdown: processor, cores and card; versions of what took part."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parts = [_processor(), f"{cores} core{'s' if cores > 1 else ''}"]
    parts += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] or ["no GPU"]
    if not hasattr(os, "sched_getaffinity"):
        parts.append("where no process can be kept to its cores: ours may use more than one")
    packages = ", ".join(f"{name} {version(package)}" for name, package in _PACKAGES.items())
    return f"Machine: {', '.join(parts)}.\nVersions: xai {__version__}, {packages}, Python {platform.python_version()}."


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8", errors="replace").splitlines() if listed.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor() or platform.machine()


def matmul_rate(setup: Setup, side: int = 8192, products: int = 20) -> float:
    """The most a card can be asked for: FLOP/s of large square matrix products in the precision of a setup.

    Args:
        setup: The device and its precision.
        side: Rows and columns of the matrices.
        products: How many are timed at once; the best of five such times counts.
    """
    setup.confine()
    matrix = torch.randn(side, side, device=setup.device, generator=torch.Generator(setup.device).manual_seed(0))
    matrix = matrix.to(torch.bfloat16 if setup.bf16 else torch.float32)
    seconds = []
    for _ in range(6):
        setup.synchronise()
        start = time.perf_counter()
        for _ in range(products):
            matrix @ matrix
        setup.synchronise()
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 * products / min(seconds[1:])
