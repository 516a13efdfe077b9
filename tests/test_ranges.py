"""Every setting that will not do is refused in one line, which begins with the path that the user typed."""

import functools
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tests.composed import plain
from tests.toolbox import cases, changed, refusal
from xai.core.composing import compose_choice
from xai.core.settings import build
from xai.data.augment import Augmentation
from xai.data.copies import CopiesParams
from xai.data.disk import DiskParams
from xai.data.fashion import FashionParams
from xai.data.marked import MarkParams
from xai.data.packaged import GlyphParams
from xai.data.pair import PairParams
from xai.data.scatter import ScatterParams
from xai.explainers.rows import load_row
from xai.metrics import registry as metrics
from xai.models.maskable import Removal
from xai.report.figures import open_figure
from xai.tasks.registry import choose

WRONG: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("ranges.yaml").read_text(encoding="utf-8"))
"""Settings of methods, rows and parts: for each, values that will not do."""
PARTS = {
    schema.__name__: schema
    for schema in (
        *(Augmentation, CopiesParams, DiskParams, FashionParams, GlyphParams, MarkParams, PairParams, Removal),
        ScatterParams,
    )
}


def leaves(wrong: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    found = []
    for name, values in wrong.items():
        full = f"{path}.{name}" if path else name
        found += leaves(values, full) if isinstance(values, dict) else [(full, value) for value in values]
    return found


@functools.cache
def composed(method: str) -> dict[str, Any]:
    given = ["vector=v", "checkpoint=c"] if method == "apply_vector" else []
    asked = "task=apply_vector" if method == "apply_vector" else f"study={method}"
    given += ["lengths=[0.5]"] if method == "salvage" else []
    return plain(asked, *given)


def settings_of(method: str) -> tuple[type, dict[str, Any]]:
    """Their class, and what they are as they are composed."""
    schema = choose(composed(method)).settings
    return schema, {key: value for key, value in composed(method).items() if key in schema.__dataclass_fields__}


@pytest.mark.parametrize("method", WRONG["methods"])
def test_a_setting_out_of_range_is_refused_by_its_path(method: str) -> None:
    schema, values = settings_of(method)
    build(schema, values)
    for path, value in leaves(WRONG["methods"][method]):
        assert refusal(build, schema, changed(values, path, value)).startswith(f"{path}="), path


@pytest.mark.parametrize("row", WRONG["rows"])
def test_a_setting_of_a_row_out_of_range_is_refused_by_its_path(row: str) -> None:
    load_row(row)
    for path, value in leaves(WRONG["rows"][row]):
        given = changed(OmegaConf.to_container(compose_choice("explainer", row)), path, value)  # type: ignore[arg-type]
        assert refusal(load_row, row, {row: given}).startswith(f"explainers.{row}.{path}="), path


@pytest.mark.parametrize("part", sorted({*PARTS, *WRONG["parts"]}))
def test_a_part_out_of_range_is_refused_by_the_path_of_its_group(part: str) -> None:
    schema, (needed, wrong) = PARTS[part], (WRONG["parts"][part][key] for key in ("needs", "wrong"))
    build(schema, needed, "data@x")
    for name, value in leaves(wrong):
        assert refusal(build, schema, needed | {name: value}, "data@x").startswith(f"data@x.{name}="), name


def refused(kind: str, name: str, changes: dict[str, Any]) -> str:
    """What is said of an explainer, a metric, a figure or a method with some settings changed."""
    if kind == "explainer":
        return refusal(load_row, name, {name: changes})
    if kind == "metric":
        return refusal(metrics.entry(name).settings, changes)
    if kind == "figure":
        return refusal(open_figure, {"figure": name, **changes})
    schema, values = settings_of(name)
    for path, value in changes.items():
        values = changed(values, path, value)
    return refusal(build, schema, values)


@pytest.mark.parametrize(("what", "changes", "line"), cases(__file__, "refused_settings.txt"))
def test_settings_that_will_not_do_are_told_by_what_is_wrong_and_right(
    what: str, changes: dict[str, Any], line: str
) -> None:
    found = refused(*what.split(), changes)
    assert re.fullmatch(re.escape(line).replace(re.escape("..."), ".*"), found), found
