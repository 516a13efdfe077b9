"""All metrics of a set of maps in one call: the numbers of a `result.json`."""

from torch import Tensor

from xai.metrics import registry
from xai.metrics.streaming import measured

_COLUMNS = ("accuracy", "e_rmse", "kendall", "iou@1", "iou@5", "iou@10", "centred_correlation", "rma", "pointing_game")


def evaluate_maps(
    attributions: Tensor,
    reference: Tensor | None = None,
    regions: Tensor | None = None,
    logits: Tensor | None = None,
    labels: Tensor | None = None,
) -> dict[str, float]:
    """Every metric the given tensors allow, each the average over the images for which it is defined.

    Args:
        attributions: [N, h, w].
        reference: [N, h, w]; gives e_rmse, kendall, iou@k for k up to h * w, and centred_correlation.
        regions: Bool [N, H, W]; gives rma and pointing_game.
        logits: [N, C]; with labels gives accuracy.
        labels: Integers [N].

    Returns:
        Values by name, in the order accuracy, e_rmse, kendall, iou@1, iou@5, iou@10, centred_correlation, rma,
        pointing_game; NaN where a metric is undefined for every image.

    Raises:
        UserError: Shapes do not match, or values are not finite.
    """
    block = measured(maps=attributions, reference=reference, regions=regions, logits=logits, labels=labels)
    given = {"maps": attributions, "reference": reference, "regions": regions, "logits": logits, "labels": labels}
    available = [name for name, tensor in given.items() if tensor is not None]
    found: dict[str, Tensor] = {}
    for name in ("classification", "agreement_with_reference", "centred_correlation", "localisation"):
        entry = registry.entry(name)
        if registry.missing(entry, available) is None:
            found |= registry.compute(entry, block)
    shown = [name for name in _COLUMNS if name in found and _patches(name) <= attributions[0].numel()]
    return {name: registry.columns()[name].average(found[name]).item() for name in shown}


def _patches(name: str) -> int:
    """How many patches a column needs."""
    return int(name.removeprefix("iou@")) if name.startswith("iou@") else 1
