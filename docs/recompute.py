"""Recompute metrics from maps alone: python docs/recompute.py outputs/store/maps/KEY outputs/store/maps/REFERENCE."""

import sys

import numpy as np
from safetensors.numpy import load_file
from scipy.stats import kendalltau

t, reference = (load_file(f"{folder}/maps.safetensors") for folder in sys.argv[1:3])
n, h, w = t["attributions"].shape
a, r = (maps["attributions"].reshape(n, h * w).astype(float) for maps in (t, reference))
# Norm of eq. 5, also of the maps less their mean map; NaN where a map varies by no more than rounding.
u = np.stack([a, r, a - a.mean(0), r - r.mean(0)])
u[np.ptp(u, 2) < 2e-6 * np.abs([a, r, a, r]).max(2)] = np.nan
A, R, centred_a, centred_r = (u - u.mean(2, keepdims=True)) / u.std(2, keepdims=True)
place, undefined = np.argsort(np.argsort([-a, -r], 2, kind="stable"), 2), np.isnan(A[:, 0])
m = {"accuracy": t["logits"].argmax(1) == t["labels"]} if "logits" in t else {}
m["e_rmse"] = np.sqrt(((np.nan_to_num(A) - np.nan_to_num(R)) ** 2).mean())
m["kendall"] = [kendalltau(x, y).statistic for x, y in zip(A, R, strict=True)]
shared = {k: (place < k).all(0).sum(1) for k in (1, 5, 10)}
m |= {f"iou@{k}": np.where(undefined, np.nan, s / (2 * k - s)) for k, s in shared.items()}
m["centred_correlation"] = (centred_a * centred_r).mean(1)
for name, values in m.items():
    print(name, np.nanmean(values) if np.isfinite(values).any() else np.nan)
