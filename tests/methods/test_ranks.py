"""Methods in the processes of one training: they arrive whole, draw the same sizes of masks, and their own patches."""

from collections.abc import Callable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from tests.methods.tiny_salvage import FIT, PLAYERS, batch, check_mixed_precision, classifier, explainer
from tests.models.tiny_clip import PARAMS
from tests.toolbox import there
from xai.core.processes import Parcel
from xai.data.captions import GlyphStream
from xai.data.module import Batch
from xai.data.scatter import ScatterParams
from xai.methods import vit_shapley
from xai.methods.classifier import Classifier
from xai.methods.contrastive import ContrastivePretraining
from xai.methods.salvage import Salvage
from xai.methods.self_explainer import SelfExplainer
from xai.methods.surrogate import Surrogate
from xai.methods.vit_shapley import VitShapley
from xai.models.explainer import SalvageNetwork, ShapleyNetwork
from xai.models.factory import build_clip, build_explainer, build_tokenizer
from xai.models.timm_vit import MaskableVit
from xai.shapley.masks import Sampling

pytestmark = pytest.mark.filterwarnings("ignore:You are trying to .self.log")

IMAGES = 64


def self_explainer() -> tuple[LightningModule, Any]:
    generator = torch.Generator().manual_seed(0)
    model = build_explainer(PARAMS, build_clip(PARAMS, 1), torch.randn(12, 5, generator=generator))
    pixels, maps = torch.rand(5, 3, 16, 16, generator=generator), torch.randn(5, 16, generator=generator)
    return SelfExplainer(model, FIT, 0.5, "test"), Batch(pixels, torch.arange(5), None, maps)


def pretraining() -> tuple[LightningModule, Any]:
    scene = ScatterParams(canvas=16, cells=2, object_size=7)
    stream = GlyphStream(build_tokenizer(PARAMS), scene, PARAMS.patch_size, 4, 10, 0)
    module = ContrastivePretraining(build_clip(PARAMS, 1), FIT, 100, list(PARAMS.mean), list(PARAMS.std))
    return module, stream[3]


def learning() -> MaskableVit:
    return classifier().requires_grad_(True)


LEARNERS: dict[str, Callable[[], tuple[LightningModule, Any]]] = {
    "classifier": lambda: (Classifier(learning(), FIT, 0.2, 3, "test"), batch()),
    "surrogate": lambda: (Surrogate(learning(), classifier(seed=1), FIT, "classifier", 4, 3, "test"), batch()),
    "salvage": lambda: (
        Salvage(explainer(SalvageNetwork), classifier(), FIT, 4, "informed", "jensen_shannon", 3, "test"),
        batch(),
    ),
    "vit_shapley": lambda: (VitShapley(explainer(ShapleyNetwork, parts=1), classifier(), FIT, 4, 3, "test"), batch()),
    "self_explainer": self_explainer,
    "pretraining": pretraining,
}


@pytest.mark.parametrize("name", LEARNERS)
def test_a_method_computes_in_another_process_what_it_does_here(name: str, tmp_path: Path) -> None:
    here, given = LEARNERS[name]()
    arrived = ForkingPickler.loads(ForkingPickler.dumps(Parcel(here, tmp_path / "tensors"))).open()
    losses = []
    for learner in (here, arrived):
        learner._trainer = at(0)
        losses.append(learner.training_step(given, 0))
    assert torch.equal(*losses)


@pytest.mark.parametrize("name", ["classifier", "surrogate", "vit_shapley"])
def test_steps_in_mixed_precision_are_finite(name: str) -> None:
    check_mixed_precision(LEARNERS[name]()[0])


def salvage_masks(sampling: str) -> Callable[[Any], Tensor]:
    network = explainer(SalvageNetwork)
    learner = Salvage(network, classifier(), FIT, 8, sampling, "jensen_shannon", 3, "test")

    def masks(place: Any) -> Tensor:
        learner._trainer = place
        given = batch(IMAGES)
        return learner._coalitions(network.parts(given.pixels), given.labels, 7)

    return masks


def surrogate_masks(place: Any) -> Tensor:
    learner = Surrogate(classifier(), classifier(), FIT, "classifier", 8, 3, "test")
    learner._trainer = place
    return learner._masks(IMAGES, 7)[:, None]


def vit_shapley_masks(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Tensor]:
    seen: list[Tensor] = []
    answer = vit_shapley.predictions_with_ends

    def watched(surrogate: Any, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        seen.append(masks)
        return answer(surrogate, images, masks)

    monkeypatch.setattr(vit_shapley, "predictions_with_ends", watched)
    learner = VitShapley(explainer(ShapleyNetwork, parts=1), classifier(), FIT, 8, 3, "test")

    def masks(place: Any) -> Tensor:
        learner._trainer = place
        learner.training_step(batch(IMAGES), 0)
        return seen[-1]

    return masks


def at(rank: int) -> Any:
    return SimpleNamespace(global_step=7, global_rank=rank, estimated_stepping_batches=100, barebones=True)


@pytest.mark.parametrize("method", ["surrogate", "vit_shapley", *get_args(Sampling)])
def test_ranks_agree_on_the_sizes_of_masks_and_not_on_their_patches(
    method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {"surrogate": surrogate_masks, "vit_shapley": vit_shapley_masks(monkeypatch)}
    masks = known[method] if method in known else salvage_masks(method)
    first, again, second = (masks(at(rank)) for rank in (0, 0, 1))
    assert torch.equal(first, again)
    assert torch.equal(first.sum(-1), second.sum(-1))
    undecided = (first.sum(-1) % PLAYERS) > 0
    assert (first[undecided] != second[undecided]).any(-1).float().mean() > 0.3


def test_ranks_show_backgrounds_of_their_own() -> None:
    learner = Classifier(classifier(), FIT, 0.2, 3, "test")
    given = batch(IMAGES)

    def shown(rank: int) -> Tensor:
        learner._trainer = at(rank)
        return there(learner._shown(given, 7))

    assert torch.equal(shown(1).sum(1), shown(0).sum(1))
    assert torch.equal(shown(1), shown(1))
    assert not torch.equal(shown(1), shown(0))
