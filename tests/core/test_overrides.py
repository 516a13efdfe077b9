"""What is typed as Hydra is to have it."""

from pathlib import Path

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.core.overrides import added, command, overrides


@pytest.mark.parametrize(
    ("program", "begins"),
    [
        ("run.py", "python run.py "),
        ("/usr/bin/xai", "xai "),
        ("/a/pytest", "python run.py "),
        ("../run.py", "python ../run.py "),
    ],
)
def test_a_command_is_told_as_it_can_be_typed_again(program: str, begins: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", [program, "task=explain", "image=a b.png"])
    assert command() == begins + "task=explain 'image=a b.png'"
    assert command(["seed=1"]) == begins + "seed=1"


def read(typed: str, many: bool = False) -> object:
    (text,) = overrides([typed], many=many)
    return OverridesParser.create().parse_override(text).value()


def test_a_file_with_a_comma_in_its_name_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b.jpg").touch()
    assert read("image=a,b.jpg") == read("image=a,b.jpg", many=True) == "a,b.jpg"
    with pytest.raises(UserError, match=r"a list is image=\[a,c.jpg\]"):
        read("image=a,c.jpg")


@pytest.mark.parametrize("key", ["checkpoint", "store", "classes", "hydra.run.dir"])
def test_a_tilde_is_the_users_own_folder(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("HOME", "/people/some one")
    assert read(f"{key}=~/a b.pt") == "/people/some one/a b.pt"
    assert read(f"{key}=~") == "/people/some one"
    assert read("name=~") == "~"


def test_axes_of_a_sweep_file_may_be_settings_that_only_the_file_of_a_row_knows() -> None:
    axes = {"seed": "0,1", "explainers.salvage.network": "vit_tiny", "experiment": "a,b"}
    assert added(axes) == {"seed": "0,1", "++explainers.salvage.network": "vit_tiny", "experiment": "a,b"}
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        config = hydra.compose("config", ["sweep=mixed_supervision"], return_hydra_config=True)
    assert config.hydra.sweeper.params["++explainers.salvage.network"] == "vit_tiny"
