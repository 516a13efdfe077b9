"""Data sets by name: importing these modules fills the registry, and opening one reads its settings."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape

from xai.core import plugins
from xai.core.errors import UserError
from xai.core.progress import console
from xai.core.settings import build, shown
from xai.data import registry
from xai.data.disk_set import check_classes
from xai.data.registry import SPLITS, ImageSource


def fill() -> None:
    """Register every data set that comes with the framework."""
    import xai.data.copies
    import xai.data.disk
    import xai.data.fashion
    import xai.data.packaged
    import xai.data.pair
    import xai.data.photos
    import xai.data.pictures  # noqa: F401


@dataclass(frozen=True)
class OpenData:
    """A data set that has been opened: its name, the spec that determines its images, and the images."""

    name: str
    spec: Mapping[str, Any]
    source: ImageSource


def check_data(settings: Any, where: str) -> None:
    """Refuse what `open_data` would refuse before it has opened a file; the folder of one's own has to be there."""
    if not isinstance(settings, Mapping):
        raise UserError(f"{where}={shown(settings)} must be a group of settings: choose a data set by its name")
    _, params = _chosen(settings, where)
    root = getattr(params, "root", None)
    if isinstance(root, str) and not Path(root).expanduser().is_dir():
        open_data(settings, where)  # says what has to be in it


def open_data(settings: Mapping[str, Any], where: str) -> OpenData:
    """Open a registered data set; of a user's own pictures, classes and counts are printed.

    Args:
        settings: `name` and the parameters of that data set; `title`, where it goes by another name at these.
        where: The name of the configuration group, for messages.

    Raises:
        UserError: For an unknown name, a wrong parameter, missing files, or class names that clash.
    """
    entry, params = _chosen(settings, where)
    source = entry.open(params)
    check_classes(source.classes)
    if entry.name in ("folder", "pictures"):
        console.print(f"{where}: {escape(getattr(source, 'summary', ''))}", highlight=False)
    spec = {"name": entry.name, **asdict(params), "fingerprint": getattr(source, "fingerprint", None)}
    spec |= plugins.code_of(entry.made_by)  # what opens it may be a partial function, which stands in functools
    title = str(settings.get("title", entry.name))
    if not title.isprintable() or "/" in title:
        raise UserError(f"{where}.title={shown(title)} must be one line of characters that can be seen, without /")
    return OpenData(title, spec, source)


def check_side(data: OpenData, side: int, model: str) -> None:
    """Refuse images of another size than a network sees, before one is trained for them.

    Raises:
        UserError: The first image is of another.
    """
    counts = {split: count for split in SPLITS if (count := len(data.source.labels(split)))}
    if not counts:
        return
    split = min(counts, key=counts.__getitem__)  # sets that are drawn are drawn a split at a time
    height, width = data.source.images(split, torch.tensor([0]), 0).pixels.shape[-2:]
    if (height, width) != (side, side):
        raise UserError(
            f"data={data.name} has images of {height} x {width} px, and model={model} sees {side} x {side}: choose "
            "another data set, or a model for its size"
        )


def _chosen(settings: Mapping[str, Any], where: str) -> tuple[registry.Entry, Any]:
    fill()
    name = settings.get("name")
    if not isinstance(name, str):
        raise UserError(f"{where}.name={shown(name)} is none: choose from {', '.join(registry.names())}")
    entry = registry.entry(name)
    own = {key: value for key, value in settings.items() if key not in ("name", "title")}
    return entry, build(entry.params, own, where)
