import sys
from dataclasses import replace
from functools import partial
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from tests.toolbox import cases, refusal
from xai.core import plugins
from xai.core.errors import UserError
from xai.core.files import fingerprint_file
from xai.data import registry as data
from xai.data.catalogue import fill
from xai.explainers import registry
from xai.metrics import registry as metrics
from xai.metrics.variations import Noise
from xai.report.figures import registry as figures

TOY = """
from xai.explainers.registry import explainer

@explainer("{name}", label="Toy", about="for tests")
class Toy:
    pass
"""

METRIC = """
from xai.metrics.registry import Column, metric

@metric("theirs", columns=[Column("their_column", "Theirs", "for tests")], needs={"maps"})
def theirs(block, params):
    return {}
"""

THEIRS = [f"their_{name}" for name in ("toy", "thief", "broken", "empty", "importer", "leaver", "metric")]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of imports; what is imported from it is forgotten afterwards."""
    registry.names()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in THEIRS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "their_toy.py").write_text(TOY.format(name="toy"))
    (tmp_path / "their_thief.py").write_text(TOY.format(name="rise"))
    (tmp_path / "their_broken.py").write_text("import nothing_of_that_name\n")
    (tmp_path / "their_empty.py").write_text("import xai.explainers.posthoc.rise, xai.models.vit\n")
    (tmp_path / "their_importer.py").write_text("import their_toy\n")
    (tmp_path / "their_leaver.py").write_text("raise SystemExit(0)\n")
    yield tmp_path
    for name in THEIRS:
        sys.modules.pop(name, None)


def test_an_installed_package_registers_by_its_entry_point(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_installed_loaded", False)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint("toys", "their_toy", group)])
    monkeypatch.setattr(registry, "_filled", False)
    assert "toy" in registry.names()


def test_a_metric_of_an_installed_package_is_there_without_a_look_at_explainers(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics.names()
    monkeypatch.setattr(metrics, "_ENTRIES", dict(metrics._ENTRIES))
    (folder / "their_metric.py").write_text(METRIC)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint("theirs", "their_metric", group)])
    monkeypatch.setattr(plugins, "_installed_loaded", False)
    assert "their_column" in metrics.columns()
    assert metrics.entry("theirs").compute.__module__ == "their_metric"


@pytest.mark.parametrize(("module", "message"), cases(__file__, "unloadable.txt"))
def test_what_cannot_be_loaded_is_one_line_that_names_the_module(folder: Path, module: str, message: str) -> None:
    for _ in range(2):  # the second time in a process as the first
        assert refusal(plugins.load, [module]).startswith(message)


@pytest.mark.parametrize("names", [["their_importer"], ["their_importer", "their_toy"], ["their_toy"] * 2])
def test_what_counts_is_what_became_registered(folder: Path, names: list[str]) -> None:
    plugins.load(names)
    plugins.load(names)
    assert registry.entry("toy").made_by == "their_toy"


def test_an_installed_package_that_cannot_be_imported_is_told_each_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugins, "_installed_loaded", False)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint("toys", "their_broken", group)])
    for _ in range(2):
        with pytest.raises(UserError, match=r"^the entry point toys of xai.plugins cannot be imported .* mend it, or"):
            plugins.load()


def test_a_data_set_or_a_figure_of_a_name_that_is_taken_is_refused() -> None:
    fill()
    with pytest.raises(UserError, match=r"the name mnist_scattered is taken: xai\.data"):
        data.register("mnist_scattered", "another", object)(lambda params: params)
    name = next(iter(figures._REGISTERED))
    with pytest.raises(UserError, match=rf"the name {name} is taken: xai\.report"):
        figures.figure(name)(lambda source, params: None)  # type: ignore[arg-type, return-value]


def test_the_code_of_a_plug_in_is_a_part_of_its_keys(folder: Path) -> None:
    plugins.load(["their_toy"])
    before = plugins.code_of("their_toy")
    assert before == {"code": fingerprint_file(folder / "their_toy.py")[:20]}
    entry = replace(registry.entry("toy"), of_context=lambda *_: registry.Prepared({"toy": 1}, list))
    assert entry.prepare(None, None).made_from == {"toy": 1, **before}  # type: ignore[arg-type]
    (folder / "their_toy.py").write_text(TOY.format(name="toy") + "# another\n")
    assert plugins.code_of("their_toy") == before  # which this process has imported
    del sys.modules["their_toy"], registry._ENTRIES["toy"]
    plugins.load(["their_toy"])
    assert plugins.code_of("their_toy") != before
    assert plugins.code_of("xai.explainers.posthoc.rise") == plugins.code_of("sys") == {}


def test_a_variation_of_ones_own_is_told_by_its_code_and_not_by_its_name_alone(folder: Path) -> None:
    plugins.load(["their_toy"])
    theirs = type("Noise", (Noise,), {"__module__": "their_toy"})
    assert Noise(0.1).spec == {"kind": "Noise", "radius": 0.1, "draw": 0}
    assert theirs(0.1).spec == {**Noise(0.1).spec, **plugins.code_of("their_toy")} != Noise(0.1).spec


def test_a_data_set_is_told_by_who_registers_it_also_where_a_partial_function_opens_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fill()
    monkeypatch.setattr(data, "_ENTRIES", dict(data._ENTRIES))
    data.register("theirs", "a set of theirs", object)(partial(data.entry("folder").open))
    assert data.entry("theirs").made_by == __name__
    # Of the framework's own the store is not to be made anew with every version of Python.
    assert plugins.code_of(data.entry("folder").made_by) == {}
