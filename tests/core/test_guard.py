"""No configuration runs code that is not ours, and no name leaves outputs/."""

import sys
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from tests.toolbox import cases, refusal
from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.core.guard import check_config, check_name


def config(**hydra: Any) -> Any:
    basic = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
    return OmegaConf.create({"name": "a", "store": "s", "hydra": {"launcher": basic, **hydra}})


@pytest.mark.parametrize(("path", "value"), cases(__file__, "code.txt"))
def test_code_is_not_named(path: str, value: str) -> None:
    given = config()
    check_config(given)
    OmegaConf.update(given, path, value, force_add=True)
    told = refusal(check_config, given)
    assert "names code" in told
    assert path.removesuffix(".y") in told


LOGGING = yaml.safe_load((CONF / "hydra" / "job_logging" / "quiet.yaml").read_text())


@pytest.mark.parametrize(("path", "value", "wanted"), cases(__file__, "of_hydra.txt"))
def test_what_a_file_may_not_say_of_hydra_can_be_typed_or_chosen(
    monkeypatch: pytest.MonkeyPatch, path: str, value: Any, wanted: str
) -> None:
    given = config(job_logging=LOGGING)
    monkeypatch.setattr(sys, "argv", ["run.py"])
    check_config(given)
    OmegaConf.update(given, f"hydra.{path}", value, force_add=True)
    given.explainers = {"rise": LOGGING}
    with pytest.raises(UserError) as caught:
        check_config(given)
    assert wanted in str(caught.value)
    typed_alike = ("read by a shell", "outside of outputs/", "may leave outputs/")
    monkeypatch.setattr(sys, "argv", ["run.py", f"+hydra.{path}={value}"])
    if wanted in typed_alike:
        check_config(given)


def test_what_is_shipped_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py"])
    slurm = {"_target_": "hydra_plugins.xai_launchers.Slurm", "cluster": "slurm", "requeues": 3, "mem_gb": 4}
    sweep = {"dir": "outputs/${name}", "subdir": "${xai.flat:${hydra:job.override_dirname}}"}
    check_config(config(launcher=slurm, job_logging=LOGGING, run={"dir": "outputs/${name}"}, sweep=sweep))


LEAVES = ("", " ", ".", "..", "a/../../..", "/tmp/x", "a//b", "store", "store/x", ".hidden", "~", "a/~b", "a/.b")


@pytest.mark.parametrize("name", [*LEAVES, "a\x1b[31m"])
def test_a_name_that_leaves_is_refused(name: str) -> None:
    assert "is no folder below outputs/" in refusal(check_name, name)


@pytest.mark.parametrize("name", ["x" * 201, "é" * 101, "x/" * 500 + "x"])
def test_a_name_that_leaves_no_room_for_names_of_files_is_refused(name: str) -> None:
    told = refusal(check_name, name)
    assert "is too long for a folder" in told
    assert len(told) < 200
    check_name(name[:99])


@pytest.mark.parametrize("name", ["a", "a/b", "2024-01-01", "seed=1,lr=2", "имя", "restore"])
def test_a_name_that_stays_passes(name: str) -> None:
    check_name(name)
