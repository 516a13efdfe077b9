from pathlib import Path

import pytest
import torch

from benchmarks import __main__ as command
from benchmarks.harness import Report


def scripts(monkeypatch: pytest.MonkeyPatch, *faults: str) -> list[tuple]:
    asked = []

    def run(setup, rounds, small, say):
        asked.append((setup.title, rounds, small))
        say("working")
        return [Report("### A table", faults)]

    monkeypatch.setattr(command, "SCRIPTS", {"kernel_shap": run, "masked_forward": run})
    return asked


def test_everything_is_measured_and_printed_under_the_machine(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    asked = scripts(monkeypatch)
    file = tmp_path / "tables.md"
    assert command.main(["--device", "cpu", "--markdown", str(file)]) == 0
    assert asked == [("CPU, float32, 1 thread", None, False)] * 2
    shown = capsys.readouterr()
    assert shown.out.startswith("Machine: ")
    assert shown.out.count("### A table") == 2
    assert file.read_text(encoding="utf-8") == shown.out
    assert "working" in shown.err


def test_options_reach_the_script(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = scripts(monkeypatch)
    options = ["--only", "masked_forward", "--threads", "2", "--rounds", "5", "--small", "--device", "cpu"]
    assert command.main(options) == 0
    assert asked == [("CPU, float32, 2 threads", 5, True)]


def test_a_fault_is_one_line_and_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    scripts(monkeypatch, "captum failed: no memory")
    assert command.main(["--only", "kernel_shap", "--device", "cpu"]) == 1
    assert "error: captum failed: no memory\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--rounds", "0"], "error: --rounds 0 must be 1 or more\n"),
        (["--threads", "-1"], "error: --threads -1 must be 1 or more\n"),
        (["--device", "cuda"], "error: --device cuda needs a GPU, and torch sees none: use --device cpu\n"),
        (["--markdown", "no/such/file.md"], "error: --markdown no/such/file.md: there is no folder no/such\n"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_any_work(
    options: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = scripts(monkeypatch)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main(options) == 2
    assert capsys.readouterr().err == line
    assert asked == []


def test_an_interrupt_is_no_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*args: object) -> list[Report]:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "SCRIPTS", {"kernel_shap": run})
    assert command.main(["--only", "kernel_shap", "--device", "cpu"]) == 130
    assert capsys.readouterr().err.endswith("interrupted\n")
