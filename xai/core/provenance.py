"""What made a number: versions of the packages, the commit, the memory that it took."""

import resource
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

_PACKAGES = ("torch", "pytorch-lightning", "open_clip_torch", "timm", "numpy")


def peak_memory(device: "torch.device") -> int:
    """The most bytes in use so far: on a GPU by its tensors, on a CPU by the process."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # macOS counts bytes, the others KiB.
    return peak if sys.platform == "darwin" else peak * 1024


@cache
def provenance() -> dict[str, Any]:
    """Versions of the packages that make the numbers, and the commit of this repository where there is one."""
    from xai import __version__

    root = Path(__file__).resolve().parents[2]
    return {"versions": {"xai": __version__, **{name: version(name) for name in _PACKAGES}}, "commit": commit_of(root)}


def commit_of(root: Path) -> str | None:
    """The commit that is checked out in the folder of a repository, whoever owns it; None where it is none."""
    # Git would look further up, and find the repository of whoever has installed this package.
    if not (root / ".git").exists():
        return None
    # It refuses the repository of another user, whose configuration could name programs; this reads a name, runs none.
    trusted = ["-c", f"safe.directory={root}", "-c", "core.fsmonitor=false"]
    command = ["git", *trusted, "-C", str(root), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
