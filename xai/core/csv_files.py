"""Tables as CSV files that a spreadsheet may open as well: text that it would run as a formula is marked as text.

Names may come from anywhere, such as a checkpoint of somebody else's. The mark is an apostrophe, as one types it in a
spreadsheet; `read_csv` takes it away, so that what is read is what was written.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from xai.core.files import write_atomically

_FORMULA = re.compile(r"'*[=+\-@]")
_MARKED = re.compile(r"''*[=+\-@]")


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """Write a table without its index, whole or not at all."""
    write_atomically(path, _of_text(frame, _mark).to_csv(index=False).encode())


def read_csv(path: Path, **options: Any) -> pd.DataFrame:
    """Read what `write_csv` wrote, NaN and None as NaN; options and errors are those of pandas."""
    # A name may be NA, null or None; of what is no value pandas has written nothing.
    found = pd.read_csv(path, keep_default_na=False, na_values=[""], **options)
    return _of_text(found, lambda text: text[1:] if _MARKED.match(text) else text)


def _mark(text: str) -> str:
    return f"'{text}" if _FORMULA.match(text) and not _is_number(text) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _of_text(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    """The table with something done to what is text in it; columns without any such text stay as they are."""

    def changed(value: Any) -> Any:
        return change(value) if isinstance(value, str) else value

    touched = [name for name in frame if any(changed(value) is not value for value in frame[name].unique())]
    return frame.assign(**{str(name): frame[name].map(changed) for name in touched})
