"""What every job has: the place to work, the words at its beginning and end, and what made its numbers.

What computes, and what logs, is imported when a job begins to work: whoever only looks waits for neither.
"""

import os
import subprocess
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.markup import escape

from xai.core.common import Common, TrainerParams
from xai.core.overrides import command
from xai.core.progress import console
from xai.core.store import Store

if TYPE_CHECKING:
    from pytorch_lightning.loggers import Logger

_PACKAGES = ("torch", "pytorch-lightning", "open_clip_torch", "timm", "numpy")


@dataclass
class Runtime:
    """Where a job keeps what it makes, on what it computes, and to whom it reports.

    Args:
        store: Where everything that is made is kept and found again.
        trainer: Devices, precision, workers.
        logger: Of training curves and results; False logs nowhere.
        output: The folder of the run's results, where it has one.
    """

    store: Store
    trainer: TrainerParams
    logger: "Logger | Literal[False]" = False
    output: Path | None = None

    def with_precision(self, spec: dict[str, Any]) -> dict[str, Any]:
        """A spec with what its numbers depend on besides: the numeric precision, and the number of devices.

        One device is not mentioned, so that what was made before there was a choice keeps its place in the store.
        """
        several = {"devices": self.trainer.devices} if self.trainer.devices > 1 else {}
        return {**spec, "precision": self.trainer.precision, **several}


def open_runtime(job: Common, output: Path, *, small: bool) -> Runtime:
    """The place to work."""
    import torch

    from xai.core.loggers import build_logger

    torch.use_deterministic_algorithms(True, warn_only=True)
    set_threads(job.trainer, small=small)
    config = {**asdict(job), **provenance(), "command": command()}
    return Runtime(Store(Path(job.store)), job.trainer, build_logger(job.logger, output, job.name, config), output)


def set_threads(trainer: TrainerParams, *, small: bool) -> None:
    """As many as are asked for; small networks get one, for a second one has not started when an operation is over."""
    threads = trainer.threads or (1 if small else None)
    if threads:
        import torch

        # Threads of a small operation mostly wait for each other, and on a busy machine for whole time slices.
        torch.set_num_threads(threads)


def say_heading(*words: str, seed: int) -> None:
    """The first line of a run."""
    console.print(f"[bold]{escape(words[0])}[/], {escape(', '.join(words[1:]))}, seed {seed}", highlight=False)


def say_end(runtime: Runtime, *lines: str) -> None:
    """The end of a run: its results to the logger; what the store had and what was made, and what lies where."""
    if runtime.output is not None:
        from xai.core.publish import publish

        publish(runtime.logger, runtime.output, runtime.store)
    store = escape(os.path.relpath(runtime.store.root))
    console.print(f"\nstore: {runtime.store.summary()} ({store})", highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)


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
    asked = ["git", f"--git-dir={root / '.git'}", "-c", "core.fsmonitor=false", "rev-parse", "HEAD"]
    try:
        return subprocess.run(asked, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
