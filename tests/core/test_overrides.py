"""What is typed as Hydra is to have it."""

from pathlib import Path

import hydra
import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.toolbox import refusal
from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.core.overrides import added, apart, command, fixed, label, overrides, without_launcher


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


def test_what_starts_the_jobs_is_no_part_of_what_made_the_numbers() -> None:
    started = "launcher=processes hydra.launcher.jobs=2 +hydra.launcher.env=1 hydra/launcher=joblib"
    assert without_launcher(f"xai -m {started} sweep=mine 'name=a b'") == "xai -m sweep=mine 'name=a b'"


def read(typed: str, many: bool = False) -> object:
    (text,) = overrides([typed], many=many)
    return OverridesParser.create().parse_override(text).value()


def test_a_file_with_a_comma_in_its_name_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a,b.jpg").touch()
    assert read("image=a,b.jpg") == read("image=a,b.jpg", many=True) == "a,b.jpg"
    assert "a list is image=[a,c.jpg]" in refusal(read, "image=a,c.jpg")


def test_no_list_of_files_is_offered_where_one_is_chosen() -> None:
    with pytest.raises(UserError, match=r"explainer=rise,grad_cam has several values: .* add -m$"):
        read("explainer=rise,grad_cam")


@pytest.mark.parametrize("typed", ["model.crop=0.9", "model.fit=squash", "model.interpolation=bilinear"])
def test_how_a_named_network_sees_photographs_is_added_to_a_model_that_says_nothing_of_it(typed: str) -> None:
    assert overrides([typed]) == [f"++{typed}"]


@pytest.mark.parametrize("name", ["tench, Tinca tinca", "true", "1_000", "7", "potter's wheel", "nail (tool)"])
def test_the_name_of_a_class_is_text_whatever_it_looks_like(name: str) -> None:
    assert read(f"target={name}") == name
    assert read("target=null") is None
    assert read("image=[2023, true,a (1).png]") == read("image=['2023','true','a (1).png']")
    assert read("classes=[0,null,cat]") == ["0", "null", "cat"]


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


def test_a_run_is_called_by_all_that_was_typed_for_it_where_that_is_short() -> None:
    typed = ["study=salvage", "++explainers.rise.masks=5", "data.root=/a/b", "seed=3", "name=n", "logger=csv"]
    assert label(typed, {}, ["study"]) == "data.root=-a-b,explainers.rise.masks=5,seed=3,study=salvage"
    assert label(typed, {"study": "salvage", "seed": "0,1"}) == "data.root=-a-b,explainers.rise.masks=5,seed=3"
    assert label(["name=n"], {}) == "run"


def test_a_run_that_would_have_a_long_name_is_called_by_what_is_swept() -> None:
    settings = [f"checkpoint=/{'x' * 100}/c.safetensors", "rows=[rise,kernel_shap,saliency,random]", "case.images=16"]
    given = OverridesParser.create().parse_override(fixed([*settings, "seed=0,1", "+name=n"]))
    assert given.value() == ["checkpoint", "rows", "case.images", "name"]
    names = [label([*settings, f"seed={seed}"], {}, given.value()) for seed in (0, 1)]
    rest = names[0].removeprefix("seed=0,rest=")
    assert names == [f"seed={seed},rest={rest}" for seed in (0, 1)]
    assert len(rest) == 8
    # Another sweep into the same folder has folders of its own.
    assert label([*settings[:2], "case.images=32", "seed=0"], {}, given.value()).startswith("seed=0,rest=")
    assert label([*settings[:2], "case.images=32", "seed=0"], {}, given.value()) != names[0]


def test_what_is_swept_and_long_is_cut_in_the_middle_and_counted_in_bytes() -> None:
    names = [label([f"checkpoint=/{'é' * 200}{each}.pt", "seed=0"], {}) for each in "ab"]
    assert len(set(names)) == 2
    for name, end in zip(names, ("a.pt,seed=0", "b.pt,seed=0"), strict=True):
        assert name.startswith("checkpoint=-é")
        assert name.endswith(end)
        assert len(name.encode()) <= 60 + len(",seed=0")
    many = [f"k{number}={'v' * 30}" for number in range(20)]
    assert len(label(many, {})) <= 150
    assert label(many, {}) != label([*many[:9], "k9=other", *many[10:]], {})


def test_a_run_is_called_by_nothing_that_a_terminal_obeys() -> None:
    name = label(["classes=a\x1b[31m\udcff/b"], {})
    assert name == "classes=a-[31m--b"


def test_runs_that_stand_together_are_called_by_what_tells_them_apart() -> None:
    rows = ["rows=[rise,random]", "rows=[rise,saliency]"]
    assert apart([f"a=1,{each},rest=12345678" for each in rows]) == rows
    assert apart(["a=1,b=2"]) == ["a=1,b=2"]
    assert apart(["a=1", "a=1"]) == ["a=1", "a=1"]
