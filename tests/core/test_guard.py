"""No configuration runs code that is not ours, and no name leaves outputs/."""

import sys
from typing import Any

import pytest
import yaml
from omegaconf import OmegaConf

from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.core.guard import check_config, check_name


def config(**hydra: Any) -> Any:
    basic = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
    return OmegaConf.create({"name": "a", "store": "s", "hydra": {"launcher": basic, **hydra}})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hydra.callbacks.x._target_", "sympy.sympify"),
        ("hydra.callbacks.x._target_", "hydra.experimental.callbacks.LogJobReturnCallback"),
        ("hydra.callbacks.x.y", "1"),
        ("hydra.launcher._target_", "torch.load"),
        ("hydra.launcher._target_", "${oc.env:TARGET}"),
        ("hydra.launcher.nested._target_", "joblib.load"),
        ("hydra.sweeper.params", "${oc.create:'{_target_: os.system}'}"),
        ("hydra.sweeper.params", "${oc.decode:${x}}"),
        ("model._target_", "os.system"),
        # A group that is there only when it is used, and by way of another setting.
        ("x", "${oc.create:{_target_: os.system}}"),
        ("x", "${ oc.decode:x}"),
        ("x", "${${kind}:x}"),
    ],
)
def test_code_is_not_named(path: str, value: str) -> None:
    given = config()
    check_config(given)
    OmegaConf.update(given, path, value, force_add=True)
    with pytest.raises(UserError, match="names code") as caught:
        check_config(given)
    assert path.removesuffix(".y") in str(caught.value)


LOGGING = yaml.safe_load((CONF / "hydra" / "job_logging" / "quiet.yaml").read_text())


@pytest.mark.parametrize(
    ("path", "value", "wanted"),
    [
        ("job_logging.handlers.console.()", "subprocess.Popen", "job_logging is changed"),
        ("job_logging.handlers.console.class", "logging.handlers.SMTPHandler", "job_logging is changed"),
        ("job_logging.handlers.console.stream", "${x}", "job_logging is changed"),
        ("job_logging.handlers.file", {"class": "logging.FileHandler", "filename": "theirs"}, "job_logging is changed"),
        ("job_logging", "${explainers.rise}", "job_logging is changed"),
        ("job_logging.version", 2, "job_logging is changed"),
        ("hydra_logging.formatters.f.()", "os.system", "hydra_logging is changed"),
        ("launcher", "none", "hydra.launcher=none is none: choose it"),
        ("sweeper", None, "hydra.sweeper=None is none: choose it"),
        ("launcher.setup", ["touch x"], "read by a shell"),
        ("launcher.additional_parameters", {"output": "/tmp/x"}, "read by a shell"),
        ("launcher.partition", "a\nrm -r x", "read by a shell"),
        ("launcher.partition", "${x}", "read by a shell"),
        ("job.name", "a;b", "read by a shell"),
        ("job.env_set", {"LD_PRELOAD": "x.so"}, "set variables before the command"),
        ("job.chdir", True, "change the folder before the command"),
        ("output_subdir", "../x", "is written with its results"),
        ("run.dir", "/tmp/x", "outside of outputs/"),
        ("sweep.dir", "outputs/../..", "outside of outputs/"),
        ("sweep.subdir", "../x", "leaves the folder of the sweep"),
        ("sweep.subdir", "..${x}", "may leave outputs/"),
        ("sweep.subdir", "${x}", "may leave outputs/"),
        ("verbose", [1], "true, false or a list"),
        ("nothing", 1, "is not a known setting of Hydra"),
    ],
)
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


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "a/../../..", "/tmp/x", "a//b", "store", "store/x", ".hidden", "~", "a/~b", "a/.b"),
        "a\x1b[31m",
    ],
)
def test_a_name_that_leaves_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is no folder below outputs/") as caught:
        check_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["x" * 201, "é" * 101, "x/" * 500 + "x"])
def test_a_name_that_leaves_no_room_for_names_of_files_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is too long for a folder") as caught:
        check_name(name)
    assert len(str(caught.value)) < 200
    check_name(name[:99])


@pytest.mark.parametrize("name", ["a", "a/b", "2024-01-01", "seed=1,lr=2", "имя", "restore"])
def test_a_name_that_stays_passes(name: str) -> None:
    check_name(name)
