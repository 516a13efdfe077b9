"""ViT-CX (Xie et al., IJCAI 2023) as an explainer: masks cut out of a transformer's features, and what each causes."""

from dataclasses import KW_ONLY
from typing import Annotated

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from xai.core.settings import Count, NonNegative, settings
from xai.explainers.block import source
from xai.explainers.params import MapParams, OutputParams
from xai.explainers.posthoc.baselines import baseline_of, settle_baseline
from xai.explainers.posthoc.cam_targets import cam_target
from xai.explainers.posthoc.gradients import by_patch, images_at_once, in_parts
from xai.explainers.posthoc.traced import OfTransformer
from xai.explainers.registry import explainer
from xai.games import read_out
from xai.models.maskable import MaskableClassifier, exact
from xai.rounding import at_least_float32, is_constant


@settings
class VitCxParams(MapParams, OutputParams):
    """How masks are made, and how an image looks under one.

    Args:
        masks: At most so many an image; where the threshold leaves more clusters, those nearest are joined.
        threshold: Cosine distance below which maps of features are joined (complete linkage).
        noise: Standard deviation of the noise where a mask hides, in units of the network's normalised input.
        reference: What a mask hides the image behind: `mean` (the paper's), `black`, `blur` or a grey level.
    """

    _: KW_ONLY
    masks: Count = 128
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.1
    noise: NonNegative = 0.1
    reference: str | float = "mean"

    def __post_init__(self) -> None:
        """Refuse what no image can be hidden behind."""
        settle_baseline(self, "reference")


@explainer(
    "vit_cx",
    label="ViT-CX",
    about="masks clustered from the features of the last block, weighted by what showing only them causes",
    params=VitCxParams,
    needs={"features"},
    passes=lambda params, patches: 1 + 2 * params.masks,
)
class VitCx(OfTransformer[VitCxParams]):
    """Explains with soft masks of pixels, as many as an image's features have clusters.

    The features are those at the first norm of the last block, as in the published code: the paper says "of a
    self-attention layer". A channel that is the same at every patch makes no mask. All images of a call share the
    noise of their k-th masks. `passes` is what it costs at most: 1 + 2 N for N masks.
    """

    def __init__(self, classifier: MaskableClassifier, params: VitCxParams) -> None:
        super().__init__(classifier, params)
        self._target, self._behind = cam_target(classifier), baseline_of(classifier, params.reference)

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w], or of pixels, [B, H, W], of images [B, 3, H, W] for the classes `targets` [B]."""
        noise = _Noise(images[:1], source(generator))
        pixels = in_parts(lambda images, targets, _: self._pixels(images, targets, noise), images, targets)
        return pixels if self.params.of_pixels else by_patch(pixels, self.classifier.grid).mean((3, 4))

    def _pixels(self, images: Tensor, targets: Tensor, noise: "_Noise") -> Tensor:
        logits, features = self._features(images)
        whole = self._answers(logits, targets)
        found = [masks_of(each, images.shape[-2:], self.params.threshold, self.params.masks) for each in features]
        masks, counts = torch.cat(found), torch.tensor([len(each) for each in found])
        if not len(masks):
            return torch.zeros_like(images[:, 0])
        owner = torch.arange(len(images)).repeat_interleave(counts).to(images.device)
        number = torch.cat([torch.arange(int(count)) for count in counts])
        parts = zip(*(of.split(images_at_once(images)) for of in (number, masks, owner)), strict=True)
        effects = torch.cat([self._effects(images, targets, whole, noise(each), *part) for each, *part in parts])
        scores = effects.split(counts.tolist())
        return torch.stack([saliency(*each) for each in zip(scores, found, strict=True)])

    def _effects(
        self, images: Tensor, targets: Tensor, whole: Tensor, noise: Tensor, masks: Tensor, owner: Tensor
    ) -> Tensor:
        """Causal impacts [n] of masks M [n, H, W] on the images `owner` [n], free of what the noise alone does.

        f(X M + Z (1 - M)) - [f(X + Z (1 - M)) - f(X)] (the paper's section on it): the answer to what the mask shows,
        less what noise of the same place would have changed about the whole image.
        """
        own, target, opaque = images[owner], targets[owner], 1 - masks[:, None]
        shown = own + opaque * (self._behind(own) - own)
        # In pixels; the deviation of the network's normalisation makes noise of its units.
        drawn = self.classifier.normalisation.std * self.params.noise * noise * opaque
        masked = self._answers(self.classifier((shown + drawn).to(images.dtype)), target)
        noisy = self._answers(self.classifier((own + drawn).to(images.dtype)), target)
        return masked - noisy + whole[owner]

    def _features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits [B, C], and the features [B, D, h, w] that masks are made of."""
        network, layer, to_grid = self._target
        assert isinstance(layer, torch.nn.Module)
        kept: list[Tensor] = []
        with layer.register_forward_hook(lambda module, inputs, output: kept.append(to_grid(output))):
            logits = network(images)
        return logits, at_least_float32(kept[0])

    def _answers(self, logits: Tensor, targets: Tensor) -> Tensor:
        values = read_out(at_least_float32(logits), self.params.output)
        return values.gather(1, targets[:, None])[:, 0]


def saliency(scores: Tensor, masks: Tensor) -> Tensor:
    """The mean over masks [N, H, W] weighted by their scores [N], each pixel over how much all masks cover it: [H, W].

    Where no mask shows a pixel at all, it has 0.
    """
    covered = masks.sum(0)
    weighted = (scores.to(masks)[:, None, None] * masks).sum(0)
    return torch.where(covered > 0, weighted / covered.clamp(min=torch.finfo(masks.dtype).tiny), 0) / max(1, len(masks))


def masks_of(features: Tensor, size: torch.Size, threshold: float, most: int) -> Tensor:
    """Masks of an image.

    Each channel is scaled up to the pixels and stretched to [0, 1]; channels that are alike are added up, and their sum
    is stretched again.

    Args:
        features: [D, h, w].
        size: Of the image, (H, W).
        threshold: Cosine distance within which all channels of a cluster lie.
        most: How many masks there are at most.

    Returns:
        [N, H, W] in [0, 1], N >= 0.
    """
    maps = F.interpolate(at_least_float32(features)[None], size, mode="bilinear", align_corners=False)[0].flatten(1)
    maps = _stretched(maps[~is_constant(maps)])
    if not len(maps):
        return maps.unflatten(1, size)
    unit = F.normalize(maps.double(), dim=1)
    member = F.one_hot(clusters(1 - unit @ unit.T, threshold, most).to(maps.device)).to(maps)
    with exact(maps):  # sums of half precision would tell few pixels apart
        return _stretched(member.T @ maps).unflatten(1, size)


def clusters(distance: Tensor, threshold: float, most: int) -> Tensor:
    """Number of the cluster of each of n points [n], by complete linkage of their distances [n, n]."""
    if len(distance) == 1:
        return torch.zeros(1, dtype=torch.long)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    tree = linkage(squareform(distance.clamp(min=0).cpu().numpy(), checks=False), "complete")
    labels = fcluster(tree, threshold, "distance")
    if labels.max() > most:
        labels = fcluster(tree, most, "maxclust")
    return torch.from_numpy(labels).long() - 1


def _stretched(maps: Tensor) -> Tensor:
    low, high = maps.aminmax(dim=1, keepdim=True) if len(maps) else (maps, maps)
    return (maps - low) / (high - low)


class _Noise:
    """Standard normal noise of the k-th mask of any image, drawn once: [n, 3, H, W] for the numbers k [n]."""

    def __init__(self, images: Tensor, generator: torch.Generator) -> None:
        self._like, self._generator = images, generator
        self._drawn: list[Tensor] = []

    def __call__(self, numbers: Tensor) -> Tensor:
        # One by one, so that how many there are changes none of them.
        while len(self._drawn) <= int(numbers.max()):
            self._drawn.append(torch.randn(self._like.shape[1:], generator=self._generator))
        return torch.stack([self._drawn[number] for number in numbers.tolist()]).to(self._like)
