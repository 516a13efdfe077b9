"""Explanation supervision ("+X"): the attributions of a split, by Kernel SHAP on the fine-tuned classifier."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from xai.artifacts import Artifact
from xai.data.module import load_images
from xai.errors import UserError
from xai.games import PatchGame
from xai.models.maskable import Removal
from xai.models.weights import read_weights, write_weights
from xai.progress import bar
from xai.shapley.kernel_shap import kernel_shap
from xai.stages.base import Base, ModelParams
from xai.stages.classifier import assemble, parameters, subset
from xai.stages.context import Lab, OpenData

log = logging.getLogger(__name__)

FILE = "supervision.safetensors"
_REVISION = 2


@dataclass(frozen=True)
class SupervisionParams:
    """How explanation supervision is computed.

    Args:
        name: The estimator: `kernel_shap`.
        coalitions: P, the perturbed images evaluated for each training image.
        evaluation_coalitions: P for validation and test images, which every row is measured against.
        output: What is explained: the `logit` or the `probability` of a class.
        removal: How patches are removed.
        block: Images that share one design of coalitions; also the piece of work a kill can cost.
    """

    name: str
    coalitions: int
    evaluation_coalitions: int
    output: str
    removal: Removal
    block: int

    def __post_init__(self) -> None:
        """Refuse settings that cannot be computed."""
        if self.name != "kernel_shap":
            raise UserError(f"supervision={self.name} is unknown: use kernel_shap")
        for name in ("coalitions", "evaluation_coalitions"):
            if getattr(self, name) < 2 or getattr(self, name) % 2:
                raise UserError(
                    f"supervision.{name}={getattr(self, name)} must be an even number: coalitions come in pairs"
                )
        if self.output not in ("logit", "probability"):
            raise UserError(f"supervision.output={self.output} is unknown: use logit or probability")
        if self.block < 1:
            raise UserError(f"supervision.block={self.block} must be at least 1")


def supervise(
    lab: Lab,
    model: ModelParams,
    base: Base,
    classifier: Artifact,
    data: OpenData,
    split: str,
    params: SupervisionParams,
    seed: int,
    images: int | None = None,
    coalitions: int | None = None,
) -> Artifact:
    """Explain the true class of every image of a split (section 6.1).

    Args:
        lab: Where to work.
        model: The model.
        base: Its base weights.
        classifier: The fine-tuned classifier of this data set.
        data: The data set.
        split: Which split.
        params: The estimator.
        seed: Of the coalitions, and of the subset.
        images: Size of the subset; None explains all.
        coalitions: P; None takes the one of `params` for this split.

    Returns:
        An artifact with `supervision.safetensors`: `rows` [N], `labels` [N], `attributions` [N, h, w].
    """
    number = coalitions or (params.coalitions if split == "train" else params.evaluation_coalitions)
    spec = lab.with_precision(
        {
            "classifier": classifier.key,
            "data": data.spec,
            "split": split,
            "images": images,
            "seed": seed,
            "estimator": {**asdict(params), "coalitions": number, "evaluation_coalitions": None},
            "revision": _REVISION,
        }
    )
    title = f"Kernel SHAP of {data.name} {split}"

    def make(workdir: Path) -> None:
        network = assemble(lab, model, base, data, parameters(classifier), params.removal)
        rows = subset(data.source, split, images, seed)
        labels = data.source.labels(split)[rows]
        blocks = list(torch.arange(len(rows)).split(params.block))
        maps = []
        with bar(title, len(rows), "images") as advance, lab.trainer.autocast():
            for number_of_block, block in enumerate(blocks):
                shard = workdir / "scratch" / f"{number_of_block:06d}.safetensors"
                own = _read_shard(shard)
                if own is None:
                    pixels = load_images(data.source, split, rows[block], 0, model.image_size).pixels
                    game = PatchGame(network, pixels.to(lab.trainer.device), output=params.output)
                    generator = torch.Generator().manual_seed(seed * 1_000_003 + number_of_block)
                    phi = kernel_shap(game, number, generator).cpu()
                    own = phi.gather(2, labels[block][:, None, None].expand(-1, phi.shape[1], 1))
                    own = own.reshape(-1, *network.grid)
                    write_weights(shard, {"attributions": own}, {})
                maps.append(own)
                advance(int(block[-1]) + 1)
        tensors = {"rows": rows, "labels": labels, "attributions": torch.cat(maps)}
        write_weights(workdir / FILE, tensors, {"data": data.name, "split": split})

    return lab.store.get("supervision", spec, make, title=title)


def _read_shard(path: Path) -> Tensor | None:
    """The maps of a block from an earlier run; None where there are none that can be read."""
    if not path.exists():
        return None
    try:
        return read_weights(path, what="shard").tensors["attributions"]
    except UserError:
        log.warning("%s cannot be read; it is computed anew", path)
        path.unlink()
        return None


@dataclass(frozen=True)
class Supervision:
    """Supervision that has been loaded: `rows` [N] of the split, `labels` [N], `attributions` [N, h, w]."""

    rows: Tensor
    labels: Tensor
    attributions: Tensor


def load(artifact: Artifact) -> Supervision:
    """Load supervision."""
    tensors = read_weights(artifact.file(FILE), what="supervision").tensors
    return Supervision(tensors["rows"], tensors["labels"], tensors["attributions"])
