import itertools
import json
import multiprocessing
import random
import signal
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.stages.bench import DATA, MODEL, base, runtime
from tests.stages.explaining import Drawn, Silent, drawn, order, register
from xai.core.errors import UserError
from xai.core.runtime import Runtime
from xai.core.store import Artifact, Store
from xai.data.catalogue import OpenData
from xai.data.registry import subset
from xai.explainers.posthoc.kernel_shap import KernelShapParams
from xai.models import files
from xai.models.maskable import Removal
from xai.models.spec import describe
from xai.papers.vectors.fine_tuning import assemble, parameters
from xai.stages.supervision import Order, Subject, fine_tuned, load, open_supervision

FORK = multiprocessing.get_context("fork")
BLOCKS = [DATA.source.labels("test")[rows].tolist() for rows in torch.arange(9).split(2)]


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    register(monkeypatch, tmp_path / "journal")
    return tmp_path / "journal"


def bytes_of(artifact: Artifact) -> bytes:
    return artifact.file("supervision.safetensors").read_bytes()


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def begun(journal: Path) -> list[list[int]]:
    """The labels of each block that any process has begun to explain."""
    return [[int(label) for label in line[1:-1].split(",")] for line in journal.read_text().splitlines()]


# What is asked for.


def settings(**changes: object) -> dict[str, object]:
    removal = {"kind": "tokens", "reference": "mean"}
    common = {"name": "kernel_shap", "block": 7, "coalitions": 40, "evaluation_coalitions": 60, "output": "logit"}
    return {**common, "removal": removal, **changes}


def test_the_settings_of_an_explainer_stand_beside_its_name() -> None:
    found = open_supervision(settings())
    assert (found.name, found.block) == ("kernel_shap", 7)
    explainer = found.explainer
    assert isinstance(explainer, KernelShapParams)
    assert (explainer.coalitions, explainer.evaluation_coalitions) == (40, 60)
    assert explainer.removal == Removal("tokens")
    assert found.flat().items() >= settings().items()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (settings(name="kernel_shop"), r"supervision=kernel_shop is not a known explainer: did you mean kernel_shap\?"),
        (settings(name=None), "supervision.name is not set: choose from .*kernel_shap"),
        (settings(block=0), "supervision.block=0 must be at least 1"),
        (settings(block="7"), "supervision.block=7 must be a whole number"),
        (settings(block=True), "supervision.block=true must be a whole number"),
        (
            settings(coalition=4),
            r"supervision.coalition is not .*: did you mean coalitions\? with supervision=kernel_s",
        ),
        (
            {"name": "grad_cam", "block": 2, "removal": {}},
            "removal is not .*: known here: block, name with supervision=g",
        ),
        (settings(coalitions="40"), "supervision.coalitions=40 must be a whole number"),
    ],
)
def test_wrong_settings_are_refused(given: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_supervision(given)


def test_maps_of_pixels_are_refused_where_patches_are_wanted() -> None:
    given = {"name": "saliency", "block": 7, "output": "logit", "resolution": "pixel"}
    for where in ("supervision", "baselines.saliency"):
        with pytest.raises(UserError) as caught:
            open_supervision(given, where)
        assert str(caught.value) == (
            f"{where}.resolution=pixel: maps of patches are wanted here, use {where}.resolution=patch"
        )
    assert open_supervision(given, pixels=True).explainer.of_pixels
    assert not open_supervision(given | {"resolution": "patch"}).explainer.of_pixels


def test_a_split_and_the_bound_have_their_own_p_where_there_is_one() -> None:
    params = open_supervision(settings())
    assert params.of("train").flat()["coalitions"] == 40
    assert params.of("test").flat()["coalitions"] == 60
    assert params.of("train", coalitions=16).flat()["coalitions"] == 16
    cam = open_supervision({"name": "grad_cam", "block": 3})
    assert cam.of("train", coalitions=16) == cam


# What is made.


@pytest.mark.parametrize(("split", "gain"), [("train", 1.5), ("test", 3.0)])
def test_every_image_is_explained_for_its_label_with_the_draws_of_its_block(
    tmp_path: Path, journal: Path, split: str, gain: float
) -> None:
    found = load(order(tmp_path, split, gain=1.5).fill())
    labels = DATA.source.labels(split)
    assert torch.equal(found.rows, torch.arange(len(labels)))
    assert torch.equal(found.labels, labels)
    pixels = DATA.source.images(split, found.rows, 0).pixels
    for number, rows in enumerate(found.rows.split(2)):
        expected = drawn(gain, pixels[rows], labels[rows], 3 * 1_000_003 + number)
        torch.testing.assert_close(found.attributions[rows], expected, rtol=0, atol=0)


def test_the_file_says_what_it_is_in_one_entry(tmp_path: Path, journal: Path) -> None:
    artifact = order(tmp_path).fill()
    with safe_open(artifact.file("supervision.safetensors"), "pt") as file:
        metadata = file.metadata()
    # Of several entries safetensors would write any order, and no two runs the same bytes.
    assert metadata.keys() == {"xai.supervision"}
    assert json.loads(metadata["xai.supervision"]) == {"data": "shades", "split": "test", "key": artifact.key}


def test_a_subset_is_explained_in_the_order_of_its_rows(tmp_path: Path, journal: Path) -> None:
    found = load(order(tmp_path, "train", images=5).fill())
    rows = subset(DATA.source, "train", 5, 3)
    assert torch.equal(found.rows, rows)
    assert torch.equal(found.labels, DATA.source.labels("train")[rows])
    assert begun(journal) == [block.tolist() for block in found.labels.split(2)]
    expected = drawn(1.0, DATA.source.images("train", rows[2:4], 0).pixels, found.labels[2:4], 3 * 1_000_003 + 1)
    torch.testing.assert_close(found.attributions[2:4], expected, rtol=0, atol=0)


def test_the_classifier_is_assembled_once_with_the_removal_of_the_explainer(tmp_path: Path, journal: Path) -> None:
    asked = []

    def assembled(removal: Removal | None) -> Silent:
        asked.append(removal)
        return Silent()

    wanted = order(tmp_path)
    replace(wanted, subject=Subject("theta", 16, assembled)).fill()  # type: ignore[arg-type]
    assert asked == [Removal("tokens")]


def fine_tuned_order(bench: Runtime) -> tuple[Order, Artifact]:
    theta = base(bench)

    def make(work: Path) -> None:
        spec = describe(MODEL, "classifier", DATA.name, DATA.source.classes)
        files.write(work / "classifier.safetensors", assemble(bench, MODEL, theta, DATA, None), spec)

    classifier = bench.store.get("classifier", {}, make)
    params = open_supervision(settings(block=4)).of("test")
    return Order(bench, fine_tuned(bench, MODEL, theta, DATA, classifier), DATA, "test", params, 0), classifier


def test_shapley_values_add_up_to_what_the_whole_image_is_worth(tmp_path: Path) -> None:
    bench = runtime(tmp_path)
    wanted, classifier = fine_tuned_order(bench)
    found = load(wanted.fill())
    network = assemble(bench, MODEL, base(bench), DATA, parameters(classifier), Removal("tokens"))
    pixels = DATA.source.images("test", found.rows, 0).pixels
    everything, nothing = (network(pixels, torch.full((9, 16), seen)) for seen in (True, False))
    worth = (everything - nothing)[torch.arange(9), found.labels]
    torch.testing.assert_close(found.attributions.sum((1, 2)), worth, rtol=1e-4, atol=1e-5)
    assert found.attributions.flatten(1).std(1).min() > 0.01


def test_threads_that_read_images_change_nothing(tmp_path: Path) -> None:
    wanted, _ = fine_tuned_order(runtime(tmp_path / "one"))
    bench = runtime(tmp_path / "several")
    bench.trainer = replace(bench.trainer, workers=3)
    assert bytes_of(fine_tuned_order(bench)[0].fill()) == bytes_of(wanted.fill())


def test_attributions_that_are_not_finite_are_refused_by_row(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(gain: float, pixels: torch.Tensor, labels: torch.Tensor, seed: int) -> torch.Tensor:
        maps = drawn(gain, pixels, labels, seed)
        maps[labels == 2, 1, 3] = torch.inf
        return maps

    monkeypatch.setattr("tests.stages.explaining.drawn", spoilt)
    rows = subset(DATA.source, "train", 7, 3)
    bad = rows[DATA.source.labels("train")[rows] == 2].tolist()
    wanted = order(tmp_path, "train", images=7)
    with pytest.raises(UserError) as caught:
        replace(wanted, params=replace(wanted.params, block=7)).fill()
    message = str(caught.value)
    assert f"for {len(bad)} images of shades train (rows {', '.join(map(str, bad))}):" in message
    assert "\n" not in message


def test_maps_of_another_size_are_a_mistake(tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Silent, "grid", (2, 8))
    with pytest.raises(ValueError, match=r"\[2, 4, 4\]"):
        order(tmp_path).fill()


# What changed is never mixed.


def test_whatever_changes_is_explained_anew(tmp_path: Path, journal: Path) -> None:
    other = OpenData("shades", {"name": "shades", "fingerprint": "other"}, DATA.source)
    orders = [
        order(tmp_path),
        order(tmp_path, "validation"),
        order(tmp_path, gain=2.0),
        order(tmp_path, classifier="other"),
        order(tmp_path, data=other),
        order(tmp_path, images=9),
        replace(order(tmp_path), seed=4),
    ]
    assert len({wanted.key for wanted in orders}) == len(orders)
    for wanted in (*orders, *orders):
        wanted.fill()
    assert len(begun(journal)) == sum([5, 4, 5, 5, 5, 5, 5])


def test_shards_of_another_classifier_are_noticed_and_not_used(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bytes_of(order(tmp_path / "whole", classifier="b").fill())
    journal.write_text("")
    before, wanted = order(tmp_path, classifier="a"), order(tmp_path, classifier="b")
    # Killed when every block was there and nothing was put together.
    with monkeypatch.context() as patch:
        patch.setattr(Store, "get", interrupted)
        for each in (before, wanted):
            with pytest.raises(KeyboardInterrupt):
                each.fill()
    there, here = (
        wanted.runtime.store.root / "supervision" / f"{each.key}.partial/scratch" for each in (before, wanted)
    )
    for shard in there.glob("*.safetensors"):
        shard.rename(here / shard.name)
    journal.write_text("")
    assert bytes_of(wanted.fill()) == expected
    assert begun(journal) == BLOCKS
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == len(BLOCKS)
    assert all("belongs to other work; it is computed anew" in line for line in said)


# Kills and company.


def test_a_block_cut_short_by_a_kill_is_computed_anew_and_the_others_are_kept(
    tmp_path: Path, journal: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = bytes_of(order(tmp_path / "whole").fill())
    journal.write_text("")
    with monkeypatch.context() as patch:
        patch.setattr(Order, "_check_finite", lambda *_: begun(journal)[2:] and interrupted())
        with pytest.raises(KeyboardInterrupt):
            order(tmp_path).fill()
    first, _ = sorted((tmp_path / "store").rglob("scratch/00000*.safetensors"))
    first.write_bytes(first.read_bytes()[:-20])
    assert bytes_of(order(tmp_path).fill()) == expected
    assert begun(journal) == [*BLOCKS[:3], BLOCKS[0], *BLOCKS[2:]]
    (warning,) = (record.getMessage() for record in caplog.records)
    assert warning == f"{first} is torn; it is computed anew"
    assert not list((tmp_path / "store").rglob("*.partial"))


def explain_then_hang(folder: Path, blocks: int) -> None:
    """Be a process that explains so many blocks and is then at the next for ever."""
    wanted, calls = order(folder, "train", block=1), itertools.count()
    explain = Drawn.attribute

    def attribute(self: Drawn, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        maps = explain(self, images, targets, generator)
        if next(calls) == blocks:
            time.sleep(30)
        return maps

    Drawn.attribute = attribute  # type: ignore[method-assign]
    wanted.fill()


def test_killed_ten_times_it_ends_with_the_same_bytes(tmp_path: Path, journal: Path) -> None:
    expected = bytes_of(order(tmp_path / "whole", "train", block=1).fill())
    journal.write_text("")
    wanted, generator = order(tmp_path, "train", block=1), random.Random(0)
    for kept in [0, 1, 2, 0, 1, 0, 3, 1, 0, 2]:
        process, so_far, limit = FORK.Process(target=explain_then_hang, args=(tmp_path, kept)), len(begun(journal)), 20
        process.start()
        limit += time.monotonic()
        while len(begun(journal)) <= so_far + kept:
            assert time.monotonic() < limit, "waited in vain"
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.01))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        assert not (wanted.runtime.store.root / "supervision" / wanted.key).exists()
    assert bytes_of(wanted.fill()) == expected
    assert len(begun(journal)) == 12 + 10  # each kill has cost the block it fell in and no other


def test_processes_share_a_split_and_make_each_block_once(tmp_path: Path, journal: Path) -> None:
    expected = bytes_of(order(tmp_path / "whole", pause=0.05).fill())
    journal.write_text("")

    def contribute() -> None:
        wanted = order(tmp_path, pause=0.05)
        assert bytes_of(wanted.fill()) == expected
        (tmp_path / f"made-{len(wanted.runtime.store.made)}-{time.monotonic_ns()}").touch()

    processes = [FORK.Process(target=contribute) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert Counter(map(tuple, begun(journal))) == Counter(map(tuple, BLOCKS))
    assert len(list(tmp_path.glob("made-1-*"))) == 1
    assert len(list(tmp_path.glob("made-0-*"))) == 2
    found = order(tmp_path, pause=0.05).fill()
    assert found.seconds >= len(BLOCKS) * 0.05
    assert len(begun(journal)) == len(BLOCKS)
