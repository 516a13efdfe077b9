"""Typed, closed configuration: plain nested dictionaries become dataclasses, or one line says why they cannot."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from xai.core.errors import UserError

T = typing.TypeVar("T")


def build(schema: type[T], values: Any, where: str = "") -> T:
    """Make a dataclass from a mapping.

    Numbers stay what they are, except that whole numbers are accepted for floats; text never becomes a number.

    Args:
        schema: A dataclass. Fields may be bool, int, float, str, lists or tuples of them, dictionaries by
            name, dataclasses, `X | None`.
        values: What the configuration holds.
        where: Dotted path of `values` in the configuration, for messages.

    Raises:
        UserError: For an unknown or missing key, a wrong type, or NaN; and whatever the dataclass itself refuses.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where or 'configuration'} must be a group of settings, not {_shown(values)}")
    hints = typing.get_type_hints(schema)
    fields = {field.name: field for field in dataclasses.fields(schema)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise UserError(unknown(_join(where, str(key)), str(key), fields))
    given = {key: _convert(hints[key], value, _join(where, str(key))) for key, value in values.items()}
    for name, field in fields.items():
        if name not in given and field.default is field.default_factory is dataclasses.MISSING:
            raise UserError(f"{_join(where, name)} is not set: it must be a {_name(hints[name])}")
    return schema(**given)


def unknown(path: str, key: str, known: Iterable[str], kind: str = "setting", offer: str = "known here:") -> str:
    """The line that says a name is unknown and what was probably meant.

    Args:
        path: Where the name stands and what it is.
        key: The name alone.
        known: The names there are.
        kind: What they are names of.
        offer: What introduces all of them, where none is near.
    """
    names = sorted(known)
    near = difflib.get_close_matches(key, names, 1)
    hint = f"did you mean {near[0]}?" if near else f"{offer} {', '.join(names)}"
    return f"{path} is not a known {kind}: {hint}"


def _convert(hint: Any, value: Any, where: str) -> Any:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and type(None) in options:
        return None
    errors = []
    for option in (o for o in options if o is not type(None)):
        try:
            return _convert_one(option, value, where)
        except UserError as error:
            errors.append(error)
    raise errors[0]


def _convert_one(hint: Any, value: Any, where: str) -> Any:
    if hint is Any:
        return value
    origin = typing.get_origin(hint)
    if origin in (list, tuple):
        if not isinstance(value, list | tuple):
            raise UserError(f"{where}={_shown(value)} must be a list")
        item = typing.get_args(hint)[0]
        return origin(_convert(item, entry, f"{where}[{i}]") for i, entry in enumerate(value))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UserError(f"{where}={_shown(value)} must be a group of settings")
        kind = typing.get_args(hint)[1]
        return {str(key): _convert(kind, entry, _join(where, str(key))) for key, entry in value.items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast(type[Any], hint), value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise UserError(f"{where}={_shown(value)} must be a {_name(hint)}")
    if isinstance(value, float) and math.isnan(value):
        raise UserError(f"{where}=nan must be a number")
    return value


def _name(hint: Any) -> str:
    options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    words = {int: "whole number", float: "number", str: "text", bool: "true or false", type(None): "null"}
    return " or ".join(words.get(option, getattr(option, "__name__", str(option))) for option in options)


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _join(where: str, key: str) -> str:
    return f"{where}.{key}" if where else key
