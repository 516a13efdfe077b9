"""No configuration runs code that is not ours, and no name leaves outputs/."""

from typing import Any

import pytest
from omegaconf import OmegaConf

from xai.core.errors import UserError
from xai.core.guard import check_config, check_name

HANDLER = "hydra.job_logging.handlers.console"


def config(**hydra: Any) -> Any:
    basic = {"_target_": "hydra._internal.core_plugins.basic_launcher.BasicLauncher"}
    return OmegaConf.create({"name": "a", "store": "s", "hydra": {"launcher": basic, **hydra}})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("hydra.callbacks.x._target_", "sympy.sympify"),
        ("hydra.callbacks.x._target_", "hydra.experimental.callbacks.LogJobReturnCallback"),
        ("hydra.callbacks", "${evil}"),
        ("hydra.launcher._target_", "torch.load"),
        ("hydra.launcher._target_", "${oc.env:TARGET}"),
        ("hydra.launcher.nested._target_", "joblib.load"),
        ("hydra.sweeper.params", "${oc.create:'{_target_: os.system}'}"),
        ("hydra.sweeper.params", "${oc.decode:${x}}"),
        ("model._target_", "os.system"),
        (f"{HANDLER}.()", "subprocess.Popen"),
        (f"{HANDLER}.class", "logging.handlers.SMTPHandler"),
        (f"{HANDLER}.stream", "ext://antigravity.fly"),
        ("hydra.hydra_logging.formatters.f.()", "os.system"),
    ],
)
def test_code_is_not_named(path: str, value: str) -> None:
    given = config()
    check_config(given)
    OmegaConf.update(given, path, value, force_add=True)
    with pytest.raises(UserError, match="names code") as caught:
        check_config(given)
    assert path in str(caught.value)


def test_what_is_shipped_passes() -> None:
    slurm = {"_target_": "hydra_plugins.hydra_submitit_launcher.submitit_launcher.SlurmLauncher", "mem_gb": 4}
    handlers = {"console": {"class": "logging.StreamHandler", "stream": "ext://sys.stderr"}}
    check_config(config(launcher=slurm, job_logging={"handlers": handlers}, run={"dir": "outputs/${name}"}))


@pytest.mark.parametrize(
    "name",
    ["", " ", ".", "..", "a/../../..", "/tmp/x", "a//b", "store", "store/x", ".hidden", "a/.b", "a\x1b[31m", "x" * 201],
)
def test_a_name_that_leaves_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is no folder below outputs/") as caught:
        check_name(name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["a", "a/b", "2024-01-01", "seed=1,lr=2", "имя", "restore"])
def test_a_name_that_stays_passes(name: str) -> None:
    check_name(name)
