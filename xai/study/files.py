"""Frames on disk: CSV, which every program reads, and which loses no digit."""

from pathlib import Path

import pandas as pd

from xai.core.errors import UserError
from xai.core.files import write_atomically
from xai.study.frame import Frames

NAMES = ("scores", "curves", "costs", "left_out")
_TEXT = ("case", "explainer", "label", "kind", "metric", "curve", "model", "data", "source", "split", "reason", "maps")


def write_frames(folder: Path, frames: Frames) -> None:
    """Write `scores.csv`, `curves.csv`, `costs.csv` and `left_out.csv`, each whole or not at all."""
    for name in NAMES:
        write_atomically(folder / f"{name}.csv", getattr(frames, name).to_csv(index=False).encode())


def read_frames(folder: Path) -> Frames:
    """Read what `write_frames` wrote.

    Raises:
        UserError: A file is missing or is no such table.
    """
    return Frames(*(_read(Path(folder) / f"{name}.csv") for name in NAMES))


def _read(path: Path) -> pd.DataFrame:
    try:
        found = pd.read_csv(path, dtype=dict.fromkeys(_TEXT, "str"))
    except pd.errors.EmptyDataError:
        return pd.DataFrame()
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not what a study wrote ({error}): run the study again") from None
    return found
