"""`--help GROUP=CHOICE` says what every setting means, by the comments of conf/ and the docstrings of the settings."""

import sys
from pathlib import Path

import pytest

from tests.toolbox import cases, refusal
from xai import cli, help
from xai.core.composing import CONF
from xai.core.errors import UserError


def files(group: str) -> dict[str, Path]:
    return {path.stem: path for path in (CONF / group).glob("*.yaml")}


@pytest.mark.parametrize("group", ["explainer", "data", "trainer", "logger"])
def test_every_setting_has_a_meaning(group: str) -> None:
    for choice in sorted(files(group)):
        about, settings = help.described(group, choice, files(group))
        assert about, choice
        assert [each.path for each in settings if not each.meaning] == [], choice


@pytest.mark.parametrize(("asked", "said"), cases(__file__, "help.txt"))
def test_help_about_one_thing(
    asked: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["xai", "--help", asked])
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(help.console, "width", 200)
    assert cli.main() == 0
    out = capsys.readouterr().out
    for each in said.split(" ... "):
        assert each in out


def test_what_there_is_no_help_about_is_refused() -> None:
    assert "did you mean explainer" in refusal(help.tell, "explaner")
    assert "did you mean rise" in refusal(help.tell, "explainer=rize")


def test_own_files_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "explainer").mkdir()
    lines = ["# Mine.", "# Two lines.", "variant_of: rise", "masks: 7   # so many", "           # and no more"]
    text = "\n".join([*lines, "nested:", "  a: '#1'  # one"])
    (tmp_path / "explainer" / "mine.yaml").write_text(text)
    help.tell("explainer=mine", str(tmp_path))
    out = " ".join(capsys.readouterr().out.split())
    assert "Mine. Two lines." in out
    page = help.read(tmp_path / "explainer" / "mine.yaml")
    assert page.settings[1:] == [("masks", "7", "so many and no more"), ("nested.a", "'#1'", "one")]
    assert page.starts_from == ["rise"]


@pytest.mark.parametrize("group", ["data", "model"])
def test_own_files_of_what_a_plug_in_brings_are_told_of_without_it(
    group: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / group).mkdir()
    (tmp_path / group / "mine.yaml").write_text("# Mine.\nname: stripes\nfamily: textures\nwidth: 8   # so many\n")
    help.tell(f"{group}=mine", str(tmp_path))
    out = " ".join(capsys.readouterr().out.split())
    assert "Mine." in out
    assert f"{group}.width 8 so many" in out


@pytest.mark.parametrize("content", [b"# caf\xe9\n", b"[1]\n", b"a: [1\n"])
def test_an_own_file_that_holds_no_settings_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "explainer").mkdir()
    (tmp_path / "explainer" / "mine.yaml").write_bytes(content)
    with pytest.raises(UserError, match=r"mine\.yaml (cannot be read|must hold settings)"):
        help.tell("explainer", str(tmp_path))


def test_arguments_of_a_docstring() -> None:
    lines = ["One.", "", "Args:", "    a: First,", "        and more.", "    b: Second.", "", "Returns:", "    c: No."]
    assert help.arguments("\n".join(lines)) == [("a", "First, and more."), ("b", "Second.")]
