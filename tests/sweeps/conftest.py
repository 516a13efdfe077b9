"""Sweeps whose runs only write made-up frames."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import OmegaConf

from tests.report.study_frames import scores
from xai import cli
from xai.core.errors import UserError
from xai.core.folders import MARKER
from xai.core.overrides import settings_hash
from xai.study.frame import Frames, write_frames

FAILING = {"UserError": UserError("it is\nwrong"), "bug": ZeroDivisionError("division"), "stop": KeyboardInterrupt()}

Sweeping = Callable[..., int]


def measured(folder: Path, seed: int, srg: float = 0.6) -> None:
    """What a study leaves behind."""
    folder.mkdir(parents=True, exist_ok=True)
    means = {"salvage": {"srg": srg}, "random": {"srg": 0.1}}
    found = scores(means, seeds=(seed,)).assign(chance=float("nan"))
    write_frames(folder, Frames(found, pd.DataFrame(), pd.DataFrame(), pd.DataFrame()))
    (folder / MARKER).write_text(json.dumps({"written": ["scores.csv"]}))


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweeping:
    """Runs the command line in an empty folder; a seed may fail in one of the ways of `FAILING`.

    Its numbers depend on `surrogate.fit.clip` alone.
    """
    monkeypatch.chdir(tmp_path)
    Path("conf/sweep").mkdir(parents=True)
    Path("conf/table").mkdir()
    Path("conf/table/toy.yaml").write_text(
        "{title: Toy, about: b, columns: [srg], groups: [{heading: all, rows: [salvage, random]}]}"
    )
    Path("conf/sweep/toy.yaml").write_text(
        "{title: Toys, about: Look., axes: {study: salvage, seed: '0,1,2', logger: none}, tables: [toy]}"
    )

    def run(*typed: str, fails: dict[int, str] | None = None) -> int:
        def job(config: Any, folder: Path, keys: object) -> None:
            if config.seed in (fails or {}):
                raise FAILING[(fails or {})[config.seed]]
            (folder / ".hydra").mkdir(parents=True, exist_ok=True)
            (folder / ".hydra" / "made.yaml").write_text(f"settings: '{settings_hash(config)}'")
            (folder / ".hydra" / "overrides.yaml").write_text(OmegaConf.to_yaml(HydraConfig.get().overrides.task))
            measured(folder, config.seed, 0.5 + 0.1 * (config.surrogate.fit.clip or 0))

        with monkeypatch.context() as patch:
            if "-m" in typed or any("/seed=" in each for each in typed):
                patch.setattr("xai.app.run", job)
            patch.setattr(sys, "argv", ["run.py", "--config-dir=conf", *typed])
            return cli.main()

    return run
