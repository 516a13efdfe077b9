"""Made-up runs whose names, classes and labels try to get out of the page, and the site over them."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
import yaml

from tests.report.study_frames import line, scores
from xai.core.folders import MARKER
from xai.core.store import Store
from xai.report.album import write_album
from xai.report.pictures import Gallery
from xai.study.frame import Frames, write_frames
from xai.sweeps.site import SiteSettings, run

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><b>'&amp;"
MEANS = {"salvage": {"srg": 0.6, "mif": 0.2}, "rise": {"srg": 0.4, "mif": 0.1}, "grad_cam": {"srg": 0.5, "mif": 0.3}}
CONTROL = {"random": {"srg": 0.05, "mif": 0.5}}
IMAGES = 8


@dataclass(frozen=True)
class Built:
    """A site, and what it was made of."""

    folder: Path
    outputs: Path
    store: Store
    maps: str
    scores: str


def frames(seed: int, maps: str) -> Frames:
    found = pd.concat([scores(MEANS, seeds=(seed,)), scores(CONTROL, kind="control", seeds=(seed,))], ignore_index=True)
    found["label"] = found["label"].replace("rise", HOSTILE)
    labels = found.drop_duplicates("explainer").set_index("explainer")["label"]
    cost = {"passes": 4.0, "milliseconds": 2.0, "maps": maps, "stage": None}
    costs = [line(name, seed) | {"label": labels[name]} | cost for name in MEANS]
    return Frames(found.assign(chance=float("nan")), pd.DataFrame(), pd.DataFrame(costs), pd.DataFrame())


def gallery() -> Gallery:
    names = {"salvage": "salvage", "grad cam": "grad_cam", HOSTILE: "rise"}
    torch.manual_seed(0)
    maps = {label: torch.randn(IMAGES, 4, 4) for label in names}
    classes = [HOSTILE if number % 3 == 0 else "cat" for number in range(IMAGES)]
    return Gallery(
        torch.rand(IMAGES, 3, 16, 16),
        maps,
        classes,
        true=classes,
        predicted=["cat"] * IMAGES,
        second={"salvage": torch.randn(IMAGES, 4, 4)},
        second_classes=["dog"] * IMAGES,
        rows=list(range(IMAGES)),
    )


def write_run(folder: Path, seed: int, maps: str) -> None:
    folder.mkdir(parents=True)
    write_frames(folder, frames(seed, maps))
    write_album(folder, [gallery()], {"salvage": "salvage", "grad cam": "grad_cam", HOSTILE: "rise"})
    (folder / ".hydra").mkdir()
    config = {"study": "salvage", "tables": [], "figures": [{"figure": "bars", "metric": "srg"}]}
    (folder / ".hydra" / "config.yaml").write_text(yaml.safe_dump(config))
    (folder / ".hydra" / "made.yaml").write_text(yaml.safe_dump({"command": HOSTILE, "commit": "c0ffee" * 6}))
    claim = {
        "claim": HOSTILE,
        "paper": "",
        "heading": "",
        "where": HOSTILE,
        "metric": "srg",
        "than": "",
        "above": "salvage",
    }
    claim |= {"below": "rise", "label": HOSTILE, "difference": 0.2, "low": 0.1, "high": 0.3, "why": "", "lacks": ""}
    claims = pd.DataFrame([claim | {"verdict": "holds"}, claim | {"verdict": "undecided", "why": "1 seed"}])
    claims.to_csv(folder / "claims.csv", index=False)
    (folder / MARKER).write_text(json.dumps({"written": ["scores.csv"]}))


def build(folder: Path) -> Built:
    """A sweep of two runs and a run alone, whose folder is called `<b>run`."""
    outputs, store = folder / "outputs", Store(folder / "store")

    def make(workdir: Path) -> None:
        (workdir / "maps.safetensors").write_bytes(b"never opened")

    classifier = store.get("classifier", {"seed": 0}, make)
    maps = store.get("maps", {"case": {"model": classifier.key}}, make)
    spec = {"maps": {"maps": {"key": maps.key}, "reference": None}, "metric": {"name": "removal"}}
    values = store.get("scores", spec, make)
    for number, name in enumerate(("sweep/seed=0", "sweep/seed=1", "<b>run")):
        write_run(outputs / name, number, maps.key)
    site = outputs / "site"
    site.mkdir()
    run(SiteSettings("site", "site", str(outputs), str(store.root), ()), site)
    return Built(site, outputs, store, maps.key, values.key)
