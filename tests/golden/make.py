"""The golden numbers: small versions of the three studies, and what they gave when they were last written down.

Run by hand, as `python -m tests.golden.make`, only when a number is meant to change: it writes one JSON file a study,
`{"overrides", "supervise", "rows", "chance", "images", "maps", "extra"}`. All of them are numbers by explainer and
metric, and say nothing of how the code is built. How it keeps its results is known to `read` alone.
"""

import argparse
import json
import math
import re
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.composed import composed, plain, settings_of
from tests.end_to_end.runs import UNDRAWN
from tests.golden.frames import few, read_study
from xai.core.loggers import build_logger
from xai.core.runtime import Runtime
from xai.core.store import Store
from xai.metrics.functional.perturbation import enlarge_map
from xai.metrics.registry import columns
from xai.papers.ranking.shortcut import Shortcut
from xai.papers.ranking.study import RankingStudy, StudyWithShortcut, open_study
from xai.study.case import Case
from xai.study.frame import Measurement, read_frames
from xai.study.maps import Maps, explain
from xai.study.study import Study

HERE = Path(__file__).resolve().parent
CONF = HERE.parents[1] / "conf"

Numbers = dict[str, Any]

COMMON = ["trainer=cpu", "trainer.threads=1", "logger=none", "seed=0"]
VIT = [
    "data=digits_cluttered",
    "model.tower.width=16",
    "model.tower.depth=2",
    "model.tower.heads=2",
    "model.tower.registers=1",
    "classifier.fit.epochs=2",
    "classifier.fit.batch_size=64",
    "classifier.fit.learning_rate=0.003",
    "surrogate.fit.epochs=1",
    "surrogate.fit.batch_size=64",
    "surrogate.fit.learning_rate=0.003",
    "++explainers.salvage={masks:2,heads:2,fit:{epochs:2,batch_size:256,learning_rate:0.002}}",
    "++explainers.vit_shapley={masks:2,heads:2,fit:{epochs:2,batch_size:256,learning_rate:0.002}}",
    "++explainers.rise.masks=20",
    "++explainers.kernel_shap.coalitions=80",
    "++explainers.kernel_shap.evaluation_coalitions=80",
    "++explainers.integrated_gradients.steps=4",
]
BASELINES = "rise,kernel_shap,attention_last,attention_rollout,saliency,integrated_gradients,grad_cam,eigen_cam"
CONTROLS = "random,brightness,position_prior,object_mask"

STUDIES: dict[str, list[str]] = {
    "transfer": [
        "experiment=smoke",
        *COMMON,
        "model.pretraining.steps=50",
        "model.pretraining.focused_steps=50",
        "transfer.lambda2_grid=[0.4,0.8,1.2]",
        "transfer.source_images=40",
        "transfer.target_images=60",
        "transfer.validation_images=20",
        "case.images=12",
        "transfer.source_fit.epochs=2",
        "transfer.target_fit.epochs=2",
        "pictures=1",
    ],
    "salvage": [
        "study=salvage",
        *COMMON,
        *VIT,
        "++explainers.shapley_distribution.coalitions=40",
        "++explainers.shapley_distribution.steps=10",
        "pictures=1",
        "rows=[classifier,surrogate,salvage,salvage_uniform,salvage_kernel,vit_shapley,shapley_distribution,"
        f"{BASELINES},{CONTROLS}]",
        "metrics=[removal,localisation,classification,classification_quality,grid_pointing,mask_likelihood]",
        "case.images=6",
        "metric.removal.masks=2",
        "probe_images=4",
        "probe={name:mnist_pair,clutter:5,polarity:random}",
        "lengths=[0.5]",
    ],
    "ranking": [
        "task=study",
        "study=ranking",
        *COMMON,
        *VIT,
        "pictures=1",
        "rows=[ranking,ranking_t1,ranking_t3,decoder_t1,flat_t1,rollout_t1,ranking_published,salvage,vit_shapley,"
        f"{BASELINES},saliency_pixels,integrated_gradients_pixels,input_x_gradient_pixels,{CONTROLS}]",
        "++explainers.integrated_gradients_pixels.steps=4",
        "++explainers.ranking={levels:[0,1],decoder:{channels:8,fusion:8,head:2,refinement:4,resize:[1,1],pixels:2},"
        "objective:{steps:3,grid_max:5},fit:{epochs:1,batch_size:128}}",
        "++explainers.ranking_published={decoder:{resize:[2,1]},objective:{steps:3,grid_min:4,grid_max:5}}",
        "++explainers.refined={steps:3,draws:1,objective:{steps:3,grid_max:5}}",
        "case.images=6",
        "metric.perturbation.steps=5",
        "path_steps=[4]",
        "shortcut={label:1,radius:0.2,level:1.0,images:2,fit:{epochs:1,batch_size:32,learning_rate:3.0e-3,"
        "weight_decay:0.05,warmup:0.1,clip:1.0}}",
    ],
}
"""What `run.py` is told for each study."""

SUPERVISE: dict[str, dict[str, list[str]]] = {
    "transfer": {
        "kernel_shap": ["supervision=kernel_shap_few"],
        "kernel_shap_tokens": ["supervision=kernel_shap_few", "++explainers.kernel_shap_few.removal={kind:tokens}"],
        "rise": ["supervision=rise", "++explainers.rise.masks=20"],
        "shapley_distribution": [
            "supervision=shapley_distribution",
            "++explainers.shapley_distribution.coalitions=40",
            "++explainers.shapley_distribution.steps=10",
        ],
        "saliency": ["supervision=saliency"],
        "integrated_gradients": ["supervision=integrated_gradients", "++explainers.integrated_gradients.steps=4"],
        "input_x_gradient": ["supervision=input_x_gradient"],
        "grad_cam": ["supervision=grad_cam"],
        "eigen_cam": ["supervision=eigen_cam"],
        "attention_last": ["supervision=attention_last"],
        "attention_rollout": ["supervision=attention_rollout"],
    },
    "salvage": {},
    "ranking": {},
}
"""What it is told besides, in the same store, to attribute three test images by `task=supervise`."""

MAPS_FILE = "maps.safetensors"


def run(overrides: list[str], store: Path, output: Path) -> None:
    """What `python run.py OVERRIDES` does, into these folders."""
    from xai.app import run as run_job

    run_job(composed(*overrides, f"store={store}"), output)


def measure(overrides: list[str], supervise: Mapping[str, list[str]], folder: Path) -> Numbers:
    """Run a study from nothing below a folder, and read what it gave."""
    store, output = folder / "store", folder / "study"
    # Only Learn to Rank has no other run from which all is drawn.
    run(overrides if "study=ranking" in overrides else [*overrides, *UNDRAWN], store, output)
    for name, more in supervise.items():
        run([*overrides, "task=supervise", "split=test", "images=3", *more], store, folder / "supervise" / name)
    if "study=ranking" in overrides:
        return read_ranking(overrides, store)
    if "study=salvage" in overrides:
        shorter = {f"{row}@0.5": f"length/{row}-0.5" for row in ("salvage", "salvage_uniform", "vit_shapley")}
        found = read_study(store, output, shorter)
        return {"rows": {}, "chance": {}, "images": {}, "maps": {}, "extra": {}, **rounded(found)}
    return read(store, output, folder / "supervise")


def read(store: Path, output: Path, supervise: Path) -> Numbers:
    """All numbers of a study that has been run, rounded: the one place that knows how results are kept.

    Returns:
        `rows`, role -> metric -> mean; `chance`, the same of maps that know nothing; `images`, role -> name -> value of
        each image or curve [N, K]; `maps`, role -> [2, h, w], of pixel maps every third pixel; `extra`, what is no row.
        Roles of a sweep, of a length of training and of a number of refinement steps stand below their folder's name.
    """
    found: Numbers = {"rows": {}, "chance": {}, "images": {}, "maps": {}, "extra": {}}
    _read_frames(store, output, found)
    for path in store.glob("diagnostics/*/diagnostics.json"):
        found["extra"]["diagnostics"] = rounded(json.loads(path.read_text()))
    for path in sorted(supervise.rglob("supervision.safetensors")):
        tensors = load_file(path)
        found["images"][f"supervise/{path.parent.name}"] = {name: rounded(tensors[name]) for name in sorted(tensors)}
    return found


def _read_frames(store: Path, output: Path, found: Numbers) -> None:
    """What a study measured, from its frames, and the maps of its rows from the store."""
    frames = read_frames(output)
    quadratic = {column.name for column in columns().values() if column.quadratic}
    for (row, split, metric), lines in frames.scores.groupby(["explainer", "split", "metric"]):
        role, values = _role(row, split), lines["value"]
        mean = (values**2).mean() ** 0.5 if metric in quadratic else values.mean()
        found["rows"].setdefault(role, {})[metric] = rounded(float(mean))
        if lines["chance"].notna().any():
            found["chance"].setdefault(role, {})[metric] = rounded(float(lines["chance"].mean()))
    keys = frames.costs.groupby("split")["maps"].agg(set)
    for _, line in frames.costs.iterrows():
        role, tensors = _role(line["explainer"], line["split"]), load_file(store / "maps" / line["maps"] / MAPS_FILE)
        if "attributions" in tensors:
            found["maps"][role] = rounded(few(tensors["attributions"]), 7)
        if "/" not in role:
            kept = [name for name in ("labels", "logits", "targets") if name in tensors]
            found["images"][role] = {name: rounded(tensors[name]) for name in kept}
        if role == "proposed":
            found["extra"]["lambda2"] = line["lambda2"]
    if "validation" in keys:
        # Of the images that lambda2 is chosen on, and no row's: what rows are measured against.
        first, *_ = of_rows = keys["validation"]
        case = json.loads((store / "maps" / first / "artifact.json").read_text())["spec"]["case"]
        for path in sorted((store / "maps").glob("*/artifact.json")):
            if path.parent.name not in of_rows and json.loads(path.read_text())["spec"]["case"] == case:
                found["maps"]["reference"] = rounded(few(load_file(path.with_name(MAPS_FILE))["attributions"]), 7)


def _role(row: str, split: str) -> str:
    """A row at other settings stands below its split."""
    return row.replace("proposed@", f"sweep/{split}/")


def read_ranking(overrides: list[str], store: Path) -> Numbers:
    """The same of Learn to Rank, whose values of single images and maps are read from the store of the engine."""
    found: Numbers = {"rows": {}, "chance": {}, "images": {}, "maps": {}, "extra": {}}
    study = _open_ranking(overrides, store)
    case, shortcut = study.cases[0][0], study.shortcut
    assert shortcut is not None
    of_all = {"labels": case.labels, "logits": case.logits, "targets": case.targets}
    for row, measured in _measured(study).items():
        role = re.sub(r"^(ranking|decoder|flat|rollout)@t", r"refinement/\1-", row).replace("ranking@S=", "steps/")
        columns = {name: values for each in measured.scores.values() for name, values in each.columns.items()}
        curves = {name: values.float() for each in measured.scores.values() for name, values in each.curves.items()}
        del columns["rma"]
        second = explain(case.second, measured.row)
        maps = {"": _pixels(case, measured.maps), "/second": _pixels(case, second)}
        again = re.fullmatch(r"(ranking|decoder|flat|rollout)_t(\d+)", role)
        for name in [role, f"refinement/{again[1]}-{again[2]}"] if again else [role]:
            found["rows"][name] = rounded({key: values.nanmean() for key, values in columns.items()})
            found["chance"][name] = {}
            found["maps"] |= {name + suffix: rounded(few(values), 7) for suffix, values in maps.items()}
        if "/" not in role:
            found["images"][role] = rounded({**of_all, **columns, **curves})
    _read_shortcut(found, shortcut)
    return found


def _read_shortcut(found: Numbers, shortcut: Shortcut) -> None:
    marked, before = shortcut.studies
    case, values, path = marked.cases[0][0], {}, {}
    for prefix, study in (("", marked), ("clean_", before)):
        for row, measured in _measured(study).items():
            step = int(steps[1]) if (steps := re.search(r"t(\d+)$", row)) else 0
            start = "flat_" if row.startswith("flat") else prefix
            columns = {name: each for scores in measured.scores.values() for name, each in scores.columns.items()}
            for name, each in columns.items():
                if name == "mark_area" or (start == "flat_" and name == "other_mass"):
                    continue
                old = name.removesuffix("_before").replace("mark_rra", "rra")
                values[f"{start}{old}_t{step}"] = each
            if start == "":
                values["mark_area"] = columns["mark_area"]
                path[step] = _pixels(case, measured.maps)
    lines = shortcut.learned.set_index(["explainer", "metric"])["value"]
    learned = {
        "called_marked": lines["classifier@marked", "called_marked"],
        "called_unmarked": lines["classifier@marked", "called_unmarked"],
        "called_before": lines["classifier@before", "called_marked"],
        "accuracy_clean": lines["classifier@marked", "accuracy_unmarked"],
        "accuracy_before": lines["classifier@before", "accuracy_unmarked"],
    }
    steps = torch.stack([path[step] for step in sorted(path)], dim=1)
    means = {name: each.nanmean() for name, each in values.items()}
    found["rows"]["shortcut"] = rounded({**learned, **means})
    of_mark = [name for name in means if "mass_t" in name or "rra_t" in name]
    found["chance"]["shortcut"] = rounded({name: means["mark_area"] for name in of_mark})
    found["images"]["shortcut"] = rounded({"labels": case.labels, "targets": case.targets, **values})
    found["maps"] |= {"shortcut": rounded(few(steps[:, -1]), 7), "shortcut/path": rounded(few(steps), 7)}


def _open_ranking(overrides: list[str], store: Path) -> StudyWithShortcut:
    asked = settings_of(RankingStudy, plain(*overrides, f"store={store}"))
    return open_study(asked, Runtime(Store(store), asked.trainer, build_logger(asked.logger, store, asked.name)))


def _measured(study: Study) -> dict[str, Measurement]:
    """By the name of the row."""
    found = {row.name: study.measuring(case, row)() for row in study.measured_rows for case, _ in study.cases}
    return {name: each for name, each in found.items() if each is not None}


def _pixels(case: Case, maps: Maps) -> Tensor:
    assert maps.attributions is not None
    return enlarge_map(maps.attributions, (case.model.image_size, case.model.image_size))


def rounded(value: Any, digits: int = 9) -> Any:
    """Numbers to so many significant digits, tensors as lists, what is not finite as None."""
    if isinstance(value, Tensor):
        return rounded(value.tolist(), digits)
    if isinstance(value, Mapping):
        return {name: rounded(item, digits) for name, item in value.items()}
    if isinstance(value, list):
        return [rounded(item, digits) for item in value]
    if isinstance(value, float):
        return float(f"{value:.{digits}g}") if math.isfinite(value) else None
    return value


def leaves(value: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every number or list of a nested mapping, with the names that lead to it."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, (*where, name))
    else:
        yield where, value


def written(value: Any, indent: str = "") -> str:
    """JSON with one line for each number or list of numbers, for reading and for `git diff`."""
    if not isinstance(value, Mapping) or not value:
        return json.dumps(value, separators=(",", ":"))
    inner = indent + " "
    lines = ",\n".join(f"{inner}{json.dumps(name)}: {written(item, inner)}" for name, item in value.items())
    return f"{{\n{lines}\n{indent}}}"


def main() -> None:
    """Write the golden files anew, of all studies or of those named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", nargs="*", default=list(STUDIES), metavar="study", help=", ".join(STUDIES))
    parser.add_argument("--into", type=Path, default=HERE, help="a folder for the files; where they stand by default")
    asked = parser.parse_args()
    for study in asked.studies:
        start, spent = time.perf_counter(), _cpu_seconds()
        with tempfile.TemporaryDirectory() as folder:
            numbers = measure(STUDIES[study], SUPERVISE[study], Path(folder))
        golden = {"overrides": STUDIES[study], "supervise": SUPERVISE[study], **numbers}
        (asked.into / f"{study}.json").write_text(written(golden) + "\n")
        wall, cpu = time.perf_counter() - start, _cpu_seconds() - spent
        print(f"{study}: {wall:.1f} s, {cpu:.1f} s of CPU", file=sys.stderr)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
