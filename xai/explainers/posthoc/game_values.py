"""Values of the theory of games as explainers: Kernel SHAP, Shapley values exactly and by random orders, Banzhaf."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, Self, TypeVar

import torch
from torch import Tensor

from xai.core.errors import UserError
from xai.core.settings import Count, EvenCount, FieldError, Several, settings
from xai.explainers.block import OfClassifier, source
from xai.explainers.params import GameParams
from xai.explainers.registry import explainer
from xai.games import OneClass, PatchGame
from xai.models.maskable import MaskableClassifier
from xai.shapley import banzhaf as banzhaf_values
from xai.shapley.design import Game
from xai.shapley.exact import LARGEST, exact_shapley
from xai.shapley.kernel_shap import kernel_shap
from xai.shapley.permutation import antithetic_orders, permutation_shapley

P = TypeVar("P", bound=GameParams)


class OfGame(OfClassifier[P]):
    """Explains all images of a call by one game, with what is drawn for all of them alike."""

    def values(self, game: Game, generator: torch.Generator) -> Tensor:
        """Values of the patches [B, M]: what is asked is v(S) of the output that the settings name."""
        raise NotImplementedError

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """The values as maps [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        game = PatchGame(self.classifier, images, targets, output=self.params.output)
        return self.values(game, source(generator)).reshape(-1, *self.classifier.grid)

    def attribute_classes(
        self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None
    ) -> Iterator[Tensor]:
        """Maps [B, h, w] of each of the K classes in `targets` [B, K], for the passes of one."""
        game = PatchGame(self.classifier, images, targets, output=self.params.output)
        generator, answers = source(generator), dict[bytes, Tensor]()
        state = generator.get_state()
        for column in range(targets.shape[1]):
            generator.set_state(state)
            values = self.values(OneClass(game, column, answers), generator)
            yield values.reshape(-1, *self.classifier.grid)


@settings
class KernelShapParams(GameParams):
    """How Shapley values are estimated.

    Args:
        coalitions: P, the perturbed images evaluated for each image.
        evaluation_coalitions: P for validation and test images, which every row is measured against; null takes
            `coalitions`.
        sampler: How coalitions are drawn: `shapley_kernel`, `paired`, `leverage` or `without_replacement`
            (`xai.shapley.coalitions`).
        select: Which patches get a value at all, as shap's `l1_reg`: `all`, those that the lasso and Akaike's criterion
            pick (`aic`), or how many least angle regression picks.
    """

    coalitions: Several
    evaluation_coalitions: Several | None
    sampler: Literal["shapley_kernel", "paired", "leverage", "without_replacement"] = "leverage"
    select: Literal["all", "aic"] | Count = "all"

    def __post_init__(self) -> None:
        """Refuse half a pair."""
        for name in ("coalitions", "evaluation_coalitions"):
            if (getattr(self, name) or 0) % 2 and self.sampler != "shapley_kernel":
                raise FieldError(name, f"must be even: the coalitions of sampler={self.sampler} come in pairs")

    def for_split(self, split: str) -> Self:
        """P is `evaluation_coalitions` where results are measured."""
        number = self.coalitions if split == "train" else self.evaluation_coalitions or self.coalitions
        return replace(self, coalitions=number, evaluation_coalitions=None)


@explainer(
    "kernel_shap",
    label="Kernel SHAP",
    about="Shapley values by constrained least squares over sampled coalitions",
    params=KernelShapParams,
    needs={"game"},
    passes=lambda params, patches: min(params.coalitions + 2, 2**patches),
)
class KernelShap(OfGame[KernelShapParams]):
    """Kernel SHAP (Lundberg and Lee 2017), with one design of coalitions for all images of a call.

    Raises:
        UserError: Where Akaike's criterion would have fewer equations, two a coalition, than it needs for all patches.
    """

    def __init__(self, classifier: MaskableClassifier, params: KernelShapParams) -> None:
        asked = max(params.coalitions, params.evaluation_coalitions or 0)
        if params.select == "aic" and 2 * asked < classifier.players + 2:
            raise UserError(
                f"kernel_shap: select=aic needs at least {(classifier.players + 3) // 2} coalitions for "
                f"{classifier.players} patches, and {asked} are asked: use more, or select=all"
            )
        super().__init__(classifier, params)

    def values(self, game: Game, generator: torch.Generator) -> Tensor:
        """Shapley values; see `xai.shapley.kernel_shap`."""
        params = self.params
        return kernel_shap(game, params.coalitions, generator, sampler=params.sampler, select=params.select)


@explainer(
    "exact_shapley",
    label="Exact Shapley",
    about="Shapley values from all 2^M coalitions, for M <= 16 patches",
    params=GameParams,
    needs={"game"},
    passes=lambda params, patches: 2**patches,
)
class ExactShapley(OfGame[GameParams]):
    """Explains with all coalitions there are: no sampling, no error.

    Raises:
        UserError: Where the grid has more than 16 patches.
    """

    def __init__(self, classifier: MaskableClassifier, params: GameParams) -> None:
        down, across = classifier.grid
        if down * across > LARGEST:
            raise UserError(
                f"exact_shapley asks for all 2^M coalitions of M <= {LARGEST} patches, and the model's "
                f"grid is {down} x {across}: use kernel_shap, or a model with larger patches"
            )
        super().__init__(classifier, params)

    def values(self, game: Game, generator: torch.Generator) -> Tensor:
        """The Shapley values themselves; nothing is drawn."""
        return exact_shapley(game)


@settings
class PermutationShapleyParams(GameParams):
    """How many orders are drawn.

    Args:
        permutations: P, even: half of them are the other half backwards.
    """

    permutations: EvenCount


@explainer(
    "permutation_shapley",
    label="Perm. Shapley",
    about="Shapley values as mean gains over random orders of the patches",
    params=PermutationShapleyParams,
    needs={"game"},
    passes=lambda params, patches: params.permutations * (patches - 1) + 2,
)
class PermutationShapley(OfGame[PermutationShapleyParams]):
    """Shapley values by random orders (Castro et al. 2009), the same for all images of a call."""

    def values(self, game: Game, generator: torch.Generator) -> Tensor:
        """Mean gains; see `xai.shapley.permutation`."""
        return permutation_shapley(game, antithetic_orders(game.players, self.params.permutations // 2, generator))


@settings
class BanzhafParams(GameParams):
    """How Banzhaf values are estimated.

    Args:
        coalitions: The perturbed images evaluated for each image; even, for they come with their complements.
        solver: `least_squares` (the nearest additive game) or `reuse` (mean answers with a patch less those without).
    """

    coalitions: EvenCount
    solver: banzhaf_values.Solver = "least_squares"


@explainer(
    "banzhaf",
    label="Banzhaf",
    about="what a patch adds to a coalition that every other patch joins by the toss of a coin",
    params=BanzhafParams,
    needs={"game"},
    passes=lambda params, patches: min(params.coalitions, 2**patches),
)
class Banzhaf(OfGame[BanzhafParams]):
    """Banzhaf values, with one design of coalitions for all images of a call."""

    def values(self, game: Game, generator: torch.Generator) -> Tensor:
        """Banzhaf values; see `xai.shapley.banzhaf`."""
        return banzhaf_values.banzhaf(game, self.params.coalitions, generator, self.params.solver)
