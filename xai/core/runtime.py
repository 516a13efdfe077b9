"""What a job works with: the store, the devices, the logger."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from xai.core.common import TrainerParams
from xai.core.store import Store

if TYPE_CHECKING:
    # Not at run time, for the sake of whoever trains nothing.
    from pytorch_lightning.loggers import Logger


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
