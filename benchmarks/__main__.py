"""Measure, and print tables in markdown: `make bench`, or `python -m benchmarks --help`."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import explainer_step, kernel_shap, masked_forward, ranking_step, sinkhorn
from benchmarks.machine import description
from benchmarks.setup import setups
from xai.core.errors import UserError

SCRIPTS = {
    "kernel_shap": kernel_shap.run,
    "masked_forward": masked_forward.BENCHMARK.run,
    "explainer_step": explainer_step.BENCHMARK.run,
    "ranking_step": ranking_step.BENCHMARK.run,
    "sinkhorn": sinkhorn.BENCHMARK.run,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the command line asks for.

    Returns:
        The exit status: 0, or 1 where a contender failed or did other work than it was measured for.
    """
    try:
        return _main(_parser().parse_args(arguments))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Speed and memory, as tables.")
    parser.add_argument("--only", choices=SCRIPTS, help="one script instead of all")
    parser.add_argument("--device", choices=("all", "cpu", "cuda"), default="all", help="default: whatever there is")
    parser.add_argument("--threads", type=int, default=1, help="threads (and cores) of every contender; default 1")
    parser.add_argument("--rounds", type=int, help="rounds of every contender, instead of a few where they are long")
    parser.add_argument("--small", action="store_true", help="sizes that mean nothing but are done in a moment")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables to a file as well")
    return parser


def _main(options: argparse.Namespace) -> int:
    for name in ("threads", "rounds"):
        number = getattr(options, name)
        if number is not None and number < 1:
            raise UserError(f"--{name} {number} must be 1 or more")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda needs a GPU, and torch sees none: use --device cpu")
    if options.markdown is not None and not options.markdown.parent.is_dir():
        raise UserError(f"--markdown {options.markdown}: there is no folder {options.markdown.parent}")
    start, faults = time.perf_counter(), 0

    def say(line: str) -> None:
        print(f"[{time.perf_counter() - start:5.0f} s] {line}", file=sys.stderr, flush=True)

    parts = [description()]
    print(parts[0], flush=True)
    for name in [options.only] if options.only else list(SCRIPTS):
        for setup in setups(options.device, options.threads):
            say(f"{name}: {setup.title}")
            for report in SCRIPTS[name](setup, options.rounds, options.small, say):
                parts.append(report.text)
                print(f"\n{report.text}", flush=True)
                for fault in report.faults:
                    print(f"error: {fault}", file=sys.stderr)
                faults += len(report.faults)
    if options.markdown is not None:
        options.markdown.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
