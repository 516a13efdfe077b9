"""The end of W&B's run, where a job has begun one; nothing is imported for a job that has none."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from xai.core.errors import UserError


@contextmanager
def closing_logger() -> Iterator[None]:
    """Finish the W&B run of a job when the job ends, however it ends.

    Raises:
        UserError: In place of W&B's own errors (no network, a key that is refused).
    """
    done = False
    try:
        try:
            yield
            done = True
        finally:
            close_logger(done)
    except Exception as error:
        wandb = sys.modules.get("wandb")
        if wandb is None or not isinstance(error, wandb.errors.Error):
            raise
        raise UserError(f"W&B refuses ({error}): use WANDB_MODE=offline or logger=csv") from error


def close_logger(succeeded: bool) -> None:
    """Finish W&B's run, if there is one: a process has one at a time, and the next job of a sweep would share it."""
    wandb = sys.modules.get("wandb")
    if wandb is not None and wandb.run is not None:
        wandb.finish(exit_code=0 if succeeded else 1)
