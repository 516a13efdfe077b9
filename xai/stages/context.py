"""What every stage works with: the store, the device, the logger, and the data sets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pytorch_lightning.loggers import Logger

from xai.artifacts import Store
from xai.config import build
from xai.data import catalogue, registry
from xai.data.disk_set import check_classes
from xai.data.registry import ImageSource
from xai.errors import UserError
from xai.training import TrainerParams


@dataclass
class Lab:
    """The bench a job works at."""

    store: Store
    trainer: TrainerParams
    logger: Logger | Literal[False] = False

    def with_precision(self, spec: dict[str, Any]) -> dict[str, Any]:
        """A spec with what its numbers depend on besides: the numeric precision, and the number of devices.

        One device is not mentioned, so that what was made before there was a choice keeps its place in the store.
        """
        several = {"devices": self.trainer.devices} if self.trainer.devices > 1 else {}
        return {**spec, "precision": self.trainer.precision, **several}


@dataclass(frozen=True)
class OpenData:
    """A data set that has been opened: its name, the spec that determines its images, and the images."""

    name: str
    spec: Mapping[str, Any]
    source: ImageSource


def open_data(settings: Mapping[str, Any], where: str) -> OpenData:
    """Open a registered data set.

    Args:
        settings: `name` and the parameters of that data set.
        where: The name of the configuration group, for messages.

    Raises:
        UserError: For an unknown name, a wrong parameter, missing files, or class names that clash.
    """
    catalogue.fill()
    name = settings.get("name")
    if not isinstance(name, str):
        raise UserError(f"{where}.name is not set: choose from {', '.join(registry.names())}")
    entry = registry.entry(name)
    params: Any = build(entry.params, {key: value for key, value in settings.items() if key != "name"}, where)
    source = entry.open(params)
    check_classes(source.classes)
    spec = {"name": name, **asdict(params), "fingerprint": getattr(source, "fingerprint", None)}
    return OpenData(name, spec, source)
