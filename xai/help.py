"""`--help GROUP` and `--help GROUP=CHOICE`: what can be chosen, and what each setting means.

What is said stands where the settings are: in the comments of the files of conf/, and in the docstring of the class
that checks them.
"""

import dataclasses
import inspect
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from rich.markup import escape
from rich.table import Table

from xai.core.common import LoggerParams, TrainerParams
from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.core.files import read_text
from xai.core.progress import console
from xai.core.settings import unknown

_HIDDEN = ("hydra",)
_LISTS = ("defaults", "published")
_OF_ALL = {
    "name": "what it is, of those that the code registers",
    "label": "what tables call it",
    "variant_of": "the choice whose settings it starts from",
    "task": "what is done",
    "method": "what is trained",
}
_KEY = re.compile(r"^(\s*)([\w@/-]+):(?:\s+(.*))?$")
_COMMENT = re.compile(r"(?:^|\s+)#\s?(.*)$")
_ARGUMENT = re.compile(r"^ {4}(\w+): (.*)$")


class Setting(NamedTuple):
    """A setting of a file: its dotted path, its value as written, and what the file says of it."""

    path: str
    value: str
    meaning: str


class Page(NamedTuple):
    """A file: what its head says, its settings, the files of the group that it starts from, and all that it holds."""

    about: str
    settings: list[Setting]
    starts_from: list[str]
    values: Mapping[str, Any]


def tell(asked: str, own: str | None = None) -> None:
    """Print what there is to say of a group, such as `explainer`, or of one choice, such as `data=folder`.

    Raises:
        UserError: There is no such group or choice.
    """
    folders = [Path(own), CONF] if own else [CONF]
    if asked.startswith("explainers."):
        asked = "explainer=" + asked.split(".")[1].partition("=")[0]
    group, _, choice = asked.partition("=")
    groups = sorted({path.name for folder in folders for path in folder.iterdir() if path.is_dir()} - set(_HIDDEN))
    if group not in groups:
        raise UserError(unknown(f"--help {asked}", group, groups, "group", "choose from") + "; --help alone lists all")
    files = {path.stem: path for folder in reversed(folders) for path in sorted((folder / group).glob("*.yaml"))}
    if not choice:
        console.print(_choices(group, files))
        console.print(f"\n--help {group}=NAME says what the settings of one of them mean", highlight=False)
        return
    if choice not in files:
        raise UserError(unknown(f"--help {asked}", choice, files, group, "choose from"))
    _tell_choice(group, choice, files)
    if group == "method" and (CONF / "explainer" / f"{choice}.yaml").is_file():
        console.print()
        _tell_choice("explainer", choice, {path.stem: path for path in (CONF / "explainer").glob("*.yaml")})


def _choices(group: str, files: Mapping[str, Path]) -> Table:
    table = Table(f"{group}=", "", box=None, pad_edge=False)
    for name, path in sorted(files.items()):
        table.add_row(escape(name), escape(read(path).about.split(". ")[0]))
    return table


def _tell_choice(group: str, choice: str, files: Mapping[str, Path]) -> None:
    about, settings = described(group, choice, files)
    before = f"explainers.{choice}." if group == "explainer" else "" if group in ("task", "method") else f"{group}."
    console.print(f"[bold]{escape(f'{group}={choice}')}[/]  {escape(about)}", highlight=False, soft_wrap=True)
    table = Table("setting", "value", "what it means", box=None, pad_edge=False)
    for each in settings:
        table.add_row(escape(before + each.path), escape(each.value), escape(each.meaning))
    console.print(table)


def described(group: str, choice: str, files: Mapping[str, Path]) -> tuple[str, list[Setting]]:
    """What a choice is, and its settings with what they mean, those of the files that it starts from among them."""
    page = read(files[choice])
    found: dict[str, Setting] = {}
    for base in page.starts_from:
        if base in files:
            found.update({each.path: each for each in described(group, base, files)[1]})
    for each in page.settings:
        earlier = found.get(each.path)
        found[each.path] = each if each.meaning or earlier is None else each._replace(meaning=earlier.meaning)
    said = dict(_documented(_schema(group, choice, page.values)))
    said |= _OF_ALL
    return page.about, [each._replace(meaning=each.meaning or said.get(each.path, "")) for each in found.values()]


def read(path: Path) -> Page:
    """A file of conf/, or of a user's own, comments included; UserError where it holds no settings."""
    try:
        text = read_text(path)
        values = yaml.safe_load(text) or {}
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"{path} cannot be read and must be mended: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} must hold settings, lines of the form key: value")
    about: list[str] = []
    settings: list[Setting] = []
    above: list[tuple[int, str]] = []
    skipped: int | None = None
    for line in text.splitlines():
        if not settings and not above and line.startswith("#"):
            about += [] if "@package" in line else [line.lstrip("# ")]
            continue
        found, comment = _KEY.match(_without_comment(line)), _COMMENT.search(line)
        indent = len(line) - len(line.lstrip())
        if skipped is not None and (indent > skipped or not line.strip()):
            continue
        skipped = None
        if found is None:
            if comment and settings and line.strip().startswith("#"):
                last = settings[-1]
                settings[-1] = last._replace(meaning=f"{last.meaning} {comment[1]}".strip())
            continue
        above = [each for each in above if each[0] < indent]
        name, value = found[2], (found[3] or "").strip()
        if name in _LISTS:
            skipped = indent
            continue
        where = ".".join([*(each for _, each in above), name])
        settings.append(Setting(where, value, comment[1].strip() if comment else ""))
        above.append((indent, name))
    parents = {each.path.rpartition(".")[0] for each in settings}
    kept = [each for each in settings if each.path not in parents or each.meaning]
    return Page(" ".join(about), kept, _starts_from(values), values)


def _without_comment(line: str) -> str:
    """A line of YAML up to its comment; a # within quotes is none."""
    plain = re.sub(r"'[^']*'|\"[^\"]*\"", lambda quoted: "x" * len(quoted[0]), line)
    found = _COMMENT.search(plain)
    return (line[: found.start()] if found else line).rstrip()


def _starts_from(values: Mapping[str, Any]) -> list[str]:
    listed = [each for each in values.get("defaults") or [] if isinstance(each, str) and each != "_self_"]
    return [*listed, *([values["variant_of"]] if "variant_of" in values else [])]


def _schema(group: str, choice: str, values: Mapping[str, Any]) -> Any:
    """The class that checks the settings of a file; None where it has none of its own, or a plug-in has it."""
    try:
        if group == "explainer":
            from xai.explainers.rows import load_row

            return load_row(choice).entry.params
        if group == "data":
            from xai.data import catalogue, registry

            catalogue.fill()
            return registry.entry(values.get("name", choice)).params
        if group == "model":
            from xai.models.families import family_of

            import_module("xai.models.spec")
            return family_of(values).settings
    except UserError:
        return None
    if group == "task" and choice in ("explain", "compare", "apply_vector", "supervise"):
        return import_module(f"xai.tasks.{choice}").TASK.settings
    return {"trainer": TrainerParams, "logger": LoggerParams}.get(group)


def _documented(schema: Any, before: str = "") -> Iterator[tuple[str, str]]:
    """By dotted path, what the docstrings of a class of settings, and of those in it, say of each."""
    if not dataclasses.is_dataclass(schema):
        return
    hints = typing.get_type_hints(schema)
    for kind in reversed(typing.cast(type, schema).__mro__):
        for name, text in arguments(kind.__doc__):
            yield f"{before}{name}", text
    for field in dataclasses.fields(schema):
        for inner in (hints.get(field.name), *typing.get_args(hints.get(field.name))):
            yield from _documented(inner, f"{before}{field.name}.") if isinstance(inner, type) else ()


def arguments(docstring: str | None) -> Sequence[tuple[str, str]]:
    """The `Args:` of a docstring: names and what is said of them."""
    lines = inspect.cleandoc(docstring or "").splitlines()
    found: list[tuple[str, str]] = []
    for line in lines[lines.index("Args:") + 1 :] if "Args:" in lines else ():
        if line and not line.startswith(" "):
            break
        if argument := _ARGUMENT.match(line):
            found.append((argument[1], argument[2]))
        elif line.strip() and found:
            found[-1] = (found[-1][0], f"{found[-1][1]} {line.strip()}")
    return found
