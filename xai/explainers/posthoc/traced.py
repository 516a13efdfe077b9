"""What explainers by attention and its gradients share: one pass that keeps the attention of every layer."""

from typing import TypeVar

import torch
from torch import Tensor

from xai.explainers.block import OfClassifier
from xai.explainers.posthoc.gradients import Frozen, Within, in_parts
from xai.models.attention import trace, transformer
from xai.models.maskable import MaskableClassifier
from xai.models.packed import TransformerClassifier

P = TypeVar("P")


class OfTransformer(OfClassifier[P]):
    """An explainer of a transformer alone.

    Raises:
        UserError: Where the classifier is no transformer whose attention is known; before anything is computed.
    """

    classifier: TransformerClassifier

    def __init__(self, classifier: MaskableClassifier, params: P) -> None:
        super().__init__(transformer(classifier), params)


class TracedExplainer(OfTransformer[P]):
    """Explains from a pass that is traced, gradients on, in float32 at least; the classifier stays as it is.

    A subclass makes maps of a trace (`maps`). The network has frozen copies of its parameters meanwhile, so that no
    gradient reaches them; modules are called within that pass, and never after it.
    """

    def maps(self, images: Tensor, targets: Tensor) -> Tensor:
        """Maps [b, h, w] of images [b, 3, H, W] for the classes `targets` [b], as many as memory is meant for."""
        raise NotImplementedError

    @torch.no_grad()
    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Maps [B, h, w] of images [B, 3, H, W] for the classes `targets` [B].

        Raises:
            UserError: Where a changed block makes the network another one than its parts say.
            ValueError: Where there is not one target for each of one or more images.
        """
        # Gradients of attention are small, and half precision has few numbers near zero.
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(images.device.type, enabled=False):
            frozen = Frozen(Within(self.classifier, self.maps), images.device)
            # What was made in inference mode can be part of a graph as a copy only.
            images, targets = images.detach().clone(), targets.clone()
            return in_parts(lambda images, targets, _: frozen(images, targets).detach(), images, targets)


def target_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """The sum of each image's logit [B, C] of its class [B]: its gradients are those of the images by themselves."""
    return logits.gather(1, targets[:, None]).sum()


def traced(classifier: MaskableClassifier, images: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Attention of each layer, the first one first, and the gradient of each image's logit of its class towards it.

    Args:
        classifier: A transformer, within a pass of `TracedExplainer`.
        images: [B, 3, H, W].
        targets: [B].

    Returns:
        Pairs of [B, heads, L, L].
    """
    passed = trace(classifier, images)
    gradients = torch.autograd.grad(target_logits(passed.logits, targets), passed.attention)
    return [(weights.detach(), slope) for weights, slope in zip(passed.attention, gradients, strict=True)]
