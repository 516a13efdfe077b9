"""Names of classes: from a file, text with one a line or JSON as other tools write it; and the number of one."""

import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from xai.core.errors import UserError
from xai.core.files import read_text
from xai.core.settings import unknown

_MOST_NAMED = 20


def read_class_names(path: str | Path) -> tuple[str, ...]:
    """The names in the order of the classes.

    JSON is a list, or an object of numbers and names, either way round, as it is or under `id2label`. Else each line
    that is not blank is a name.

    Raises:
        UserError: It cannot be read as text, holds no name, or is JSON of another form.
    """
    try:
        text = read_text(Path(path).expanduser())
    except (OSError, ValueError) as error:
        raise UserError(f"classes={path} cannot be read ({error}): give names, or a text file of them") from None
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if text.lstrip()[:1] in ("[", "{"):
        try:
            names = _of_json(json.loads(text))
        except (ValueError, TypeError, AttributeError, RecursionError):
            wanted = '["cat", "dog"] or {"0": "cat", "1": "dog"}'
            raise UserError(f"classes={path} is JSON of another form than {wanted}") from None
    if not names:
        raise UserError(f"classes={path} is empty: give a text file with one name a line")
    return names


def _of_json(found: Any) -> tuple[str, ...]:
    if isinstance(found, dict):
        found = found.get("id2label", found)
        pairs = {int(value): key for key, value in found.items() if type(value) is int}
        pairs = pairs or {int(key): value for key, value in found.items()}
        if sorted(pairs) != list(range(len(found))):
            raise ValueError
        found = [pairs[number] for number in range(len(pairs))]
    if not all(isinstance(name, str) for name in found):
        raise TypeError
    return tuple(found)


def class_number(name: str, classes: Sequence[str], asked: str) -> int:
    """The number of a class; one that is unknown is refused without naming a thousand others.

    Args:
        name: Of the class.
        classes: Names of all, in their order.
        asked: What the user typed, as in `target=cat`.

    Raises:
        UserError: There is none of this name; the line says which may be meant.
    """
    if name in classes:
        return classes.index(name)
    if len(classes) <= _MOST_NAMED:
        raise UserError(unknown(asked, name, classes, "class"))
    near = difflib.get_close_matches(name, classes, 3) + [each for each in classes if name in each.split()]
    hint = f"did you mean {' or '.join(dict.fromkeys(near[:3]))}?" if near else f"one of them is {classes[0]}"
    raise UserError(f"{asked} is none of the {len(classes)} classes of this classifier: {hint}")
