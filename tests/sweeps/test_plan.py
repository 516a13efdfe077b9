"""`task=plan` and `task=data`: every paper-scale sweep is planned, and by hand the numbers are the same."""

import re
from pathlib import Path
from typing import Any

import hydra
import pytest
import torch

from tests.sweeps.conftest import Sweeping
from xai.core.composing import CONF
from xai.data.catalogue import fill, open_data
from xai.data.facts import FACTS, counts, state
from xai.data.registry import SPLITS, names
from xai.explainers.rows import load_row
from xai.metrics.registry import columns
from xai.models.vit import VitParams
from xai.papers.plans import passes_a_second, stages_of
from xai.report.figures import open_figure
from xai.report.layout import read_table
from xai.study.study import open_rows
from xai.sweeps.jobs import axes_of
from xai.sweeps.plan import planned_settings
from xai.tasks.checks import check_named

PAPER = sorted(path.stem for path in (CONF / "sweep").glob("*_paper.yaml"))


def runs_of(name: str) -> str:
    whole = (CONF / "sweep" / f"{name}.yaml").read_text()
    return whole.split("axes:")[1].split("\ntables:")[0].split("\nclaims:")[0].split("\nfigures:")[0]


RUNS = {runs_of(name): name for name in PAPER}
"""By their runs: Tables 1 to 4 of SALVAGE are of the same ones."""
EMBEDDED = {runs_of(path.stem): path.stem for path in (CONF / "sweep").glob("*.yaml") if path.stem not in PAPER}


def jobs(*typed: str) -> list[Any]:
    """The settings of each job."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        return planned_settings(typed)


def planned(*typed: str) -> list[dict[str, float]]:
    """The passes of each stage of each job."""
    return [{stage.name: stage.passes for stage in stages_of(each)} for each in jobs(*typed)]


def first_job(sweep: str, *more: str) -> Any:
    """The settings of the first job of a sweep."""
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        first = [axis[0] for axis in axes_of([f"sweep={sweep}"], [], "config")]
    return jobs(*first, *more)[0]


def test_there_is_a_paper_scale_sweep_for_every_table_and_figure_of_a_paper() -> None:
    embedded = {path.stem for path in (CONF / "sweep").glob("*_[tf][ai][bg]*.yaml")} - set(PAPER)
    ours = {"salvage_two_by_two_paper"}
    assert {f"{name}_paper" for name in embedded} | ours == set(PAPER)


@pytest.mark.parametrize("name", RUNS.values())
def test_every_paper_scale_sweep_is_planned(name: str) -> None:
    # One job of each data set; the others differ in numbers alone.
    few = {"vectors_figure3_paper": ["transfer.alpha=0.1"], "vectors_figure2_paper": ["data@source=sun397"]}
    few |= {key: [] for key in ("vectors_table1_paper", "vectors_table2_paper", "vectors_figure5_paper")}
    typed = [*few.get(name, ["seed=0"]), *(["data=cars,svhn"] if name.startswith("vectors") else [])]
    for stages in planned(f"sweep={name}", *typed):
        assert sum(stages.values()) > 1e6
        assert any(stage.startswith("scores: ") for stage in stages)


@pytest.mark.parametrize("name", ["vectors_figure2", "vectors_figure2_paper"])
def test_what_figure_2_draws_is_measured_at_both_scales(name: str) -> None:
    settings, drawn = first_job(name), open_figure("vectors_figure2").params
    measured = {*settings.rows, *(f"proposed@lambda2={each:g}" for each in settings.transfer.lambda2_grid)}
    assert {*drawn.rows, *drawn.controls, drawn.relative_to, drawn.level, drawn.nothing} <= measured


@pytest.mark.parametrize("name", ["vectors_figure5", "vectors_figure5_paper"])
def test_kernel_shap_that_is_said_to_draw_singly_does_and_its_reference_does_not(name: str) -> None:
    settings = first_job(name)
    rows = open_rows([row for row in settings.rows if row.startswith("kernel_shap_paper_")], settings.explainers)
    assert [(row.params.coalitions, row.params.sampler) for row in rows] == [
        (number, "shapley_kernel") for number in (100, 300, 1000)
    ]
    reference = load_row(settings.supervision, settings.explainers).params
    assert reference.sampler != "shapley_kernel"
    assert reference.removal == rows[0].params.removal


def test_kernel_shap_beside_loss_by_masks_has_more_pairs_than_patches() -> None:
    settings = first_job("salvage_two_by_two_paper")
    rows = [load_row(name, settings.explainers).params for name in ("kernel_shap", settings.reference)]
    # Around two an unknown, as 512 would be, least squares fit noise.
    assert [each.coalitions / settings.model.grid**2 for each in rows] == [16, 128]
    assert not settings.lengths


@pytest.mark.parametrize("name", sorted(EMBEDDED.values()))
def test_every_embedded_sweep_is_planned(name: str) -> None:
    # `all` of its rows would be opened one by one, which takes longer than all else here.
    settings = first_job(name, *(["rows=[rise,random]"] if name == "compare" else []))
    if name != "compare":  # whose classifier is trained before
        check_named(settings)
    stages = stages_of(settings)
    assert sum(stage.passes for stage in stages) > 1e3
    assert any(stage.name.startswith("scores: ") for stage in stages)


@pytest.mark.parametrize(("name", "rows"), [("mixed_budget", 20), ("mixed_transfer", 15), ("mixed_supervision", 5)])
def test_rows_of_a_mixed_sweep_have_labels_of_their_own_and_its_tables_known_columns(name: str, rows: int) -> None:
    settings = first_job(name)
    found = open_rows(settings.rows, settings.explainers)
    assert len({row.label for row in found}) == len(found) == rows
    for table in settings.tables:
        assert set(read_table(CONF / "table" / f"{table}.yaml").columns) <= {*columns(), "passes", "milliseconds"}


def test_a_job_of_a_sweep_may_ask_for_all_rows() -> None:
    (settings,) = jobs("sweep=compare", "experiment=compare_photos")
    check_named(settings)
    planned = [stage.name for stage in stages_of(settings)]
    assert list(settings.rows) == ["mean_over_classes", "all"]
    assert {"scores: removal", "kernel_shap of the test images"} <= set(planned)
    assert not [name for name in planned if name.startswith("exact_shapley")]


def test_maps_of_the_probe_are_part_of_the_plan() -> None:
    typed = ["experiment=salvage", "seed=0", "rows=[rise]", "++explainers.rise.masks=100", "probe_images=40"]
    (with_it,), (without,) = planned(*typed), planned(*typed, "probe=null")
    assert with_it.keys() - without.keys() == {"rise of the probe, mnist_pair"}
    assert with_it["rise of the probe, mnist_pair"] == 40 * 100


def test_explainers_that_a_comparison_or_a_vector_trains_are_part_of_its_plan() -> None:
    (stages,) = planned("sweep=compare", "experiment=compare_cnn", "rows=[fast_shap,rise]")
    # 4,000 images, 16 times: 8 masked ones and a step of the network's own.
    assert stages["training of fast_shap"] == 4000 * 16 * (8 + 3)
    assert "surrogate" in stages
    typed = ["sweep=mixed_supervision", "supervision=salvage", "explainers.vit_shapley.network=vit_tiny"]
    (vector,) = planned(*typed, "explainers.salvage.network=vit_tiny", "explainers.salvage.masks=4")
    assert "surrogate" not in vector
    for each in ("training of salvage on the source", "training of salvage"):
        assert vector[each] % (16 * (4 + 3)) == 0 < vector[each]


def test_what_a_decoder_looks_at_a_second_classifier_and_a_second_column_are_part_of_the_plan() -> None:
    (stages,) = planned("experiment=ranking_beyond", "explainers.ranking.fit.epochs=3")
    assert stages["second classifier, cnn_tiny"] == stages["classifier"]
    # 4,000 images, three times: two paths of four points, forwards and backwards, what is seen, and its own.
    by_look = {"ranking": 3, "ranking_path": 3 * 12}
    for row, seen in by_look.items():
        assert stages[f"training of {row}"] == 4000 * 3 * (2 * 4 * 3 + seen + 3)
    # One training, of which one row keeps a share: seven shares, three references, both curves of 21 points.
    assert "training of ranking_residual_whole" not in stages
    assert stages["training of ranking_residual"] == 4000 * 6 * (2 * 4 * 3 + 3 * 12 + 3)
    assert stages["choice of ranking_residual"] == 100 * (1 + 37 + 7 * 3 * 40)
    # Kernel SHAP asks once for both columns.
    for supervision, explained in (
        ("kernel_shap", set()),
        ("grad_cam", {"source, glyphs_scattered", "target's training images"}),
    ):
        (one,), (two,) = (
            planned("experiment=vectors_mnist", f"supervision={supervision}", f"transfer.other_column={each}")
            for each in ("false", "true")
        )
        doubled = {name for name in one if two[name] == 2 * one[name] > 0}
        assert doubled == {f"{supervision} of the {what}" for what in explained}
        assert all(two[name] == one[name] for name in one.keys() - doubled)


def test_the_papers_own_runs_learn_from_one_column() -> None:
    for name in ("demo", "mixed_transfer", "vectors_mnist", "vectors_pairs", "vectors_paper", "vectors_budget"):
        (settings,) = jobs(f"experiment={name}")
        assert not settings.transfer.other_column, name
    assert first_job("vectors_beyond").transfer.other_column


def test_a_rate_that_is_measured(sweep: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("xai.sweeps.plan.passes_a_second", lambda model, device: passes_a_second(model, device, 0.01, 2))
        assert sweep("task=plan", "experiment=salvage_smoke", "rate=measured") == 0
    said = re.search(r"device hours at ([\d,]+) passes a second", " ".join(capsys.readouterr().out.split()))
    assert said
    assert int(said[1].replace(",", "")) > 0


def test_a_rate_is_that_of_a_network_for_images_of_another_size_than_it_was_published_for() -> None:
    model = VitParams("timm", 48, 16, (0.5,) * 3, (0.25,) * 3, architecture="test_vit")
    assert passes_a_second(model, torch.device("cpu"), 0.01, 2) > 0


@pytest.mark.parametrize("architecture", ["squeezenet1_1", "googlenet"])
def test_a_network_that_torchvision_alone_has_is_planned(architecture: str) -> None:
    typed = ("task=compare", "data=photos", f"model.architecture={architecture}", "rows=[rise]", "case.images=7")
    (stages,) = planned(*typed)
    assert stages["rise of the test images"] == 500 * 7


def test_the_passes_of_salvage_by_hand() -> None:
    (stages,) = planned("experiment=salvage_paper_pet")
    train, test = 7349 - 2 * 734, 734
    assert stages["classifier"] == 25 * train * 3
    assert stages["surrogate"] == 50 * train * (3 + 1)
    assert stages["training of salvage"] == 100 * train * (3 + 32)
    assert stages["rise of the test images"] == 2000 * test
    # One network, read in two ways.
    assert "training of vit_shapley_normalised" not in stages
    # Figure 7 looks twice at three of the networks on their way, which are measured as all 18 rows with maps are.
    assert len([name for name in stages if "@" in name]) == 6
    assert len([name for name in stages if name.startswith("training of")]) == 4
    assert stages["scores: removal"] == (18 + 6) * test * 65_787


def test_the_passes_of_learn_to_rank_by_hand() -> None:
    (stages,) = planned("experiment=ranking_paper", "path_steps=[4,8]", "rows=[ranking,ranking_t1,ranking_t5]")
    train, test = 1281167 - 128116, 50000
    # The network that timm publishes tells ImageNet's classes apart as it comes.
    assert stages["classifier"] == 0
    for name, points in (("ranking", 16), ("ranking@S=4", 4), ("ranking@S=8", 8)):
        assert stages[f"training of {name}"] == train * (3 + 2 * points * 3)
    # Five steps of four draws, for two classes: one path, of which every T is a part.
    assert stages["ranking_t1 of the test images"] == 2 * test * 5 * 4 * (2 * 16 * 3)
    assert not [name for name in stages if name.startswith(("ranking_t5 of", "ranking@t"))]
    # T = 1 to 5 and S = 4, 8, 16; 21 points of two curves, three references, two classes.
    assert stages["scores: perturbation"] == 8 * test * 40 * 3 * 2
    (own,) = planned("experiment=ranking_paper", "rows=[random]", "model.pretrained=false")
    assert own["classifier"] == 25 * train * 3


def test_the_passes_of_a_transfer_by_hand() -> None:
    (stages,) = planned("experiment=vectors_paper", "data@source=imagenet", "data=dtd", "rows=[ft_target,proposed]")
    source = 1281167 - 128116
    assert stages["ft target"] == 2000 * 128 * 3
    assert stages["kernel_shap_paper of the source, imagenet"] == source * 502
    assert len([name for name in stages if name.startswith("ft source+X, alpha")]) == 9
    assert "ft target+X" not in stages
    # Figure 3: every lambda2 of the grid, on the test images.
    assert [stages[name] for name in stages if name.startswith("proposed@lambda2=")] == [2 * 1880.0] * 9


def test_jobs_of_a_sweep_share_what_is_the_same(sweep: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep("task=plan", "sweep=salvage_table1", "seed=0", "case.images=50", "rate=1000") == 0
    alone = capsys.readouterr().out
    assert "2 jobs" in alone
    typed = ["experiment=vectors_paper", "data@source=imagenet", "data=dtd,svhn", "rows=[proposed]"]
    first, second = map(stages_of, jobs(*typed))
    # Two targets have the source in common.
    mine = {stage.identity for stage in first}
    shared = [stage.name for stage in second if stage.identity in mine]
    assert len(shared) == 2 + 9
    assert all("source" in name for name in shared)
    assert "device hours at 1,000 passes a second" in " ".join(alone.split())
    assert not Path("outputs").exists()


def test_several_sweeps_are_planned_together(
    sweep: Sweeping, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = iter([250.0, 1000.0])
    monkeypatch.setattr("xai.sweeps.plan.passes_a_second", lambda model, device: next(rates))
    few = ("seed=0", "case.images=50")
    asked = "sweeps=[salvage_table1,salvage_table2,ranking_table]"
    assert sweep("task=plan", asked, *few, "rate=measured") == 0
    lines = capsys.readouterr().out.splitlines()
    first, second, third = (
        next(line for line in lines if line.startswith(name)).split() for name in asked[8:-1].split(",")
    )
    # The runs of the second table are those of the first, but for a metric; each model has its own rate.
    assert first[1] == second[1] == "2"
    assert int(second[-1]) < int(first[-1])
    total = re.search(r"([\d,]+) forward passes at most, ([\d.]+) device hours at 250 to 1,000 passes", " ".join(lines))
    assert total
    hours = [float(row[row.index("B") + 1] if "B" in row else row[-3]) for row in (first, second, third)]
    assert sum(hours) == pytest.approx(float(total[2]), abs=0.07)
    assert sweep("task=plan", asked, "sweep=salvage_table1") == 2
    assert "give one of the two" in capsys.readouterr().err


def test_a_set_that_is_source_and_target_has_one_classifier(capsys: pytest.CaptureFixture[str]) -> None:
    sets = ("glyphs_scattered", "mnist_scattered")
    shared = ("experiment=vectors_pairs", "transfer.bound_fit=${transfer.source_fit}")
    asked = [jobs(f"data@source={a}", f"data={b}", *shared) for a, b in (sets, sets[::-1])]
    unique = {stage.identity: stage for (each,) in asked for stage in stages_of(each)}
    kinds = [stage.kind for stage in unique.values()]
    # Of each set a classifier, its supervision, and what learns from that: as source and as bound of the target.
    assert kinds.count("training") == 4
    assert (
        len([each for each in unique.values() if "training images" in each.name or "of the source" in each.name]) == 2
    )


def test_facts_of_what_is_shipped_are_counted() -> None:
    fill()
    assert set(names()) - {"folder", "pictures"} <= set(FACTS)
    for name in ("digits", "mnist5k", "mnist_pair"):
        source = open_data({"name": name}, "data").source
        assert counts({"name": name}) == {split: len(source.labels(split)) for split in SPLITS}
    assert counts({"name": "imagenette", "splits": "halved"}) == {"train": 9469, "validation": 1962, "test": 1963}
    assert counts({"name": "dtd", "splits": "halved"}) == {"train": 1880, "validation": 940, "test": 940}
    assert counts({"name": "glyphs_scattered", "images_per_class": 25}) == {"train": 720, "validation": 72, "test": 108}
    assert counts({"name": "photos", "crops": 1}) == {"train": 0, "validation": 0, "test": 7}
    assert counts({"name": "folder"}) is None


def test_the_state_of_a_data_set(tmp_path: Path, sweep: Sweeping, capsys: pytest.CaptureFixture[str]) -> None:
    assert state("digits", None) == "here"
    assert state("pet", str(tmp_path / "pet")) == "to be fetched"
    assert state("mura", str(tmp_path / "mura")) == "to be asked for"
    (tmp_path / "mura" / "MURA-v1.1").mkdir(parents=True)
    assert state("mura", str(tmp_path / "mura")) == "here"
    Path("conf/data").mkdir()
    Path("conf/data/mine.yaml").write_text("name: photos\ncrops: 5\n")
    assert sweep("task=data") == 0
    out = capsys.readouterr().out
    assert "The licence's page has the last word." in out
    (mine,) = [line.split() for line in out.splitlines() if "mine" in line.split()]
    assert mine[:5] == ["mine", "here", "0", "0", "35"]
