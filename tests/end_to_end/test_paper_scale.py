"""The paper's configuration: its numbers, and one step of every stage on images and words of its size."""

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import timm
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.numpy import load_file

from tests.composed import composed, plain, settings_of
from tests.end_to_end.runs import STAGES, UNDRAWN, artifacts
from tests.models.test_dpt import PAPER
from xai import app
from xai.core.composing import CONF
from xai.core.optimisation import FitParams
from xai.core.settings import build
from xai.explainers.rows import load_row
from xai.methods.ranking import RankingLoss
from xai.models.dense import DenseExplainer
from xai.models.explainer import SalvageNetwork, build_decoder
from xai.models.factory import ClipParams, build_clip, build_explainer
from xai.models.features import FrozenFeatures
from xai.models.vit import VitParams
from xai.papers.ranking.explainers import RankingSettings, RefinedSettings
from xai.papers.ranking.study import RankingStudy
from xai.papers.salvage.explainers import SalvageSettings, VitShapleySettings
from xai.papers.salvage.study import SalvageStudy
from xai.papers.vectors.study import VectorsStudy
from xai.ranking.objective import ObjectiveParams
from xai.study.study import open_metrics, open_rows

NARROW = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}
"""ViT-B-32 but for its widths and depths: open_clip's builder and words, 224 px, 7 x 7 patches."""


@pytest.mark.parametrize(
    ("model", "architecture", "patch", "patches"),
    [("clip_vit_b32", "ViT-B-32", 32, 49), ("clip_vit_l14", "ViT-L-14", 14, 256)],
)
def test_the_numbers_of_the_paper(model: str, architecture: str, patch: int, patches: int) -> None:
    values = plain("experiment=vectors_paper", *([] if model == "clip_vit_b32" else [f"model={model}"]))
    values["trainer"]["accelerator"] = "cpu"
    settings = settings_of(VectorsStudy, values)
    assert (settings.model.architecture, settings.model.pretrained) == (architecture, "datacomp_xl_s13b_b90k")
    assert (architecture, settings.model.pretrained) in open_clip.list_pretrained()
    assert (settings.model.image_size, settings.model.patch_size) == (224, patch)
    assert settings.model.grid**2 == patches
    supervision = load_row(settings.supervision, settings.explainers).params
    for split in ("train", "validation", "test"):
        assert asdict(supervision.for_split(split))["coalitions"] == 500
    transfer = settings.transfer
    assert (transfer.alpha, transfer.lambda1, transfer.bound_coalitions) == (None, 1.0, 500)
    assert transfer.alpha_grid == tuple(tenth / 10 for tenth in range(1, 10))
    assert transfer.lambda2_grid == (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)
    for fit in (transfer.source_fit, transfer.target_fit, transfer.bound_fit):
        # Task arithmetic (Ilharco et al. 2023, appendix B): 2,000 iterations, 200 of warm-up, whatever the data set.
        assert (fit.length, fit.warmup, fit.batch_size) == (("steps", 2000), 0.1, 128)
    assert "ft_target_x" in settings.rows
    assert transfer.source_images is transfer.target_images is settings.case.images is None


@pytest.mark.parametrize(
    ("data", "epochs", "binary", "splits"),
    [
        ("imagenette", 50, False, "halved"),
        ("pet", 100, False, "pooled"),
        ("mura", 50, True, "official"),
        ("wbc", 50, False, "official"),
    ],
)
def test_the_numbers_of_salvage(data: str, epochs: int, binary: bool, splits: str) -> None:
    experiment = "salvage_paper" if data == "imagenette" else f"salvage_paper_{data}"
    values = plain(f"experiment={experiment}")
    values["trainer"]["accelerator"] = "cpu"
    settings = settings_of(SalvageStudy, values)
    assert (settings.name, settings.data["name"], settings.model.binary) == (experiment, data, binary)
    # ViT-Shapley's published protocol: squashed to 256, 224 of it, varied in training.
    keys = ("splits", "fit", "resize", "size", "interpolation")
    assert [settings.data[key] for key in keys] == [splits, "squash", 256, 224, "bilinear"]
    assert settings.data["augment"] == {
        **{"crop": 0.8, "horizontal": 0.5, "vertical": 0.5, "jitter": 0.8},
        **{"brightness": 0.2, "contrast": 0.2, "saturation": 0.1, "hue": 0.1},
    }
    assert settings.data.get("border", False) is False
    assert timm.is_model_pretrained(settings.model.architecture or "")
    assert (settings.model.pretrained, settings.model.grid**2) == (True, 256)
    rows = {row.name: row.params for row in open_rows(settings.rows, settings.explainers)}
    salvage, shapley = rows["salvage"], rows["vit_shapley"]
    assert isinstance(salvage, SalvageSettings)
    assert isinstance(shapley, VitShapleySettings)
    stages = settings.classifier, settings.surrogate, salvage, shapley
    assert [stage.fit.epochs for stage in stages] == [25, 50, epochs, epochs]
    assert [stage.fit.learning_rate for stage in stages] == [1e-5, 1e-5, 1e-5, 1e-4]
    assert {(stage.fit.batch_size, stage.fit.weight_decay) for stage in stages} == {(64, 1e-5)}
    assert salvage.masks == shapley.masks == 32
    assert (salvage.sampling, salvage.temperature) == ("informed", 1)
    assert (salvage.divergence, salvage.decoder) == ("jensen_shannon", "mask_transformer")
    (removal,) = (each for each in open_metrics(settings.metrics, settings.metric) if each.metric.name == "removal")
    assert (settings.case.split, settings.case.images, removal.params.masks) == ("test", None, 128)
    assert {"random", "brightness", "position_prior"} <= set(settings.rows)
    assert ("object_mask" in settings.rows) == (data == "pet")
    assert set(settings.lengths) <= set(salvage.snapshots) == set(shapley.snapshots)
    assert {stage.fit.keep for stage in stages} == {"best"}


def test_everything_at_paper_scale_runs_on_a_gpu_in_mixed_precision_and_reads_with_workers() -> None:
    experiments = [path.stem for path in sorted((CONF / "experiment").glob("*_paper*.yaml"))]
    assert {name.partition("_")[0] for name in experiments} == {"vectors", "salvage", "ranking"}
    for name in experiments:
        trainer = composed(f"experiment={name}").trainer
        assert (trainer.accelerator, trainer.precision) == ("gpu", "bf16-mixed"), name
        assert trainer.workers >= 4, name


@pytest.mark.parametrize("task", ["study=salvage", "task=train method=salvage", "task=train method=vit_shapley"])
@pytest.mark.parametrize("model", ["vit_b14_dinov2", "vit_b16_augreg"])
def test_a_pre_trained_model_of_the_users_is_trained_as_in_the_paper(task: str, model: str) -> None:
    yours, paper = composed(*task.split(), f"model={model}"), composed("experiment=salvage_paper")
    for path in ("classifier", "surrogate", "explainers.salvage", "explainers.vit_shapley"):
        assert OmegaConf.select(yours, path) == OmegaConf.select(paper, path)
    assert yours.explainers.salvage.fit.learning_rate == 1e-5
    row = load_row("salvage_uniform", yours.explainers).params
    assert (row.masks, row.decoder, row.depth, row.heads) == (32, "mask_transformer", 2, 12)
    # What the user types stands above it, and the embedded model keeps its own.
    assert composed(*task.split(), f"model={model}", "surrogate.fit.epochs=3").surrogate.fit.epochs == 3
    assert composed(*task.split()).surrogate.fit.learning_rate == 5e-4


def test_networks_of_salvage_at_their_size() -> None:
    values = composed("experiment=salvage_paper")
    model = build(VitParams, OmegaConf.to_container(values.model, resolve=True), "model")
    fit = open_rows(["salvage"], OmegaConf.to_container(values.explainers))[0].params
    with torch.device("meta"):  # shapes without numbers
        classifier = model.build(10, 0)
        assert model.maskable(classifier)(torch.empty(2, 3, 224, 224)).shape == (2, 10)
        decoder = build_decoder(fit.decoder, 768, 20, fit.depth, fit.heads)
        explainer = SalvageNetwork(model.build(10, 0), decoder, model.mean, model.std)
        present, absent = explainer.parts(torch.empty(2, 3, 224, 224))
    assert present.shape == absent.shape == (2, 256, 10)
    assert classifier.reg_token is not None
    assert classifier.reg_token.shape == (1, 4, 768)


def ranking_paper() -> RankingStudy:
    values = plain("experiment=ranking_paper")
    assert values["trainer"] == {**values["trainer"], "accelerator": "gpu", "precision": "bf16-mixed"}
    values["trainer"]["accelerator"] = "cpu"
    return settings_of(RankingStudy, values)


def test_the_numbers_of_learn_to_rank() -> None:
    settings = ranking_paper()
    ranking, refined = (load_row(name, settings.explainers).params for name in ("ranking", "ranking_t5"))
    (perturbation,) = open_metrics(["perturbation"], settings.metric)
    references = ("black", "mean", "blur")
    assert isinstance(ranking, RankingSettings)
    assert isinstance(refined, RefinedSettings)
    assert isinstance(settings.model, VitParams)
    assert settings.model.architecture == "vit_base_patch16_224.orig_in21k_ft_in1k"
    assert timm.is_model_pretrained(settings.model.architecture)
    assert (settings.model.image_size, settings.model.pretrained, settings.data["name"]) == (224, True, "imagenet")
    assert (settings.model.mean, settings.model.std) == ((0.5,) * 3, (0.5,) * 3)
    assert ranking.backbone.architecture == "vit_large_patch16_dinov3"
    assert timm.is_model_pretrained(ranking.backbone.architecture)
    assert (ranking.backbone.mean, ranking.backbone.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert (ranking.backbone.pretrained, ranking.levels) == (True, (4, 11, 17, 23))
    assert ranking.decoder == PAPER
    assert replace(ranking.objective, chunk=0) == ObjectiveParams(
        16, 7, 28, references, 30, 1.0, 0.0025, 15, False, mean=(0.485, 0.456, 0.406)
    )
    assert replace(ranking.loss, runner_up=0.0) == RankingLoss(0.0, 0.0, 1.0, 0.3)
    assert ranking.fit == FitParams(1, 32, 3e-4, 1e-3, 0.06, 1.0)
    assert replace(refined.objective, chunk=0) == replace(ranking.objective, chunk=0)
    measured = perturbation.params
    assert (refined.steps, measured.steps, measured.references, measured.mean) == (
        *(5, 21, references),
        (0.485, 0.456, 0.406),
    )
    assert settings.data["fit"] == "squash"
    assert settings.case.images is None
    assert {"flat_t1", "flat_t3", "flat_t5", "random", "brightness", "position_prior"} <= set(settings.rows)
    assert "object_mask" not in settings.rows  # ImageNet's folders know no regions


def test_the_explainer_of_learn_to_rank_at_its_size() -> None:
    ranking = load_row("ranking", ranking_paper().explainers).params
    assert isinstance(ranking, RankingSettings)
    with torch.device("meta"):  # shapes without numbers
        network = timm.create_model(ranking.backbone.architecture or "", num_classes=0)
        features = FrozenFeatures(network, ranking.levels, ranking.backbone.mean, ranking.backbone.std, 224)
        explainer = DenseExplainer(features, ranking.decoder, 1000).train()
        maps = explainer(torch.empty(1, 3, 224, 224), torch.zeros(1, dtype=torch.long))
    assert maps.shape == (1, 224, 224)
    assert (features.channels, features.grids) == ((1024,) * 4, ((14, 14),) * 4)
    count = {True: 0, False: 0}
    for name, value in explainer.named_parameters():
        assert value.requires_grad == name.startswith("decoder.")
        count[value.requires_grad] += value.numel()
    assert 300e6 < count[False] < 310e6
    assert count[True] == pytest.approx(16.0e6, rel=0.005)


@pytest.mark.parametrize(("model", "patches"), [("clip_vit_b32", 49), ("clip_vit_l14", 256)])
def test_the_networks_of_the_transfer_at_their_size(model: str, patches: int) -> None:
    params = build(ClipParams, OmegaConf.to_container(composed(f"model={model}").model, resolve=True), "model")
    images = torch.empty(2, 3, 224, 224, device="meta")
    with torch.device("meta"):  # shapes without numbers
        clip = build_clip(params)
        clip.logit_scale = torch.nn.Parameter(torch.zeros((), device="cpu"))
        network = build_explainer(params, clip, torch.empty(clip.visual.output_dim, 10), copied=True)
    assert [tuple(each.shape) for each in network.explain(images)] == [(2, 10), (2, patches, 10)]
    assert network(images).shape == (2, 10)
    assert clip.encode_text(torch.zeros(3, 77, dtype=torch.long, device="meta")).shape == (3, clip.visual.output_dim)


def pictures(root: Path, seed: int, names: tuple[str, ...]) -> Path:
    """Ten small JPEGs a class."""
    generator = np.random.default_rng(seed)
    for name in names:
        (root / name).mkdir(parents=True)
        for number in range(10):
            noise = generator.integers(0, 256, (24, 32, 3), np.uint8)
            Image.fromarray(noise).resize((240, 230)).save(root / name / f"{number}.jpg")
    return root


def test_one_step_of_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "narrow", NARROW)
    fits = [f"transfer.{name}_fit.{key}" for name in ("source", "target") for key in ("steps=1", "batch_size=2")]
    images = [f"transfer.{name}_images=2" for name in ("source", "target", "validation")]
    few = ["coalitions=4", "evaluation_coalitions=4"]
    config = composed(
        "experiment=vectors_paper",
        "trainer=cpu",
        "trainer.threads=1",
        "logger=none",
        f"store={tmp_path / 'store'}",
        "model.architecture=narrow",
        "model.pretrained=null",
        "model.random_weights=true",
        "data=folder",
        f"data.root={pictures(tmp_path / 'target', 0, ('cat', 'dog'))}",
        "data@source=folder",
        f"source.root={pictures(tmp_path / 'source', 1, ('car', 'boat', 'plane'))}",
        *fits,
        *images,
        *(f"++explainers.kernel_shap_paper.{setting}" for setting in few),
        "case.images=2",
        "case.block=2",
        "transfer.bound_coalitions=4",
        "transfer.alpha=0.8",
        "transfer.lambda2_grid=[0.7]",
        *UNDRAWN,
    )
    app.run(config, tmp_path / "output")
    check(tmp_path / "store", tmp_path / "output")


def check(store: Path, output: Path) -> None:
    count = {kind: len(artifacts(store, kind)) for kind in STAGES}
    trained = {"base": 1, "head": 2, "classifier": 2, "diagnostics": 1, "explainer": 2, "vector": 1}
    assert {kind: count[kind] for kind in trained} == trained
    costs, scores = pd.read_csv(output / "costs.csv"), pd.read_csv(output / "scores.csv")
    rows = costs[(costs["case"] == "main") & ~costs["explainer"].str.contains("@")].set_index("explainer")
    assert len(rows) == 12
    assert set(scores["model"]) == {"clip_vit_b32"}
    for key in rows["maps"]:
        tensors = load_file(store / "maps" / key / "maps.safetensors")
        assert tensors["attributions"].shape == (2, 7, 7)
        assert np.isfinite(tensors["attributions"]).all()
    proposed = load_file(store / "maps" / rows.loc["proposed", "maps"] / "maps.safetensors")
    assert proposed["logits"].shape == (2, 2)
    vector, model = (load_file(output / f"{name}.safetensors") for name in ("explainability_vector", "model"))
    assert vector.keys() == model.keys() - {"head", "logit_scale"}
    assert model["visual.positional_embedding"].shape == (50, 64)
    assert any(np.abs(part).max() > 0 for part in vector.values())
