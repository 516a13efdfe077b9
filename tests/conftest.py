"""What every test may count on: one thread, no network, no traces in the home folder, and a run that really ran.

Nothing here imports torch: tests of the store and of the house start in a moment.
"""

import ipaddress
import logging
import os
import pickle
import socket
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_SCRATCH = tempfile.TemporaryDirectory(prefix="xai-tests-")

# Set before anything reads them, and inherited by the processes that tests start.
os.environ.update(
    HF_HOME=os.path.join(_SCRATCH.name, "huggingface"),
    HF_HUB_OFFLINE="1",
    MPLBACKEND="Agg",
    WANDB_DIR=_SCRATCH.name,
    WANDB_MODE="offline",
    WANDB_SILENT="true",
    XDG_CACHE_HOME=os.path.join(_SCRATCH.name, "cache"),
    # Small tensors gain nothing from threads, and two workers with two threads each lose to one another.
    MKL_NUM_THREADS="1",
    OMP_NUM_THREADS="1",
)


class NetworkBlockedError(RuntimeError):
    """A test tried to reach another machine. No OSError, which a library would take for bad luck and retry."""


def _is_local(host: object) -> bool:
    if host in (None, "", b"", "localhost", b"localhost"):
        return True
    text = host.decode() if isinstance(host, bytes) else str(host)
    try:
        return ipaddress.ip_address(text.split("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """A job that a test ran in this process sets what is logged, and more; for the tests after it all is as it was."""
    loggers = [logging.getLogger(name) for name in (None, "xai")]
    levels, handlers = [logger.level for logger in loggers], list(loggers[0].handlers)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    loggers[0].handlers[:] = handlers
    os.environ.pop("HYDRA_FULL_ERROR", None)
    if "torch" in sys.modules:
        sys.modules["torch"].use_deterministic_algorithms(False)


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Only loopback and Unix sockets connect; other names are not even looked up."""

    def guarded(name: str) -> Any:
        original = getattr(socket.socket, name)

        def connect(self: socket.socket, address: Any) -> Any:
            if self.family in (socket.AF_INET, socket.AF_INET6) and not _is_local(address[0]):
                raise NetworkBlockedError(f"a test tried to connect to {address[0]}:{address[1]}")
            return original(self, address)

        return connect

    original_lookup = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not _is_local(host):
            raise NetworkBlockedError(f"a test tried to look up {host}")
        return original_lookup(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(name))
        patch.setattr(socket, "getaddrinfo", getaddrinfo)
        yield


@pytest.fixture(scope="session", autouse=True)
def settings_read_once() -> Iterator[None]:
    """Composing reads some forty files for each command; those of the framework and of Hydra do not change."""
    if "hydra" not in sys.modules:
        yield
        return
    from hydra._internal.sources_registry import SourcesRegistry
    from hydra.core.plugins import Plugins

    from xai.core.composing import CONF

    Plugins.instance()  # which makes the classes of its readers anew
    kept: dict[tuple[str, ...], bytes] = {}

    def keeping(read: Any) -> Any:
        def load(self: Any, config_path: str) -> Any:
            if self.scheme() == "file" and Path(self.path) != CONF:
                return read(self, config_path)
            at = self.provider, self.path, config_path
            if at not in kept:
                kept[at] = pickle.dumps(read(self, config_path))
            return pickle.loads(kept[at])

        return load

    with pytest.MonkeyPatch.context() as patch:
        for scheme in ("file", "pkg"):
            source: Any = SourcesRegistry.instance().resolve(scheme)
            patch.setattr(source, "load_config", keeping(source.load_config))
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long, and skip what needs a GPU where there is none."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    # Of several processes none is left with a long file when the others have nothing more to do.
    items.sort(key=lambda item: item.path not in slow)
    needing = [item for item in items if item.get_closest_marker("gpu")]
    if not needing:
        return
    import torch

    if not torch.cuda.is_available():
        for item in needing:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Let a run in which every test was skipped fail, as one without tests already does."""
    terminal = session.config.pluginmanager.get_plugin("terminalreporter")
    if terminal is None or session.config.option.collectonly or exitstatus != pytest.ExitCode.OK:
        return
    if not any(terminal.stats.get(outcome) for outcome in ("passed", "xfailed")):
        terminal.write_line("\nevery test was skipped, which counts as a failure")
        session.exitstatus = pytest.ExitCode.NO_TESTS_COLLECTED
