"""What a person gets from `method=transfer`: the table, the sweep, three sentences, files to hold, one page to open."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from rich.markup import escape
from torch import Tensor

from xai.core.files import write_atomically
from xai.core.progress import console
from xai.core.runtime import Runtime
from xai.models import files
from xai.papers.vectors.fine_tuning import described
from xai.papers.vectors.transfer import Outcome, Transfer
from xai.papers.vectors.vector import FILE as VECTOR_FILE
from xai.reports import renderers, tables
from xai.reports.headline import headline, reference_name
from xai.reports.transfer import write_transfer_report
from xai.results import Result, copy_result, read_result, read_tensors

_COLUMNS = {
    "zero_shot": "Zero-shot",
    "ft_source": "Ft source",
    "ft_source_x": "Ft source+X",
    "ft_target": "Ft target",
    "proposed": "Proposed",
    "ft_target_x": "Ft target+X",
    "ink": "Ink",
}
"""The rows whose maps the report shows, as in Figure 4, and the control that is hardest to beat."""

_THEORY = {
    "similarity_ft": "cosine of the classification vectors, source and target (Appendix C)",
    "similarity_star": "cosine of the explainability vectors, source and target (Appendix C)",
    "risk": "risk R of equation 12: the explainability vector on the target's classification loss",
    "risk_random": "the same of a random vector with the same norms",
}


def present(runtime: Runtime, job: Transfer, outcome: Outcome, output: Path, pictures: int, command: str) -> None:
    """Print what a transfer gave and write it into the folder of the run.

    Args:
        runtime: The bench it was made at.
        job: The stages.
        outcome: Their results.
        output: The folder.
        pictures: How many test images the report shows.
        command: What was typed.
    """
    rows = [read_result(artifact.path) for artifact in outcome.rows]
    sweep = [read_result(artifact.path) for artifact in outcome.sweep]
    table = tables.transfer_table(rows)
    _hand_over(job, outcome, output)
    for suffix, text in {"md": renderers.as_markdown(table), "csv": renderers.as_csv(table)}.items():
        write_atomically(output / f"table.{suffix}", text.encode())
    console.print(renderers.as_rich(table, console.width))
    console.print(renderers.as_rich(tables.sweep_table(sweep, outcome.lambda2), console.width))
    for sentence in headline(rows, outcome.lambda2, job.model.image_size):
        console.print(f"- {escape(sentence)}", highlight=False)
    report = write_transfer_report(
        output,
        results=rows,
        sweep=sweep,
        ft_target=next(row for row in rows if row.role == "ft_target"),
        chosen=outcome.lambda2,
        pictures=_pictures(outcome, pictures),
        command=command,
        notes=_notes(runtime, outcome),
    )
    _log(runtime, rows)
    store, page = os.path.relpath(runtime.store.root), os.path.relpath(report)
    console.print(f"\nstore: {runtime.store.summary()} ({escape(store)})", highlight=False, soft_wrap=True)
    console.print(f"report: [bold]{escape(page)}[/]", highlight=False, soft_wrap=True)


def _hand_over(job: Transfer, outcome: Outcome, output: Path) -> None:
    """Copy what a user can hold out of the store: results, the vector, the transferred model."""
    for name in ("results", "sweep"):
        shutil.rmtree(output / name, ignore_errors=True)
    for artifact in outcome.rows:
        copy_result(artifact, output / "results" / read_result(artifact.path).role)
    for artifact in [*outcome.sweep, *outcome.validation]:
        result = read_result(artifact.path)
        copy_result(artifact, output / "sweep" / result.split / f"lambda2={result.params['lambda2']:g}")
    vector = outcome.vector.file(VECTOR_FILE)
    write_atomically(output / VECTOR_FILE, vector.read_bytes())
    spec = described(job.model, job.base, job.target, explains=True, seed=job.seed)
    files.write(output / "model.safetensors", outcome.network.cpu(), spec)
    ft_target = job.ft_target.file("classifier.safetensors")
    write_atomically(output / "classifier.safetensors", ft_target.read_bytes())


def _pictures(outcome: Outcome, number: int) -> dict[str, Any]:
    """The first test image of each class in turn, with the maps of every row."""
    labels = outcome.examination.reference.labels
    chosen = _one_of_each(labels, number)
    pixels = outcome.examination.images.pixels[chosen]
    reference = outcome.examination.reference.attributions
    name = reference_name([read_result(artifact.path) for artifact in outcome.rows])
    columns: list[tuple[str, Tensor, Tensor | None]] = [(f"{name} (reference)", reference[chosen], None)]
    for artifact in outcome.rows:
        role = read_result(artifact.path).role
        if role in _COLUMNS:
            tensors = read_tensors(artifact.path)
            predictions = tensors["logits"].argmax(1)[chosen] if "logits" in tensors else None
            columns.append((_COLUMNS[role], tensors["attributions"][chosen], predictions))
    return {
        "images": (pixels * 255).round().to(torch.uint8),
        "labels": labels[chosen],
        "class_names": list(outcome.examination.data.source.classes),
        "columns": columns,
    }


def _one_of_each(labels: Tensor, number: int) -> Tensor:
    """Row numbers that go round the classes: not chosen by how well anything looks."""
    rounds: dict[int, int] = {}
    order = []
    for row, label in enumerate(labels.tolist()):
        rounds[label] = rounds.get(label, -1) + 1
        order.append((rounds[label], label, row))
    return torch.tensor([row for _, _, row in sorted(order)[:number]], dtype=torch.long)


def _notes(runtime: Runtime, outcome: Outcome) -> dict[str, str]:
    seconds = sum(artifact.seconds for artifact in (*runtime.store.made, *runtime.store.found))
    lineage = read_result(outcome.rows[0].path).lineage
    versions = ", ".join(f"{name} {number}" for name, number in lineage["versions"].items())
    theory = {_THEORY[name]: f"{value:.3g}" for name, value in outcome.diagnostics.items()}
    return {
        "lambda2": f"{outcome.lambda2:g}, "
        + ("chosen on the validation split" if outcome.was_chosen else "as asked for"),
        "time to make everything": f"{seconds:.0f} s",
        "device": str(runtime.trainer.device),
        "precision": runtime.trainer.precision,
        "versions": versions,
        "commit": str(lineage["commit"]),
        **theory,
    }


def _log(runtime: Runtime, rows: list[Result]) -> None:
    if not runtime.logger:
        return
    runtime.logger.log_metrics(
        {f"result/{row.role}/{name}": value for row in rows for name, value in row.metrics.items()}
    )
    runtime.logger.finalize("success")
