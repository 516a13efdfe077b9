"""Typed, closed settings: constraints beside the field, and one line that names what was typed where they do not hold.

    @settings
    class RiseParams:
        masks: Several

is a frozen dataclass that checks itself, whether Python makes it or `build` does from a configuration. What concerns
several fields is checked in `__post_init__`, which raises `FieldError`.
"""

import dataclasses
import difflib
import functools
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic.dataclasses import dataclass, is_pydantic_dataclass
from pydantic_core import CoreConfig, SchemaValidator

from xai.core.errors import UserError

T = TypeVar("T")

_MOST = 2**31 - 1
Count = Annotated[int, Field(ge=1, le=_MOST)]
Several = Annotated[int, Field(ge=2, le=_MOST)]
Whole = Annotated[int, Field(ge=0, le=_MOST)]
EvenCount = Annotated[int, Field(ge=2, le=_MOST, multiple_of=2)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=1, le=4096)]
Channels = Annotated[tuple[float, ...], Field(min_length=3, max_length=3)]

_MOST_NAMED = 40
_CLOSED = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_UNKNOWN, _MISSING = "unexpected_keyword_argument", ("missing", "missing_argument", "missing_keyword_only_argument")
_WORDS = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list (in Python: a tuple)",
    "dict_type": "must be a group of settings",
    "dataclass_type": "must be a group of settings",
    "dataclass_exact_type": "must be a group of settings",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "even": "must be even",
    "literal_error": "is unknown: use {expected}",
    "too_short": "must list {min_length} or more",
    "string_pattern_mismatch": "must be a name, without / and a dot before it",
    "too_long": "must list {max_length} or fewer",
}
"""What would be right instead, by pydantic's name of the fault."""


class FieldError(ValueError):
    """A field that does not fit the others: raised in `__post_init__`, completed with path and value by `build`.

    Args:
        field: Its name, relative to the settings that refuse it.
        why: What would be right, as in `must be a multiple of heads=3`.
    """

    def __init__(self, field: str, why: str) -> None:
        super().__init__(field, why)
        self.field, self.why = field, why


def _distinct(values: tuple[Any, ...]) -> tuple[Any, ...]:
    named = [f"{value:g}" if isinstance(value, float) else str(value) for value in values]
    if twice := [name for name in named if named.count(name) > 1]:
        raise ValueError(f"must not list {twice[0]} twice")
    return values


Distinct = AfterValidator(_distinct)
"""Of a list whose values name what is made of them, floats by six digits."""


def _on_one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of characters that can be seen")
    return text


OneLine = AfterValidator(_on_one_line)
"""Of a name that tables, pages and terminals show."""


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field, Field))
def settings(schema: type[T]) -> type[T]:
    """Make a class a frozen dataclass that is checked whenever it is made; what is wrong is a `UserError`."""
    made: Any = dataclass(schema, frozen=True, config=_CLOSED)
    checked = made.__init__

    @functools.wraps(checked)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        try:
            checked(self, *args, **kwargs)
        except ValidationError as error:
            raise UserError(_line(made, error, "")) from None

    made.__init__ = init
    return typing.cast(type[T], made)


def build(schema: type[T], values: Any, where: str = "") -> T:
    """Make settings, or any dataclass, from a mapping.

    Numbers stay what they are, except that whole numbers are accepted for floats; text never becomes a number.

    Args:
        schema: A dataclass. Fields may be bool, int, float, str, lists or tuples of them, dataclasses, `X | None`.
        values: What the configuration holds.
        where: Dotted path of `values` in the configuration, for messages.

    Raises:
        UserError: For an unknown or missing key, a wrong type, or NaN; and whatever the dataclass itself refuses.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where or 'configuration'} must be a group of settings, not {shown(values)}")
    try:
        # Strict about what JSON can tell apart, and no more: a list becomes a tuple, a group a dataclass.
        made: T = _adapter(typing.cast(Any, schema)).validate_json(
            json.dumps(dict(values)), strict=True, extra="forbid"
        )
        return made
    except ValidationError as error:
        raise UserError(_line(schema, error, where)) from None
    except TypeError as error:
        raise UserError(f"{where or 'configuration'} must hold text, numbers, lists and groups: {error}") from error


def unknown(path: str, key: str, known: Iterable[str], kind: str = "setting", offer: str = "known here:") -> str:
    """The line that says a name is unknown and what was probably meant.

    Args:
        path: Where the name stands and what it is; empty where a `FieldError` will be completed with it.
        key: The name alone.
        known: The names there are.
        kind: What they are names of.
        offer: What introduces all of them, where none is near.
    """
    names = sorted(known)
    lower = {name.lower(): name for name in names}
    near = [lower[each] for each in difflib.get_close_matches(key.lower(), lower, 1)]
    few = f"none of the {len(names)} is like it; there are {', '.join(names[:3])}, ..."
    listed = f"{offer} {', '.join(names)}" if len(names) <= _MOST_NAMED else few
    hint = f"did you mean {near[0]}?" if near else listed if names else "there is none here, leave it out"
    return f"{path} is not a known {kind}: {hint}".lstrip()


@functools.cache
def _adapter(schema: Any) -> TypeAdapter[Any]:
    return TypeAdapter(schema if is_pydantic_dataclass(schema) else with_config(_CLOSED)(schema))


def _line(schema: Any, error: ValidationError, where: str) -> str:
    """The worst of what pydantic found, in one line: a misspelt key comes before the key that is missing for it."""
    faults = error.errors(include_url=False)
    hints = typing.get_type_hints(schema)

    def rank(found: Any) -> tuple[int, bool, bool]:
        # Of alternatives such as `VitParams | CnnParams`, the one that knows the most of the keys was meant.
        way = found["loc"][:2]
        strange = sum(each["loc"][:2] == way and each["type"] == _UNKNOWN for each in faults)
        chosen = bool(way) and len(alternatives(hints.get(way[0]))) > 1
        return strange if chosen else 0, found["type"] != _UNKNOWN, found["type"] in _MISSING

    fault = min(faults, key=rank)
    kind, context = fault["type"], fault.get("ctx", {})
    if kind == "json_invalid":
        return f"{where or 'configuration'} holds text that is no Unicode: use file names and words that are"
    above, path, hint = schema, where, schema
    for step in fault["loc"]:
        above, path, hint = _inside(hint, step, path)
    if kind == _UNKNOWN:
        return unknown(path, str(fault["loc"][-1]), [field.name for field in dataclasses.fields(above)])
    if kind in _MISSING:
        return f"{path} is not set: give it as {path}=..."
    given = fault["input"]
    if isinstance(wrong := context.get("error"), FieldError):
        _, path, _ = _inside(hint, wrong.field, path)
        return f"{path}={shown(_value(given, wrong.field, hint))} {wrong.why}"
    return _wrong(fault, path, may_be_null=type(None) in typing.get_args(hint))


def _wrong(fault: Any, path: str, *, may_be_null: bool) -> str:
    """The line for a value that is not what its type and its constraints want."""
    context = fault.get("ctx", {})
    bounds = {name: f"{bound:.15g}" if isinstance(bound, float) else bound for name, bound in context.items()}
    words = _WORDS.get("even" if context.get("multiple_of") == 2 else fault["type"])
    right = fault["msg"].removeprefix("Value error, ") if words is None else words.format(**bounds).replace("'", "")
    return f"{path or 'configuration'}={shown(fault['input'])} {right}{' or null' if may_be_null else ''}"


def wrong_value(schema: Any, value: Any, path: str) -> str | None:
    """The line in which `build` would refuse a single value, or a list of them; None where it would not.

    Args:
        schema: Of pydantic's core.
        value: What it is.
        path: What the user typed to set it.
    """
    try:
        text = json.dumps(value)
    except TypeError:  # what YAML can hold and settings cannot: `build` refuses all of them together
        return None
    try:
        SchemaValidator(schema, CoreConfig(strict=True, allow_inf_nan=False)).validate_json(text)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        if fault["type"] == "json_invalid":
            return None
        for step in fault["loc"]:
            inner = schema["schema"] if schema["type"] == "nullable" else schema
            path, schema = f"{path}[{step}]", inner["items_schema"][0]
        return _wrong(fault, path, may_be_null=schema["type"] == "nullable")
    return None


def _inside(hint: Any, step: str | int, path: str) -> tuple[Any, str, Any]:
    """One step down, as pydantic counts them: the type that is entered, the path, and the type that is found there."""
    options = alternatives(hint)
    if len(options) > 1:
        # The step only says which alternative was tried.
        return hint, path, next((o for o in options if getattr(o, "__name__", "") == step), options[0])
    entered = options[0]
    if dataclasses.is_dataclass(entered):
        if isinstance(step, int):
            step = dataclasses.fields(entered)[step].name
        hints = typing.get_type_hints(entered, include_extras=True)
        return entered, f"{path}.{step}" if path else step, hints.get(step, Any)
    if typing.get_origin(entered) is dict:
        return entered, f"{path}.{step}" if path else str(step), typing.get_args(entered)[1]
    return entered, f"{path}[{step}]", (*typing.get_args(entered), Any)[0]


def alternatives(hint: Any) -> list[Any]:
    """The alternatives of a type, less null and constraints."""
    if typing.get_origin(hint) is Annotated:
        return alternatives(typing.get_args(hint)[0])
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        return [found for each in typing.get_args(hint) if each is not type(None) for found in alternatives(each)]
    return [hint]


def _value(given: Any, field: str, schema: Any) -> Any:
    """What a field of refused settings, or of a group in them, was: as given, or its default."""
    schema = alternatives(schema)[0]
    if hasattr(given, "kwargs"):  # what pydantic keeps of a dataclass's arguments
        names = [each.name for each in dataclasses.fields(schema)]
        given = dict(zip(names, given.args, strict=False)) | (given.kwargs or {})
    for name in field.split("."):
        default = getattr(schema, name, None)
        given = given.get(name, default) if isinstance(given, dict) else getattr(given, name, default)
    return given


def shown(value: Any) -> str:
    """A value as it is typed, short enough for a line."""
    plain = isinstance(value, str) and value.isprintable()
    text = value if plain else json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
