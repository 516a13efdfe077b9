import re
from importlib.metadata import version

import torch

from benchmarks.machine import description, matmul_rate
from benchmarks.setup import Setup


def test_the_description_names_processor_cores_and_versions() -> None:
    machine, versions = description().splitlines()
    assert re.fullmatch(r"Machine: \S.*, \d+ cores?, .+\.", machine)
    for package in ("torch", "timm", "shap", "captum"):
        assert f"{package} {version(package)}" in versions
    assert f"open_clip {version('open_clip_torch')}" in versions
    assert versions.startswith("Versions: xai ")


def test_the_rate_counts_two_operations_for_each_of_the_products(monkeypatch) -> None:
    clock = iter(range(100))
    monkeypatch.setattr("benchmarks.machine.time.perf_counter", lambda: float(next(clock)))
    assert matmul_rate(Setup(threads=torch.get_num_threads()), side=10, products=3) == 2 * 10**3 * 3
