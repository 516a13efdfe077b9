"""What is typed on the command line, as Hydra is to have it, and what the runs of a sweep are called by."""

import json
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, ValueType
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

from xai.core.composing import CONF, choices, config_file
from xai.core.errors import UserError
from xai.core.files import short_hash, short_name

# The default model has no architecture, and one that is named is another model.
_ADDED = re.compile(r"(explainers|metric|over)\.[^=]+=|over=|model\.(architecture|crop|fit|interpolation)=")
_TEXT = {
    "name",
    "store",
    "checkpoint",
    "image",
    "vector",
    "data.root",
    "source.root",
    "model.weights",
    "data.path",
    "classes",
    "target",
}
"""Settings whose value is text whatever it looks like."""
_PLACES = {"store", "checkpoint", "vector", "judge", "classes", "model.weights", "hydra.run.dir", "hydra.sweep.dir"}
"""Places, in which ~ is the user's own folder: no shell sees to that behind an equals sign."""
_PARSER = OverridesParser.create()
OUTPUTS = Path("outputs")
"""Where a `name` is a folder."""
MOST_JOBS = 10_000
"""Of one command."""
UNNAMED = {"logger", "trainer", "launcher", "store", "sweep", "name"}
"""What makes no difference to the numbers of a run, or names it already."""
_MOST_BYTES, _MOST_BYTES_OF_ONE = 150, 60
"""Of what a run is called, and of one setting in it: the file system takes 255, of which locks and logs need some."""
_FIXED = "hydra.job.config.override_dirname.exclude_keys"
"""Hydra's list of the settings that need not be in the name of a run."""
_LAUNCHER = r"launcher|hydra/launcher|hydra\.launcher\..*"
"""A pattern of the settings that say what starts the jobs of a sweep."""


def command(arguments: Sequence[str] | None = None) -> str:
    """What to type for these arguments; None: what was typed. `xai ...` for whom that is the program, else Python's."""
    program = Path(sys.argv[0])
    script = os.path.relpath(program) if program.name == "run.py" else "run.py"
    begin = ["xai"] if program.name == "xai" else ["python", script]
    return shlex.join([*begin, *(sys.argv[1:] if arguments is None else arguments)])


def without_launcher(typed: str) -> str:
    """A command without what starts its jobs, and how many at a time."""
    of_the_launcher = re.compile(rf"\+*({_LAUNCHER})=")
    return shlex.join(word for word in shlex.split(typed) if not of_the_launcher.match(word))


def is_swept(text: str) -> bool:
    """Whether an override has several values; False for what cannot be read."""
    parsed = _parsed(text)
    return parsed is not None and parsed.is_sweep_override()


def _parsed(text: str) -> Override | None:
    """An override as Hydra reads it; None where it cannot."""
    try:
        return _PARSER.parse_override(text)
    except (HydraException, RecursionError):
        return None


def as_axis(text: str) -> str:
    """An override as a sweep over one value, which Hydra applies to the jobs alone, and not to what is common to them.

    A setting may be there only with the experiment that the jobs have.
    """
    key, _, value = text.partition("=")
    return text if _is_common(key) or not value or is_swept(text) else f"{key}=choice({value})"


def as_addition(text: str) -> str:
    """An override of what a sweep's jobs have, where none of them is composed yet."""
    return text if _is_common(text.partition("=")[0]) or text.startswith("+") else f"++{text}"


def _is_common(key: str) -> bool:
    """Whether an override is one of the whole sweep: a choice of files, Hydra's own, or a place."""
    return key.startswith("hydra") or key in ("name", "store") or (CONF / key.lstrip("+").partition("@")[0]).is_dir()


def alone(given: Sequence[str], folder: Path) -> list[str]:
    """The overrides of one run of a sweep, as they are typed for it alone into its folder."""
    of_the_sweep = re.compile(rf"(name|{_LAUNCHER}|hydra\.sweep\..*|{re.escape(_FIXED)})=")
    own = [each for each in given if not of_the_sweep.match(each)]
    if folder.is_relative_to(OUTPUTS):
        return [*own, f"name={quoted(folder.relative_to(OUTPUTS).as_posix())}"]
    # Of a folder elsewhere (hydra.sweep.dir) a name says nothing, and stays what it is.
    return [*own, *(each for each in given if each.startswith("name=")), f"hydra.run.dir={quoted(str(folder))}"]


def fixed(settings: Iterable[str]) -> str:
    """Tells `label`, as an override of Hydra's, which of the settings of a sweep all its runs have."""
    keys = [each.lstrip("+~").partition("=")[0] for each in settings if not is_swept(each)]
    return f"{_FIXED}=[{','.join(map(quoted, keys))}]"


def label(given: Iterable[str], axes: Mapping[str, object], shared: Sequence[str] = ()) -> str:
    """What a run of a sweep is called: the overrides it has, but for those that all runs of the sweep file have.

    An experiment has a name of its own, and is left out unless the sweep file has several. Where that makes more than
    150 bytes, a hash stands for the overrides that all runs have, and one for the middle of what is long all the same.

    Args:
        given: What is typed for the run.
        axes: Of the sweep file.
        shared: Keys of what all runs have.
    """
    left = UNNAMED | {key for key, values in axes.items() if not is_swept(f"{key}={values}")}
    left |= set() if "experiment" in axes else {"experiment"}
    named = [each for each in sorted(each.lstrip("+") for each in given) if each.partition("=")[0] not in left]
    if len(os.fsencode(",".join(named))) > _MOST_BYTES:
        rest = [each for each in named if each.partition("=")[0] in shared]
        named = [short_name(each, _MOST_BYTES_OF_ONE) for each in named if each not in rest]
        named += [f"rest={short_hash(','.join(rest))}"] * bool(rest)
    plain = "".join(each if each.isprintable() and each != "/" else "-" for each in ",".join(named))
    return short_name(plain, _MOST_BYTES) or "run"


def settings_hash(config: DictConfig) -> str:
    """Tells jobs apart whose numbers may differ: a hash of a whole configuration, as its files and the user have it."""
    whole: Any = OmegaConf.to_container(config, resolve=False)
    plain = json.loads(json.dumps({key: whole[key] for key in whole if key not in UNNAMED | {"hydra"}}, default=str))
    return short_hash(json.dumps(plain, sort_keys=True))


def apart(labels: Sequence[str]) -> list[str]:
    """What runs of a sweep are called where they stand together: without what all of them are called."""
    parts = [re.split(r",(?![^\[]*\])", each) for each in labels]
    shared = set.intersection(*map(set, parts)) if len(parts) > 1 else set()
    return [
        ",".join(part for part in of if part not in shared) or whole for of, whole in zip(parts, labels, strict=True)
    ]


def overrides(typed: Sequence[str], *, many: bool = False) -> list[str]:
    """What was typed as Hydra is to have it: in quotes what it cannot read, settings of rows and metrics as additions.

    The file of a row is read when the row is made, so that Hydra does not know the settings that it has.

    Raises:
        UserError: What is no setting, or a sweep over nothing.
    """
    given = [_readable(each, many) for each in typed]
    if many:
        _check_axes(_PARSER.parse_overrides(given))
    return [f"++{each}" if _ADDED.match(each) else each for each in given]


def added(axes: Mapping[str, object]) -> dict[str, object]:
    """The axes of a sweep file as Hydra's sweeper is to have them; see `overrides`."""
    return {f"++{key}" if _ADDED.match(f"{key}=") else key: values for key, values in axes.items()}


def check_begun(chosen: Mapping[str, str], *, many: bool) -> None:
    """Refuse what would begin something else than is meant.

    Args:
        chosen: What is typed, by key.
        many: Whether -m is.

    Raises:
        UserError: An empty folder, or a sweep or a launcher without -m, whose one run would be something else.
    """
    for key in ("hydra.run.dir", "hydra.sweep.dir"):
        if chosen.get(key) in ("", "''", "null"):
            raise UserError(f"{key} is empty: give a folder, or leave it out")
    if many or chosen.get("task") in ("status", "report", "plan"):
        return
    if name_of(chosen):
        raise UserError(f"sweep={chosen['sweep']} is many runs: add -m to start them, or task=plan, status or report")
    if (launcher := chosen.get("launcher", "null")) not in ("null", "basic"):
        raise UserError(f"launcher={launcher} starts the runs of a sweep: add -m")


def name_of(chosen: Mapping[str, str]) -> list[str]:
    """The name of a sweep that is chosen by its file, as an override, where none is typed."""
    sweep = chosen.get("sweep", "null")
    return [f"name={quoted(sweep)}"] if sweep != "null" and "name" not in chosen else []


def _check_axes(given: Sequence[Override]) -> None:
    """Refuse what would start a job twice: a value that is listed twice, or two lists for one setting."""
    keys = [each.get_key_element().lstrip("+") for each in given]
    for key, axis in zip(keys, given, strict=True):
        if not axis.is_sweep_override():
            continue
        if keys.count(key) > 1:
            raise UserError(f"{axis.input_line} is not the only {key}= of this sweep: give all values in one list")
        seen = set()
        for value in islice(axis.sweep_string_iterator(), MOST_JOBS + 1):
            if (same := _plain_value(value)) in seen:
                raise UserError(f"{axis.input_line} lists {value} twice, for two jobs that are one: leave one out")
            seen.add(same)


def _plain_value(text: str) -> str | float:
    """A number however it is written, and text with or without quotes."""
    with suppress(ValueError):
        return float(text)
    return text[1:-1] if text[:1] == text[-1:] and text[:1] in ("'", '"') else text


def _readable(text: str, many: bool) -> str:
    key, equals, value = text.partition("=")
    if key in _PLACES and (value == "~" or value.startswith("~/")):
        value = str(Path(value).expanduser())
        text = f"{key}={value}"
    in_quotes = [f"{key}={_quoted_parts(key, value)}", f"{key}={quoted(value)}"]
    attempts = [text, *(in_quotes if equals else [])]
    parsed = next(filter(None, map(_parsed, attempts)), None)
    if parsed is None or not key.strip("+~"):
        raise UserError(f"{text} is no setting: settings are given as KEY=VALUE, as in seed=1")
    found = str(parsed.input_line)
    if key in _TEXT and parsed.is_sweep_override() and (Path(value).exists() or (key == "target" and not many)):
        return f"{key}={quoted(value)}"  # a file, or a class, with a comma in its name
    if parsed.value_type in (ValueType.GLOB_CHOICE_SWEEP, ValueType.INTERVAL_SWEEP):
        raise UserError(f"{text} names no values: list them, as in {key}=A,B with -m")
    _check_group(text, key, parsed)
    if parsed.is_sweep_override():
        if not many:
            raise UserError(
                f"{text} has several values: for a run with each of them add -m"
                + (f", a list is {key}=[{value}]" if "," in value and "(" not in value and not _is_common(key) else "")
            )
        try:
            is_empty = not any(True for _ in parsed.sweep_iterator())
        except ValueError as error:
            raise UserError(f"{text} names no values ({error}): list them, as in {key}=A,B with -m") from error
        if is_empty:
            raise UserError(f"{text} has no value: a sweep needs one at least")
        return found
    # A name such as 1 or true is text all the same.
    read, parts = parsed.value(), [part.strip() for part in found.partition("=")[2][1:-1].split(",")]
    if key in _TEXT and isinstance(read, list) and len(read) == len(parts):
        texts = [part if isinstance(each, str) else quoted(part) for each, part in zip(read, parts, strict=True)]
        return found if texts == parts else f"{key}=[{','.join(texts)}]"
    is_other = key in _TEXT and not isinstance(read, str | list | dict | None)
    return f"{key}={quoted(value)}" if is_other else found


def _check_group(text: str, key: str, parsed: Override) -> None:
    """Refuse as the choice of a file what is no name."""
    group = key.lstrip("+").partition("@")[0]
    if "=" not in text or not (CONF / group).is_dir() or not group:
        return
    names = list(parsed.sweep_iterator()) if parsed.is_sweep_override() else [parsed.value()]
    if not all(isinstance(name, str) and name and not re.search(r"^[./]|//|/\.", name) for name in names):
        raise UserError(f"{text} is no {group}: choose from {', '.join(choices(group))}")


def _quoted_parts(key: str, value: str) -> str:
    """A list with quotes around those of its parts that need them."""
    if not (value.startswith("[") and value.endswith("]")):
        return quoted(value)
    parts = [part.strip() for part in value[1:-1].split(",")]
    return f"[{','.join(part if _parsed(f'{key}={part}') else quoted(part) for part in parts)}]"


def quoted(value: str) -> str:
    """Text in quotes, as Hydra reads them."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), value)
    return f"'{escaped}'"


def typed_keys(overrides: Iterable[str]) -> list[str]:
    """The keys in overrides, such as `model` or `model.image_size`, and those of the model that an experiment sets."""
    pairs = [re.split(r"=", override.lstrip("+~"), maxsplit=1) for override in overrides]
    keys = [pair[0] for pair in pairs]
    name = dict(pair for pair in pairs if len(pair) == 2).get("experiment")
    if name is not None:
        path = config_file("experiment", name)
        experiment = OmegaConf.load(path)
        if not isinstance(experiment, DictConfig):
            raise UserError(f"{path} is no group of settings: lines of the form key: value are wanted")
        groups = [
            str(key) for entry in experiment.get("defaults") or [] if isinstance(entry, DictConfig) for key in entry
        ]
        keys += ["model"] * ("override /model" in groups)
        model = experiment.get("model")
        keys += ["model." + str(key) for key in (model if isinstance(model, DictConfig) else ())]
    return keys


OmegaConf.register_new_resolver("xai.label", label, replace=True)
OmegaConf.register_new_resolver("xai.added", added, replace=True)
