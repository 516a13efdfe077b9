"""What made a number: versions of the packages, and the commit."""

import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "pytorch-lightning", "open_clip_torch", "timm", "numpy")


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
    # Named, it is neither that of a hook around this process (GIT_DIR), nor refused where it belongs to another user,
    # whose configuration could name programs: this reads a name and runs none.
    command = ["git", f"--git-dir={root / '.git'}", "-c", "core.fsmonitor=false", "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
