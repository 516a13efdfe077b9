"""What every job has: its settings, the place to work, the words at its beginning and end."""

import os
from dataclasses import asdict
from pathlib import Path

import torch
from rich.markup import escape

from xai.core.common import Common as Common
from xai.core.common import TrainerParams
from xai.core.loggers import build_logger
from xai.core.overrides import command
from xai.core.progress import console
from xai.core.provenance import provenance
from xai.core.publish import publish
from xai.core.runtime import Runtime
from xai.core.store import Store


def open_runtime(job: Common, output: Path, *, small: bool) -> Runtime:
    """The place to work."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    set_threads(job.trainer, small=small)
    config = {**asdict(job), **provenance(), "command": command()}
    return Runtime(Store(Path(job.store)), job.trainer, build_logger(job.logger, output, job.name, config), output)


def set_threads(trainer: TrainerParams, *, small: bool) -> None:
    """As many as are asked for; small networks get one, for a second one has not started when an operation is over."""
    threads = trainer.threads or (1 if small else None)
    if threads:
        # Threads of a small operation mostly wait for each other, and on a busy machine for whole time slices.
        torch.set_num_threads(threads)


def say_heading(*words: str, seed: int) -> None:
    """The first line of a run."""
    console.print(f"[bold]{escape(words[0])}[/], {escape(', '.join(words[1:]))}, seed {seed}", highlight=False)


def say_end(runtime: Runtime, *lines: str) -> None:
    """The end of a run: its results to the logger; what the store had and what was made, and what lies where."""
    if runtime.output is not None:
        publish(runtime.logger, runtime.output, runtime.store)
    store = escape(os.path.relpath(runtime.store.root))
    console.print(f"\nstore: {runtime.store.summary()} ({store})", highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True)
