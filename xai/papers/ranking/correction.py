"""How much a map corrects the paths that it starts from: chosen on validation images. Ours, not the paper's.

Training judges a map in cells, at few points of a soft order, and what it adds disturbs the order within the cells: of
the one classifier that is asked, the paths alone mostly have more of insertion less deletion D. What is added is what
holds before another classifier. So of the maps m_s between the paths alone, m_0, and what was trained, m_1,

    m_s = m_0 + s (m_1 - m_0),    s* = max {s : D(m_s) >= max over s' of D(m_s') - within},

the one is kept that adds the most at no loss. No second classifier and no region of an object is asked.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from xai.metrics.functional import area, perturbation_curves
from xai.models.dense import DenseExplainer
from xai.models.maskable import MaskableClassifier, References, Removal, reference_image

_CHUNK = 256


def largest_as_good(shares: Sequence[float], differences: Tensor, within: float) -> float:
    """The largest share whose difference [K] is no more than `within` below the best of all."""
    good = differences >= differences.max() - within
    return max(share for share, is_good in zip(shares, good.tolist(), strict=True) if is_good)


@torch.no_grad()
def differences_of_shares(
    explainer: DenseExplainer,
    classifier: MaskableClassifier,
    images: Tensor,
    shares: Sequence[float],
    references: References,
    mean: Tensor,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    """Insertion less deletion of the predicted class with each share of the correction kept.

    Args:
        explainer: In evaluation mode, its decoder with `skip`; it stays as it is.
        classifier: What is explained.
        images: [B, 3, H, W] in [0, 1].
        shares: K.
        references: What shows where a pixel is not.
        mean: [3], of the reference of that name.
        steps: Points of a curve.
        generator: Orders pixels of equal importance.

    Returns:
        Means over references, float64 [K, B].
    """
    targets = classifier(images).argmax(1)
    seen = explainer.seen(images, targets)
    assert seen[-1] is not None
    start, whole = explainer.decoder.uncorrected(seen[-1]), explainer.decoder(*seen)
    shown = [reference_image(images, Removal("pixels", name), mean) for name in references]

    def difference(maps: Tensor, reference: Tensor) -> Tensor:
        curves = perturbation_curves(classifier, images, maps, targets[:, None], reference, generator, steps, _CHUNK)
        return area(curves.insertion[..., 0]) - area(curves.deletion[..., 0])

    of_shares = [torch.lerp(start, whole, share) for share in shares]
    return torch.stack([torch.stack([difference(maps, each) for each in shown]).mean(0) for maps in of_shares])
