"""A classifier of the store, or of a file, as what a case explains."""

from typing import Any

from xai.classifiers.networks import ClassifierStages
from xai.study.case import ExplainedModel


def explained(networks: ClassifierStages, kind: str = "classifier") -> ExplainedModel:
    """The classifier of some networks as what is explained; it is trained when it is asked for.

    Args:
        networks: Where it comes from.
        kind: `classifier`, or `surrogate`: the one that was fine-tuned on masked images.
    """
    model: Any = networks.model
    return ExplainedModel(
        name=model.name,
        identify=lambda: getattr(networks, kind).key,
        image_size=model.image_size,
        mean=tuple(model.mean),
        classes=tuple(networks.data.source.classes),
        make=lambda removal: networks.network(kind, removal),
        networks=networks,
        blank=networks.blank,
    )
