import sys
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from xai.core import plugins
from xai.core.errors import UserError
from xai.core.files import fingerprint_file
from xai.explainers import registry

TOY = """
from xai.explainers.registry import explainer

@explainer("{name}", label="Toy", about="for tests")
class Toy:
    pass
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path of imports; what is imported from it is forgotten afterwards."""
    registry.names()
    monkeypatch.setattr(registry, "_ENTRIES", dict(registry._ENTRIES))
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("their_toy", "their_thief", "their_broken"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    (tmp_path / "their_toy.py").write_text(TOY.format(name="toy"))
    (tmp_path / "their_thief.py").write_text(TOY.format(name="rise"))
    (tmp_path / "their_broken.py").write_text("import nothing_of_that_name\n")
    yield tmp_path
    for name in ("their_toy", "their_thief", "their_broken"):
        sys.modules.pop(name, None)


def test_a_module_by_name_registers_what_it_has_once(folder: Path) -> None:
    plugins.load(["their_toy", "their_toy"])
    plugins.load(["their_toy"])
    assert registry.entry("toy").made_by == "their_toy"


def test_an_installed_package_registers_by_its_entry_point(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "_installed_loaded", False)
    monkeypatch.setattr(plugins, "entry_points", lambda group: [EntryPoint("toys", "their_toy", group)])
    monkeypatch.setattr(registry, "_filled", False)
    assert "toy" in registry.names()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("no_such_module", "plugins: no_such_module cannot be imported (ModuleNotFoundError: No module named"),
        ("their_broken", "plugins: their_broken cannot be imported (ModuleNotFoundError: No module named 'nothing_of"),
        (
            "their_thief",
            "plugins: their_thief: the name rise is taken: xai.explainers.posthoc.rise and their_thief both register",
        ),
    ],
)
def test_what_cannot_be_loaded_is_one_line_that_names_the_module(folder: Path, module: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        plugins.load([module])
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_the_code_of_a_plug_in_is_a_part_of_its_keys(folder: Path) -> None:
    plugins.code_of.cache_clear()
    plugins.load(["their_toy"])
    before = plugins.code_of("their_toy")
    assert before == {"code": fingerprint_file(folder / "their_toy.py")[:20]}
    entry = replace(registry.entry("toy"), of_context=lambda *_: registry.Prepared({"toy": 1}, list))
    assert entry.prepare(None, None).made_from == {"toy": 1, **before}  # type: ignore[arg-type]
    (folder / "their_toy.py").write_text(TOY.format(name="toy") + "# another\n")
    plugins.code_of.cache_clear()
    assert plugins.code_of("their_toy") != before
    assert plugins.code_of("xai.explainers.posthoc.rise") == plugins.code_of("sys") == {}
