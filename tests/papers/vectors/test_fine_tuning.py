import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from tests.classifiers.tiny import DATA, FIT, MODEL, base, explained, runtime
from tests.toolbox import refusal
from xai.data.registry import subset
from xai.models import files
from xai.models.clip import class_embeddings, trainable
from xai.models.factory import build_tokenizer
from xai.models.maskable import Removal
from xai.models.spec import describe
from xai.models.weights import write_weights
from xai.papers.vectors import base as base_stage
from xai.papers.vectors.fine_tuning import Domain, parameters

IMAGES = DATA.source.images("train", torch.arange(12), 0).pixels


def test_a_subset_is_random_sorted_and_the_same_every_time() -> None:
    assert subset(DATA.source, "train", None, 3).tolist() == list(range(12))
    drawn = subset(DATA.source, "train", 5, 3)
    assert len(set(drawn.tolist())) == 5
    assert drawn.tolist() == sorted(drawn.tolist())
    assert torch.equal(drawn, subset(DATA.source, "train", 5, 3))
    assert len({tuple(subset(DATA.source, "train", 5, seed).tolist()) for seed in range(8)}) > 4
    assert subset(DATA.source, "train", 12, 3).tolist() == list(range(12))


@pytest.mark.parametrize("images", [0, -1, 13])
def test_more_images_than_there_are_or_none_are_refused(images: int) -> None:
    assert f"{images} images were asked for, the train split has 12" in refusal(subset, DATA.source, "train", images, 0)


def test_the_head_is_made_of_the_data_sets_words(tmp_path: Path) -> None:
    own_runtime = runtime(tmp_path)
    theta = base(own_runtime)
    artifact, head = base_stage.head(own_runtime, MODEL, theta, DATA)
    expected = class_embeddings(theta.clip, build_tokenizer(MODEL), DATA.source.classes, DATA.source.templates)
    torch.testing.assert_close(head, expected)
    assert base_stage.head(own_runtime, MODEL, theta, DATA)[0].key == artifact.key
    # Of two data sets with the same classes the first one asked makes it.
    content = artifact.file("head.safetensors").read_bytes()
    shutil.rmtree(artifact.path)
    other = base_stage.head(own_runtime, MODEL, theta, replace(DATA, name="another"))[0]
    assert other.file("head.safetensors").read_bytes() == content


def test_fine_tuning_starts_from_the_base_and_leaves_it_as_it_was(tmp_path: Path) -> None:
    own_runtime = runtime(tmp_path)
    theta = base(own_runtime)
    domain = Domain(own_runtime, MODEL, theta, DATA)
    before = {name: value.clone() for name, value in theta.clip.state_dict().items()}
    hardly = domain.fine_tune(replace(FIT, learning_rate=1e-12), 0)
    properly = domain.fine_tune(replace(FIT, epochs=20), 0)
    assert all(torch.equal(value, before[name]) for name, value in theta.clip.state_dict().items())
    for name, value in parameters(hardly).items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=1e-9)
    assert parameters(hardly).keys() == {name for name in before if name.startswith("visual.")}
    labels = DATA.source.labels("train")
    losses = []
    for made in (hardly, properly):
        loaded = files.load(made.file("classifier.safetensors"))
        model, spec = loaded.network, loaded.spec
        losses.append(float(F.cross_entropy(model(IMAGES), labels)))
        assert spec == describe(MODEL, "classifier", "shades", DATA.source.classes, seed=0, base=theta.fingerprint)
    assert losses[1] < 0.9 * losses[0]


def test_what_is_asked_for_again_is_read_and_what_differs_is_made(tmp_path: Path) -> None:
    own_runtime = runtime(tmp_path)
    domain = Domain(own_runtime, MODEL, base(own_runtime), DATA)
    first = domain.fine_tune(FIT, 0)
    assert domain.fine_tune(FIT, 0).key == first.key
    others = [
        domain.fine_tune(FIT, 1),
        domain.fine_tune(FIT, 0, images=6),
        domain.fine_tune(FIT, 0, fixed=True),
        domain.fine_tune(replace(FIT, warmup=0.5), 0),
    ]
    assert len({first.key, *(other.key for other in others)}) == 5
    states = [parameters(artifact)["visual.proj"] for artifact in (first, *others)]
    assert all(not torch.equal(a, b) for i, a in enumerate(states) for b in states[:i])


def test_explained_classifiers_learn_from_the_supervision_of_their_very_images(tmp_path: Path) -> None:
    own_runtime = runtime(tmp_path)
    domain = Domain(own_runtime, MODEL, base(own_runtime), DATA)
    rows = subset(DATA.source, "train", 6, 0)
    taught = explained(own_runtime, "train", rows)
    long = replace(FIT, epochs=60, batch_size=6)
    star = domain.fine_tune(long, 0, images=6, alpha=0.1, supervision=taught)
    model = files.load_classifier(star.file("classifier.safetensors"))
    assert files.load(star.file("classifier.safetensors")).spec.explains
    labels = DATA.source.labels("train")[rows]
    found = model.explain(IMAGES[rows]).attributions[torch.arange(6), :, labels]
    wanted = torch.randn(6, 4, 4, generator=torch.Generator().manual_seed(0)).flatten(1)
    correlations = [float(torch.corrcoef(torch.stack([a, b]))[0, 1]) for a, b in zip(found, wanted, strict=True)]
    assert min(correlations) > 0.5
    assert "needs explanation supervision" in refusal(domain.fine_tune, FIT, 0, alpha=0.5)
    assert "alpha=1.5" in refusal(domain.fine_tune, FIT, 0, alpha=1.5)


@pytest.mark.parametrize(
    ("images", "spoil", "message"),
    [
        (5, {}, "explains other images than the ones to be trained on"),
        (6, {"targets": torch.zeros(6, dtype=torch.long)}, "explains other classes than the labels to be trained on"),
        (6, {"attributions": torch.zeros(6, 4, 5)}, "holds attributions of 6 x 4 x 5, and 6 x 4 x 4 are needed"),
        (6, {"attributions": torch.zeros(5, 4, 4)}, "holds attributions of 5 x 4 x 4, and 6 x 4 x 4 are needed"),
    ],
)
def test_supervision_of_other_images_classes_or_patches_is_refused(
    tmp_path: Path, images: int, spoil: dict[str, Tensor], message: str
) -> None:
    own_runtime = runtime(tmp_path)
    tensors = load_file(explained(own_runtime, "train", subset(DATA.source, "train", 6, 0)).file("maps.safetensors"))

    def make(work: Path) -> None:
        write_weights(work / "maps.safetensors", tensors | spoil, {})

    taught = own_runtime.store.get("maps", {"spoilt": True}, make)
    domain = Domain(own_runtime, MODEL, base(own_runtime), DATA)
    told = refusal(domain.fine_tune, FIT, 0, images=images, alpha=0.5, supervision=taught)
    assert message in told
    assert str(taught.path) in told


def test_assembling_puts_parameters_and_words_together(tmp_path: Path) -> None:
    own_runtime = runtime(tmp_path)
    theta = base(own_runtime)
    domain = Domain(own_runtime, MODEL, theta, DATA)
    zero = domain.assemble(None, Removal("tokens"))
    tower = theta.clip.encode_image(zero.normalisation(IMAGES), normalize=True)
    expected = theta.clip.logit_scale.exp() * tower @ base_stage.head(own_runtime, MODEL, theta, DATA)[1]
    torch.testing.assert_close(zero(IMAGES), expected)
    assert zero.removal == Removal("tokens")
    assert not zero.training
    moved = {name: value + 0.1 for name, value in trainable(zero).items()}
    other = domain.assemble(moved)
    assert all(torch.equal(value, moved[name]) for name, value in trainable(other).items())
    torch.testing.assert_close(zero(IMAGES), expected)  # the base was copied, not moved
