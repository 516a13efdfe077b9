"""The rows of Table 1: models that explain themselves, with parameters of a transfer, and its own position prior."""

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import FieldError, settings
from xai.explainers.block import Block, BlockExplainer
from xai.explainers.controls.other_classes import WrongClass
from xai.explainers.controls.position_prior import SameMap
from xai.explainers.learned.networks import SelfExplaining
from xai.explainers.registry import Context, ExplainerParams, Prepared, explainer
from xai.models.clip import SelfExplainingClip
from xai.papers.vectors.fine_tuning import parameters
from xai.papers.vectors.transfer import Factor, Transfer
from xai.study.case import Case

FINE_TUNED = ("ft_source", "ft_source_x", "ft_target", "ft_target_x")


@settings
class MovedSettings(ExplainerParams):
    """Parameters that a vector is added to.

    Args:
        lambda2: Factor of the vector; null: as the study chose it.
    """

    lambda2: Factor | None = None


@settings
class SelfExplanationSettings(MovedSettings):
    """A model of a transfer that explains itself in one pass.

    Args:
        lambda2: Of `proposed`.
        parameters: Which: `zero_shot` is theta_base; `ft_source` and `ft_target` were fine-tuned on the source or
            target, those with `_x` with explanations as well; `proposed` is the target's plus the explainability
            vector.
    """

    parameters: Literal["zero_shot", "ft_source", "ft_source_x", "ft_target", "ft_target_x", "proposed"] = "proposed"

    def __post_init__(self) -> None:
        """Refuse a factor of nothing."""
        if self.lambda2 is not None and self.parameters != "proposed":
            raise FieldError("lambda2", f"has nothing to move with parameters={self.parameters}: leave it out")


class OtherClass(WrongClass):
    """Asks about a class other than the target, drawn evenly for each of all images of the case at once.

    Args:
        of: What explains.
        rows: Numbers of all images [N] of the case.
        classes: How many there are.
    """

    def __init__(self, of: SelfExplaining, rows: Tensor, classes: int) -> None:
        super().__init__(of, classes)
        shifts = torch.randint(1, classes, rows.shape, generator=torch.Generator().manual_seed(0))
        self._shifts = dict(zip(rows.tolist(), shifts.tolist(), strict=True))

    def wrong(self, block: Block) -> Tensor:
        """The classes [B] that are asked about."""
        shifts = torch.tensor([self._shifts[row] for row in block.rows.tolist()], device=block.targets.device)
        return (block.targets + shifts) % self._classes


class ClassMean(SelfExplaining):
    """Gives each image the mean of its maps over all classes, whichever class it is asked about."""

    def values(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """The mean for each class, and the logits."""
        attributions, logits = super().values(images)
        return attributions.mean(2, keepdim=True).expand_as(attributions), logits


def networks_of(context: Context) -> Transfer:
    """The transfer that a case is about; UserError: it is about none."""
    networks = context.model.networks
    if not isinstance(networks, Transfer):
        raise UserError("it is a row of a transfer of explainability vectors: use it with study=vectors")
    return networks


_classifying = partial(
    explainer,
    params=MovedSettings,
    needs={"training"},
    passes=lambda params, players: 1.0,
    check=lambda context, params: networks_of(context),
)
"""Registers a network of a transfer, which classifies and explains in one pass."""


@_classifying(
    "self_explanation",
    label="Self-explanation",
    about="one pass of a CLIP that explains itself, with the parameters of a transfer",
    params=SelfExplanationSettings,
    kind="trained",
)
def self_explanation(context: Context, params: SelfExplanationSettings) -> Prepared:
    """A model's own explanation of the class that is asked about."""
    networks = networks_of(context)
    if params.parameters == "proposed":
        return _moved(networks, params, SelfExplaining)
    fine_tuned = getattr(networks, params.parameters) if params.parameters in FINE_TUNED else None

    def build() -> SelfExplaining:
        return SelfExplaining(networks.network(None if fine_tuned is None else parameters(fine_tuned)))

    model = networks.base.artifact if fine_tuned is None else fine_tuned
    return Prepared({"self_explanation": model.key}, build, notes={"alpha": networks.alpha})


@_classifying(
    "random_vector",
    label="Random vector",
    about="the same with a random vector of the same length in place of the explainability vector",
    kind="control",
)
def random_vector(context: Context, params: MovedSettings) -> Prepared:
    """What any change of the parameters of that size does."""
    return _moved(networks_of(context), params, SelfExplaining, random=True)


@_classifying(
    "other_class",
    label="Another class",
    about="the transferred model asked about a wrong class, its map measured against that of the right one",
    kind="control",
)
def other_class(context: Case, params: MovedSettings) -> Prepared:
    """How much of the agreement is not of the class."""

    def ask(network: SelfExplainingClip) -> OtherClass:
        return OtherClass(SelfExplaining(network), context.rows, len(context.model.classes))

    return _moved(networks_of(context), params, ask, column="other")


@_classifying(
    "class_mean",
    label="Class-mean map",
    about="the mean over all classes of the transferred model's maps of the image: what they have in common",
    kind="control",
    class_specific=False,
)
def class_mean(context: Context, params: MovedSettings) -> Prepared:
    """What is left of the explanation when the class is not named."""
    return _moved(networks_of(context), params, ClassMean, column="class_mean")


@explainer(
    "source_prior",
    label="Position prior",
    about="the mean explanation of the source's training images, the same map for every image",
    kind="control",
    class_specific=False,
    needs={"training"},
    passes=lambda params, players: 0.0,
    check=lambda context, params: networks_of(context),
)
def source_prior(context: Context, params: ExplainerParams) -> Prepared:
    """What the source's supervision knows without looking at an image."""
    supervision = networks_of(context).source_supervision
    assert supervision.attributions is not None
    mean = supervision.attributions.mean(0)
    return Prepared({"name": "source_prior", "supervision": supervision.artifact.key}, lambda: SameMap(mean))


def _moved(
    networks: Transfer, params: MovedSettings, wrap: Callable[[SelfExplainingClip], BlockExplainer], **more: str | bool
) -> Prepared:
    """A model that a vector is added to, with the factor that the study has chosen or its user has.

    `wrap` makes the explainer of the network; `more` tells it from `proposed`: a `random` vector, or another column.
    """
    factor = params.lambda2
    if factor is None:
        raise UserError("lambda2 is not set: give a number, or let study=vectors choose it")
    notes = {"alpha": networks.alpha, "lambda1": networks.params.lambda1, "lambda2": factor}
    random, made_from = "random" in more, {**networks.made_from(factor), **more}
    return Prepared(
        {"self_explanation": made_from}, lambda: wrap(networks.network(networks.theta(factor, random))), notes=notes
    )
