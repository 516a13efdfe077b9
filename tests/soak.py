"""Kill, remove and damage at random what runs of every study make, four jobs at once: `make soak`, by hand.

In the end every file of the store has to have the bytes of a run that nobody disturbed. XAI_SOAK_KILLS says how many
jobs are killed, XAI_SOAK_SECONDS when it ends at the latest; the runs before and after come on top. XAI_SOAK_SEED
chooses it; arguments choose among the commands.
"""

import contextlib
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.composed import plain
from tests.end_to_end.jobs import Job, start
from xai.core.settings import build
from xai.models import files
from xai.models.spec import describe
from xai.models.vit import VitParams

FILE = "untrained.safetensors"
SMALL = ("trainer.checkpoint_minutes=0", "pictures=0", "figures=[]")
CLUTTERED = (*SMALL, "data=digits_cluttered", "case.block=4")
SUPERVISE = ("experiment=smoke", "task=supervise", "supervision=kernel_shap_few", "images=40", "block=10")
COMMANDS = {
    "vectors": ("experiment=smoke", *SMALL),
    "salvage": (
        *("experiment=salvage_smoke", *CLUTTERED, "probe=null", "lengths=[]", "metrics=[removal,localisation]"),
        *("rows=[classifier,surrogate,salvage,vit_shapley,kernel_shap,random]", "tables=[salvage_table1]"),
    ),
    "ranking": (
        *("experiment=ranking_smoke", *CLUTTERED, "shortcut=null", "path_steps=[3]", "tables=[ranking]"),
        *("rows=[ranking,ranking_t1,rise,random]", "metrics=[perturbation,localisation]"),
    ),
    "compare": (
        *("task=compare", *CLUTTERED, f"checkpoint={FILE}", "case.images=24"),
        "rows=[rise,kernel_shap,saliency,random]",
        *("explainers.rise.masks=40", "explainers.kernel_shap.coalitions=80", "metric.removal.masks=1"),
        "explainers.kernel_shap.evaluation_coalitions=80",
    ),
    "supervise": (*SUPERVISE, "name=supervise", "trainer.checkpoint_minutes=0"),
}
"""The smallest of each kind; `compare` explains a classifier that nobody has trained."""
JOBS = 4
SHORTEST, LONGEST = 0.3, 12.0
"""Seconds that a job is left alone before it is killed, if it has not ended."""


def products(store: Path) -> dict[str, bytes]:
    """The bytes of all that whole artifacts hold; manifests tell the time and are left out."""
    whole = [
        path for path in store.glob("*/*") if path.is_dir() and "." not in path.name and path.parent.name[0] != "."
    ]
    files = [path for entry in whole for path in entry.rglob("*") if path.is_file() and path.name != "artifact.json"]
    return {path.relative_to(store).as_posix(): path.read_bytes() for path in files}


def damage(store: Path, generator: random.Random) -> str:
    """Harm one file of the store, whole entries and half-made ones alike."""
    paths = [path for path in store.rglob("*") if path.is_file() and ".damaged" not in path.as_posix()]
    files = sorted(path for path in paths if ".locks" not in path.parts)
    if not files:
        return ""
    path, way = generator.choice(files), generator.choice(["flip", "cut", "empty", "remove", "folder", "link", "pipe"])
    content = bytearray(path.read_bytes())
    if way == "flip" and content:
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
    elif way in ("cut", "empty"):
        path.write_bytes(content[: len(content) // 2 if way == "cut" else 0])
    else:
        path.unlink()
        if way == "folder":
            path.mkdir()
        elif way == "link":
            path.symlink_to("nowhere")
        elif way == "pipe":
            os.mkfifo(path)
    return way


def check(job: Job, status: int | None) -> None:
    """A job that nobody killed has to have ended well."""
    if status != 0:
        raise SystemExit(f"a job ended with status {status}:\n{job.err.read_text()[-3000:]}")


def disturb(folder: Path, commands: Sequence[Sequence[str]], generator: random.Random, counts: dict[str, int]) -> None:
    """One round after the other: jobs are started, entries removed, all killed or let end, and files harmed."""
    seconds, kills = (
        float(os.environ.get(f"XAI_SOAK_{name}", most)) for name, most in (("SECONDS", 2400), ("KILLS", 100))
    )
    store, deadline = folder / "outputs" / "store", time.monotonic() + seconds
    while time.monotonic() < deadline and counts["kills"] < kills:
        jobs = [begin(folder / str(n), *generator.choice(commands), f"store={store}") for n in range(JOBS)]
        ends = [time.monotonic() + generator.uniform(SHORTEST, LONGEST) for _ in jobs]
        while any(job.process.is_alive() for job in jobs):
            for job, end in zip(jobs, ends, strict=True):
                if time.monotonic() > end and job.process.is_alive():
                    # It may not have come so far as to have a group.
                    job.process.kill()
                    with contextlib.suppress(ProcessLookupError):
                        job.kill()
                    job.process.join()
                    counts["kills"] += 1
            entries = [path for path in store.glob("[a-z]*/*") if path.is_dir()]
            if entries and generator.random() < 0.01:
                shutil.rmtree(generator.choice(entries), ignore_errors=True)
                counts["entries removed"] += 1
            time.sleep(0.1)
        for job in jobs:
            if job.process.exitcode != -9:
                check(job, job.process.exitcode)
                counts["ended"] += 1
        for _ in range(generator.randrange(3)):
            counts["files damaged"] += bool(damage(store, generator))
        counts["rounds"] += 1
        print(counts, flush=True)


def begin(folder: Path, *arguments: str) -> Job:
    """Start a job in a folder that holds a classifier to compare explainers on."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / FILE).exists():
        asked = plain("task=train", "model.tower.width=16", "model.tower.depth=2")
        model = build(VitParams, asked["model"], "model")
        classes = [str(digit) for digit in range(10)]
        files.write(folder / FILE, model.build(10, 0), describe(model, "classifier", "digits", classes))
    return start(folder, *arguments)


def main() -> None:
    """Undisturbed, disturbed, and once more to the end; compare."""
    generator = random.Random(int(os.environ.get("XAI_SOAK_SEED", 0)))
    commands = [COMMANDS[name] for name in sys.argv[1:] or COMMANDS]
    counts = dict.fromkeys(("rounds", "kills", "ended", "entries removed", "files damaged"), 0)
    with tempfile.TemporaryDirectory(prefix="xai-soak-") as place:
        stores = {}
        for name in ("undisturbed", "disturbed"):
            folder = Path(place) / name
            if name == "disturbed":
                disturb(folder, commands, generator, counts)
            for command in commands:
                job = begin(folder / "last", *command, f"store={folder / 'outputs' / 'store'}")
                check(job, job.wait().status)
            stores[name] = products(folder / "outputs" / "store")
            print(name, f"{len(stores[name])} files", counts if name == "disturbed" else "", flush=True)
        differing = sorted(
            name for name in stores["undisturbed"] if stores["disturbed"].get(name) != stores["undisturbed"][name]
        )
        if differing or stores["undisturbed"].keys() != stores["disturbed"].keys():
            raise SystemExit(f"other bytes: {differing}, {stores['disturbed'].keys() - stores['undisturbed'].keys()}")
    print("the same bytes:", ", ".join(f"{count} {what}" for what, count in counts.items()))


if __name__ == "__main__":
    sys.exit(main())
