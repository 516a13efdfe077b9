"""What sharing, starting, opening and remembering cost: `python -m benchmarks.scale`, an hour of a busy machine.

Every number is a process's own CPU time or memory, which other work on the machine changes little; wall clocks stand
beside them. "on free cores" is the CPU time of the process that worked longest: how long all of it would take if each
process had a core of its own and waited for nothing; of a sweep, the wall clock less what its processes waited for a
core. `--write` puts the table into docs/scale.md.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import hydra
from omegaconf import OmegaConf

from benchmarks.tables import table
from xai.core.composing import CONF
from xai.core.settings import build
from xai.core.store import Store
from xai.models import files
from xai.models.spec import describe as described
from xai.models.vit import VitParams

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs" / "scale.md"
CLASSIFIER = "untrained.safetensors"
COMPARE = (
    *("task=compare", "data=digits_cluttered", "case.block=8", "rows=[rise,kernel_shap,saliency,random]"),
    *("metrics=[removal,difference_auc]", "explainers.rise.masks=500", "figures=[]", "pictures=0", "gallery=0"),
)
FIRST = "the first value that cannot be, since the code was changed"
SUPERVISE = ("task=supervise", "experiment=smoke", "supervision=kernel_shap", "explainers.kernel_shap.coalitions=1024",
             "split=train", "block=25", "logger=none")  # fmt: skip
TIMED = """
import atexit, os, resource, sys, time

def tell():
    used = resource.getrusage(resource.RUSAGE_SELF)
    waited = int(open("/proc/self/schedstat").read().split()[1]) / 1e9  # of Linux: ready, and no core was free
    with open(os.environ["XAI_TIMED"], "a") as file:
        file.write(f"{used.ru_utime + used.ru_stime} {used.ru_maxrss} {waited}\\n")

if "XAI_TIMED" in os.environ:
    atexit.register(tell)
"""

Rows = list[list[str]]


@dataclass(frozen=True)
class Ended:
    """Processes that have ended.

    Args:
        wall: Seconds from the first start to the last end.
        cpu: Of each process, seconds.
        memory: Of each, the most bytes that it held.
        waited: Of each, seconds in which it could have gone on and no core was free.
    """

    wall: float
    cpu: Sequence[float]
    memory: Sequence[int]
    waited: Sequence[float]


def run(folder: Path, commands: Sequence[Sequence[str]], status: int = 0, cores: int | None = None) -> Ended:
    """Run commands of run.py side by side in a folder, each on one thread; on so many cores, or on all there are."""
    timed = folder / "timed.txt"
    timed.unlink(missing_ok=True)
    (folder / "sitecustomize.py").write_text(TIMED)
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{ROOT}", "XAI_TIMED": str(timed), "OMP_NUM_THREADS": "1"}
    environment["XDG_CACHE_HOME"] = str(folder / "cache")
    all_cores = os.sched_getaffinity(0)  # of Linux, on which this is measured
    start = time.perf_counter()
    os.sched_setaffinity(0, sorted(all_cores)[:cores])
    processes = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "run.py"), *command],
            cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        for command in commands
    ]  # fmt: skip
    os.sched_setaffinity(0, all_cores)
    errors = [process.communicate()[1].decode() for process in processes]
    wall = time.perf_counter() - start
    for process, command, error in zip(processes, commands, errors, strict=True):
        if process.returncode != status:
            raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{error}")
    lines = [line.split() for line in timed.read_text().splitlines()]
    cpu, memory, waited = ([float(line[place]) for line in lines] for place in range(3))
    return Ended(wall, cpu, [1024 * int(each) for each in memory], waited)


def classifier(folder: Path) -> str:
    """A small vision transformer that nobody has trained, as an override."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        asked = hydra.compose("config", ["task=train", "model=vit_tiny"])
    model = build(VitParams, OmegaConf.to_container(asked.model, resolve=True), "model")
    classes = [str(digit) for digit in range(10)]
    files.write(folder / CLASSIFIER, model.build(10, 0), described(model, "classifier", "digits", classes))
    return f"checkpoint={folder / CLASSIFIER}"


def starting(folder: Path) -> Rows:
    """What is paid before any work."""
    probes = {
        "a key that there is not": ("sead=1",),
        FIRST: ("task=compare", "explainers.rise.masks=-1"),
        "a value that cannot be": ("task=compare", "explainers.rise.masks=-1"),
        "`--help data`": ("--help", "data"),
        "`task=data`": ("task=data",),
    }
    rows = []
    for what, command in probes.items():
        found = []
        for _ in range(2):
            if what == FIRST:
                shutil.rmtree(folder / "cache", ignore_errors=True)
            found.append(run(folder, [command], 2 if command[-1] in ("sead=1", "explainers.rise.masks=-1") else 0))
        rows.append([f"start-up: {what}", f"{min(each.cpu[0] for each in found):.1f} s CPU", ""])
    code = "import time; start = time.process_time(); import xai; print(time.process_time() - start)"
    told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [*rows, ["start-up: `import xai`", f"{float(told):.2f} s CPU", ""]]


def finding(folder: Path) -> Rows:
    """An artifact that is there: the first time its bytes are hashed, then only their times are looked at."""
    rows = []
    for size, count in ((10**4, 50), (10**8, 3)):
        root, content = folder / f"store{size}", os.urandom(size)

        def make(workdir: Path, content: bytes = content) -> None:
            (workdir / "content.bin").write_bytes(content)

        for number in range(count):
            Store(root).get("thing", {"number": number}, make)
        code = (
            "import sys, time; from pathlib import Path; from xai.core.store import Store; times = []\n"
            f"store = Store(Path({str(root)!r}))\n"
            "for _ in range(2):\n"
            "    start = time.process_time()\n"
            f"    for number in range({count}): store.get('thing', {{'number': number}}, None)\n"
            f"    times.append(1000 * (time.process_time() - start) / {count})\n"
            "print(*times)"
        )
        told = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        first, again = map(float, told.split())
        what = f"{size // 1000:,} kB" if size < 10**6 else f"{size // 10**6} MB"
        rows.append([f"a found artifact of {what}", f"{first:.2f} ms CPU", f"again: {again:.2f} ms"])
        shutil.rmtree(root)
    return rows


def sharing(
    folder: Path, what: str, command: Sequence[str], option: str, images: int, processes: Sequence[int] = (1, 2, 4)
) -> Rows:
    """One command in several processes over one store, which has the networks that are asked and nothing else."""
    rows: Rows = []
    alone = 0.0
    # A block of images makes the networks. The second time everything is there: what is left is start and end.
    for _ in range(2):
        idle = min(run(folder, [(*command, f"{option}=8", "name=warm", f"store=warm-{what}")]).cpu)
    for count in processes:
        store = f"store-{what}-{count}"
        shutil.copytree(folder / f"warm-{what}", folder / store)
        asked = (*command, f"{option}={images}", f"store={store}")
        ended = run(folder, [(*asked, f"name={what}-{number}") for number in range(count)])
        work = [max(0.0, cpu - idle) for cpu in ended.cpu]
        alone = alone or sum(work)
        said = f"{images / max(work):.1f} images/s on free cores ({max(work) / alone:.2f} of one)"
        costs = f"{sum(work):.1f} s CPU in all ({sum(work) / alone:.2f}), wall {ended.wall:.0f} s"
        rows.append([f"{what}, {images} images, {count} process{'es' * (count > 1)}", said, costs])
        shutil.rmtree(folder / store)
    return rows


def sweeping(folder: Path, checkpoint: str) -> Rows:
    """Twelve jobs, each a process of its own: by one worker with a core, by two, and by one that has both cores."""
    rows: Rows = []
    seeds = "seed=" + ",".join(map(str, range(12)))
    ended: dict[tuple[int, int], tuple[float, float, float]] = {}
    for workers, cores in ((1, 1), (2, 2), (1, 2)):
        name = f"sweep{workers}-{cores}"
        typed = (*COMPARE, "case.images=32", checkpoint, seeds, "logger=none", f"name={name}", f"store={name}")
        launcher = ("launcher=processes", f"hydra.launcher.jobs={workers}")
        now = run(folder, [("-m", *typed, *launcher)], cores=cores)
        # The launcher ends last; the jobs of a worker wait one after the other.
        *jobs, own = now.waited
        free = now.wall - own - sum(jobs) / workers
        ended[workers, cores] = free, now.wall, sum(now.cpu)
        what = f"12 jobs, {workers} worker{'s' * (workers > 1)} on {cores} core{'s' * (cores > 1)}"
        rows.append([what, f"{free:.0f} s on free cores", f"wall {now.wall:.0f} s, {sum(now.cpu):.0f} s CPU"])
    for what, one in (("with a core", ended[1, 1]), ("that has both cores", ended[1, 2])):
        free, wall, cpu = (mine / its for mine, its in zip(ended[2, 2], one, strict=True))
        costs = f"{wall:.2f} of the wall, {cpu:.2f} of the CPU"
        rows.append([f"12 jobs, two workers to one {what}", f"{free:.2f} of the time", costs])
    return rows


def opening(folder: Path, classes: int = 1000, each: int = 1281) -> Rows:
    """A folder of ImageNet's shape: hard links to a few small pictures, so that only names and sizes cost."""
    from PIL import Image

    from xai.data.folder import imagenet_names

    root, pictures = folder / "imagenet", 40
    (root / "pictures").mkdir(parents=True)
    for number in range(pictures):
        Image.new("RGB", (16, 16), (number, 0, 0)).save(root / "pictures" / f"{number}.JPEG")
    start = time.perf_counter()
    for place, name in enumerate(list(imagenet_names())[:classes]):
        for split, count in (("train", each), ("val", 1)):
            (root / split / name).mkdir(parents=True)
            for number in range(count):
                source = root / "pictures" / f"{(place * each + number) % pictures}.JPEG"
                os.link(source, root / split / name / f"{name}_{number}.JPEG")
    made = time.perf_counter() - start
    code = (
        "import sys, time\nstart = time.process_time(), time.perf_counter()\n"
        "from xai.data.catalogue import open_data\n"
        f"data = open_data({{'name': 'imagenet', 'root': {str(root)!r}, 'size': 224}}, 'data')\n"
        "count = len(data.source.labels('train'))\n"
        "print(time.process_time() - start[0], time.perf_counter() - start[1], count)"
    )
    rows = []
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(ROOT)}
    for what in ("first", "again"):
        told = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env=environment, check=False
        )
        if told.returncode:
            raise SystemExit(told.stderr)
        cpu, wall, opened = told.stdout.splitlines()[-1].split()
        rows.append([f"opening {classes * each:,} pictures, {what}", f"{float(cpu):.1f} s CPU",
                     f"wall {float(wall):.0f} s; {int(opened):,} of them train"])  # fmt: skip
    shutil.rmtree(root)
    return [*rows, ["(making their names, as hard links)", "", f"wall {made:.0f} s"]]


def remembering(folder: Path, checkpoint: str) -> Rows:
    """The most memory of an evaluation, by the number of images."""
    rows = []
    for images in (250, 1000, 4000):
        typed = ("task=compare", "data=mnist_cluttered", "case.split=train", f"case.images={images}", "case.block=50",
                 "rows=[saliency,random]", "metrics=[difference_auc,localisation]", "figures=[]", "pictures=0",
                 "gallery=0", "logger=none", checkpoint, f"name=memory{images}", f"store=memory{images}")  # fmt: skip
        ended = run(folder, [typed])
        rows.append([f"memory of an evaluation of {images:,} images", f"{max(ended.memory) / 2**20:,.0f} MiB",
                     f"{sum(ended.cpu):.0f} s CPU"])  # fmt: skip
    return rows


def large_site(folder: Path) -> Rows:
    """The site over one study of 5,000 images and 30 explainers, opened at a desk and on a telephone."""
    from benchmarks.large_site import LOOKS, browse, opened, write_run

    write_run(folder / "outputs" / "large", 5000, 30)
    ended = run(folder, [("task=site",)])
    site, complaints = folder / "outputs" / "site", list[str]()
    own = [path for path in site.rglob("*") if path.is_file() and path.suffix != ".webp"]
    page, values = (
        (site / "large.html").stat().st_size,
        [path.stat().st_size for path in (site / "large").glob("values*")],
    )
    rows = [
        ["building it", f"{ended.cpu[0]:.0f} s CPU", f"wall {ended.wall:.0f} s, {ended.memory[0] / 2**20:,.0f} MiB"],
        [
            "its page",
            f"{page / 1e3:.0f} kB",
            f"values of a metric {max(values) / 1e6:.1f} MB, asked for when looked at",
        ],
        ["all of it but the pictures", f"{sum(path.stat().st_size for path in own) / 1e6:.0f} MB", ""],
    ]
    seconds: list[dict[str, float]] = []
    for look in LOOKS:
        with opened(complaints, **look) as browser:
            seconds.append(browse(browser, (site / "large.html").as_uri()))
    if complaints:
        raise SystemExit(f"the browser complains: {complaints}")
    rows += [
        [f"{what}", f"{wide:.2f} s", f"telephone, dark: {seconds[1][what]:.2f} s"] for what, wide in seconds[0].items()
    ]
    return [*rows, ["(wall clock)", f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores", ""]]


def main() -> None:
    """Measure what is asked for; print it, and write it where that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("starting", "finding", "supervise", "compare", "sweep", "opening", "memory", "site")
    parser.add_argument("--only", nargs="*", choices=names, default=names)
    parser.add_argument("--write", action="store_true", help="into docs/scale.md, in place of the same rows there")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="xai-scale-") as place:
        folder = Path(place)
        checkpoint = classifier(folder)
        compare = (*COMPARE, checkpoint, "logger=none")
        parts: dict[str, Callable[[], Rows]] = {
            "starting": lambda: starting(folder),
            "finding": lambda: finding(folder),
            "supervise": lambda: sharing(folder, "supervise", SUPERVISE, "images", 3000),
            "compare": lambda: sharing(folder, "compare", compare, "case.images", 120),
            "sweep": lambda: sweeping(folder, checkpoint),
            "opening": lambda: opening(folder),
            "memory": lambda: remembering(folder, checkpoint),
            "site": lambda: large_site(folder),
        }
        for name in asked.only:
            rows = parts[name]()
            print(table(["", "", ""], rows), flush=True)
            if asked.write:
                write(name, rows)


def write(name: str, rows: Rows) -> None:
    """Replace the block of one part in docs/scale.md."""
    text = DOCS.read_text(encoding="utf-8")
    block = f"<!-- scale: {name} -->\n{table(['', '', ''], rows)}\n<!-- /scale -->"
    pattern = re.compile(rf"<!-- scale: {name} -->.*?<!-- /scale -->", re.DOTALL)
    if not pattern.search(text):
        raise SystemExit(f"{DOCS} has no block {name}")
    DOCS.write_text(pattern.sub(lambda _: block, text), encoding="utf-8")


if __name__ == "__main__":
    main()
