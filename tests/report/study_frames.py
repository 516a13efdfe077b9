"""Frames of made-up numbers, with the columns of a study's."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from xai.metrics.registry import Column
from xai.report.figures import Source

SEEDS, IMAGES, PLAYERS = (0, 1, 2), 12, 16


COLUMNS = {
    name: Column(name, label, "", better, unit, digits=1)
    for name, label, better, unit in (
        ("srg", "SRG", "higher", "%"),
        ("r_srg", "R-SRG", "higher", "%"),
        ("mif", "MIF", "lower", "%"),
        ("lif", "LIF", "higher", "%"),
        ("r_mif", "R-MIF", "lower", "%"),
        ("r_lif", "R-LIF", "higher", "%"),
        ("accuracy", "Accuracy", "higher", "%"),
        ("classifier_accuracy", "Classifier's accuracy", "higher", "%"),
        ("e_rmse", "E-RMSE", "lower", ""),
        ("iou@10", "IoU@10", "higher", "%"),
        ("insertion_auc", "Insertion", "higher", "%"),
        ("deletion_auc", "Deletion", "lower", "%"),
        ("rma", "RMA", "higher", "%"),
        ("mass", "Attribution on the mark", None, "%"),
        ("mass_before", "Attribution on the mark", None, "%"),
        ("mark_area", "Area of the mark", None, "%"),
    )
}


def line(explainer: str, seed: int = 0, data: str = "digits", **more: Any) -> dict[str, Any]:
    return {
        "case": "main", "explainer": explainer, "label": explainer.replace("_", " "), "kind": "trained", "model": "vit",
        "data": data, "source": None, "seed": seed, "split": "test",
    } | more  # fmt: skip


def scores(
    means: Mapping[str, Mapping[str, float]], kind: str = "trained", seeds: tuple[int, ...] = SEEDS, **more: Any
) -> pd.DataFrame:
    """A value an image around the mean of each explainer and metric; the noise sums to 0 over the images of a seed."""
    noise = np.linspace(-0.05, 0.05, IMAGES)
    return pd.DataFrame(
        line(explainer, seed, kind=kind, **more) | {"metric": metric, "image": image, "value": mean + noise[image]}
        for explainer, metrics in means.items()
        for metric, mean in metrics.items()
        for seed in seeds
        for image in range(IMAGES)
    )


def curves(values: Mapping[str, Mapping[str, np.ndarray]], seeds: tuple[int, ...] = SEEDS, **more: Any) -> pd.DataFrame:
    """Curves [K] of each explainer, in seed s higher by s hundredths."""

    def lines() -> Iterator[dict[str, Any]]:
        for explainer, of_row in values.items():
            for curve, points in of_row.items():
                for seed in seeds:
                    for x, value in zip(np.linspace(0, 1, len(points)), points, strict=True):
                        yield line(explainer, seed, **more) | {"curve": curve, "x": x, "value": value + 0.01 * seed}

    return pd.DataFrame(lines())


def removal_curves() -> pd.DataFrame:
    present = np.arange(1, PLAYERS + 1) / PLAYERS
    return curves(
        {
            row: {
                f"curve_{name}": 0.9 * present ** (power * skill if name.endswith("mif") else power / skill)
                for name, power in (("mif", 1.5), ("lif", 0.8), ("r_mif", 1.2), ("r_lif", 0.9))
            }
            for row, skill in (("rise", 1.2), ("vit_shapley", 1.5), ("salvage", 2.0))
        }
    )


def study() -> Source:
    """A study of five explainers and a control, with costs."""
    rows = {
        "salvage": (0.52, 0.6, 6.0, 1.0), "vit_shapley": (0.45, 0.5, 5.5, 1.0), "rise": (0.41, 0.35, 900.0, 512.0),
        "kernel_shap": (0.5, 0.55, 1500.0, 1024.0), "grad_cam": (0.3, 0.44, 14.0, 3.0),
    }  # fmt: skip
    means = {
        name: {"srg": srg, "r_srg": 0.8 * srg, "rma": rma, "deletion_auc": 0.6 - 0.5 * srg}
        for name, (srg, rma, *_) in rows.items()
    }
    kinds = {"rise": "post-hoc", "kernel_shap": "post-hoc", "grad_cam": "post-hoc"}
    parts = [scores({name: means[name]}, kinds.get(name, "trained")) for name in rows]
    parts.append(scores({"random": {"srg": 0.0, "r_srg": 0.0, "rma": 0.2, "deletion_auc": 0.6}}, "control"))
    costs = [
        line(name, kind=kinds.get(name, "trained")) | {"milliseconds": ms, "passes": passes, "train_seconds": None}
        for name, (_, _, ms, passes) in (rows | {"random": (0, 0, 0.4, 0.0)}).items()
    ]
    return Source(pd.concat(parts, ignore_index=True), removal_curves(), pd.DataFrame(costs), COLUMNS)


def refined() -> Source:
    """Rows of Learn to Rank after T gradient steps; `ranking` itself has no step."""
    parts = []
    for start, gain in (("ranking", 0.03), ("decoder", 0.02)):
        for step in (0, 1, 3, 5):
            name = "ranking" if step == 0 else f"{start}_t{step}"
            if step == 0 and start == "decoder":
                continue
            means = {
                f"{kind}_auc{target}": level + sign * gain * step**0.5 + (0.05 if target else 0)
                for kind, level, sign in (("insertion", 0.6, 1), ("deletion", 0.2, -1))
                for target in ("", "_true")
            }
            parts.append(scores({name: means}, "refined", step=float("nan") if step == 0 else float(step)))
    columns = COLUMNS | {f"{name}_true": COLUMNS[name] for name in ("insertion_auc", "deletion_auc")}
    return Source(pd.concat(parts, ignore_index=True), columns=columns)


def sweep() -> Source:
    """A transfer at several lambda2, over three alphas, beside the model fine-tuned on the target."""
    parts = [scores({"ft_target": {"e_rmse": 1.2, "iou@10": 0.4, "accuracy": 0.9}})]
    for alpha in (0.1, 0.5, 0.9):
        for value in (0.0, 0.25, 0.5, 0.75, 1.0):
            means = {
                "e_rmse": 1.2 - 0.5 * value * (1.3 - value) - 0.05 * alpha * value,
                "iou@10": 0.4 + 0.2 * value * (1.4 - value),
                "accuracy": 0.9 - 0.15 * value**3,
            }
            more = {"source": "mnist", "alpha": alpha, "lambda2": value}
            parts.append(scores({f"proposed@lambda2={value}": means}, seeds=(0,), **more))
            if value == 0.5:
                parts.append(scores({"proposed": means}, seeds=(0,), **more))
    return Source(pd.concat(parts, ignore_index=True), columns=COLUMNS)
