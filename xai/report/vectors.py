"""What a transfer of explainability vectors comes to: the sweep over lambda2, three sentences, its diagnostics."""

from dataclasses import replace
from pathlib import Path

from xai.metrics import registry as metrics
from xai.papers.vectors.study import TransferStudy
from xai.report.headline import transferred
from xai.report.layout import TableParams
from xai.report.parts import Table
from xai.report.present import OTHER_SETTINGS, Told, source_of, usual
from xai.report.tables import build_tables, by_parameter
from xai.study.frame import Frames

_SWEEP = TableParams(
    title="Explainability vectors over λ2",
    columns=[
        "accuracy",
        "e_rmse",
        "kendall",
        "iou@1",
        "iou@5",
        "iou@10",
        "centred_correlation",
        "rma",
        "pointing_game",
    ],
    percent=False,
    notes=["λ2 was chosen on the validation split; these are the test images. No line needed any training."],
)
_DOUBTS = {
    "random_vector": "any change of the parameters of that size would do",
    "other_class": "the maps hardly depend on the class that is asked for",
    "source_prior": "one map for all images would do",
    "brightness": "the maps follow brightness and not the classifier",
    "constant": "a map that says nothing is nearer to the reference",
}
"""By control, what could be true where it does as well as the method; follows "that"."""

_THEORY = {
    "similarity_ft": "cosine of the classification vectors, source and target (Appendix C)",
    "similarity_star": "cosine of the explainability vectors, source and target (Appendix C)",
    "risk": "risk R of equation 12: the explainability vector on the target's classification loss",
    "risk_random": "the same of a random vector with the same norms",
}


def told(study: TransferStudy, frames: Frames, output: Path) -> Told:
    """Hand over what a user can hold, and say what the study comes to."""
    transfer, lambda2 = study.transfer, study.lambda2
    assert lambda2 is not None
    transfer.hand_over(output, lambda2)
    how = "as asked for" if transfer.params.lambda2 is not None else "chosen on the validation split"
    theory = transfer.diagnostics(bound=any(row.name == "ft_target_x" for row in study.rows))
    made = {"λ2": f"{lambda2:g}, {how}"} | {_THEORY[name]: f"{value:.3g}" for name, value in theory.items()}
    assert study.reference is not None
    rows = replace(source_of(frames), scores=usual(frames.scores))
    return Told(transferred(rows, _DOUBTS, study.reference.label), {"sweep": sweep_tables(frames, lambda2)}, made)


def sweep_tables(frames: Frames, chosen: float) -> list[Table]:
    """Figure 3 in numbers: a line for each lambda2 on the test images."""
    scores = frames.scores[frames.scores["split"] == "test"]
    lines = scores[scores["explainer"].str.startswith(f"proposed{OTHER_SETTINGS}")]
    return build_tables(by_parameter(lines, "lambda2", "λ2", chosen), _SWEEP, metrics.columns()) if len(lines) else []
