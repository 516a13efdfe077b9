"""Run what a table or figure of a paper needs, then print it: `python -m xai.sweep sweeps/NAME.yaml [overrides]`.

A sweep file lists its runs as combinations of Hydra overrides. Whatever the store already holds is read, so a sweep
that was stopped goes on, and jobs on other machines may fill the same store meanwhile.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import hydra

from xai.app import check, run
from xai.cli import prepare, report_errors
from xai.core.composing import CONF
from xai.core.errors import UserError
from xai.core.folders import run_folder, shown
from xai.core.overrides import overrides, typed_keys
from xai.core.progress import console
from xai.report.sweeps import Sweep, read_sweep, show


def run_all(sweep: Sweep, name: str, extra: Sequence[str]) -> list[Path]:
    """Run every combination in this process, one after the other; returns the folder of each."""
    folders, jobs = [], []
    combinations = sweep.runs()
    for chosen in combinations:
        given = overrides([*chosen, *extra])
        with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
            jobs.append((hydra.compose("config", overrides=given), typed_keys(given)))
        # All of them, before the first takes its hours.
        check(*jobs[-1])
    for number, (chosen, (config, keys)) in enumerate(zip(combinations, jobs, strict=True), start=1):
        label = ",".join(part.replace("/", "-") for part in chosen[len(sweep.common) :]) or "run"
        folder = Path("outputs") / name / label
        console.rule(f"{number} of {len(combinations)}: {label}")
        run(config, folder, keys)
        folders.append(folder)
    return folders


def main(arguments: Sequence[str]) -> None:
    """Run a sweep file and show what it is for."""
    if not arguments or arguments[0] in ("-h", "--help"):
        raise UserError("usage: python -m xai.sweep sweeps/NAME.yaml [KEY=VALUE ...]")
    path = Path(arguments[0])
    sweep = read_sweep(path)
    folders = run_all(sweep, path.stem, arguments[1:])
    typed = shlex.join(["python", "-m", "xai.sweep", *arguments])
    with run_folder(Path("outputs") / path.stem) as folder:
        page = show(sweep, folders, folder, typed)
    console.print(f"report: [bold]{shown(page)}[/]", highlight=False, soft_wrap=True)


if __name__ == "__main__":
    prepare()
    sys.exit(report_errors(lambda: main(sys.argv[1:])))
