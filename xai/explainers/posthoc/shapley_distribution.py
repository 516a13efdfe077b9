"""The Shapley distribution of one image, fitted to it alone: what SALVAGE's network learns to give for all images."""

from typing import Literal

import torch
from torch import Tensor

from xai.core.settings import Count, FieldError, Positive, settings
from xai.explainers.block import OfClassifier, source
from xai.explainers.params import GameParams
from xai.explainers.registry import explainer
from xai.games import PatchGame
from xai.methods.salvage import distribution_loss
from xai.models.explainer import column
from xai.sampling import random_masks
from xai.shapley.masks import uniform_sizes


@settings
class ShapleyDistributionParams(GameParams):
    """How phi+ and phi- are fitted; `output` has to be `probability`.

    Args:
        coalitions: Masked images, drawn once for all images of a call, sizes uniform.
        steps: Of Adam, over all coalitions at once.
        learning_rate: Its peak; a half cosine takes it down to zero.
        divergence: `jensen_shannon` (equation 5) or `kullback_leibler`.
    """

    coalitions: Count
    steps: Count
    learning_rate: Positive
    divergence: Literal["jensen_shannon", "kullback_leibler"]

    def __post_init__(self) -> None:
        """Refuse what is no distribution."""
        if self.output != "probability":
            raise FieldError("output", "has no distribution over classes: use probability")


@explainer(
    "shapley_distribution",
    label="Fitted per image",
    about="SALVAGE's distribution, fitted to each image instead of learned",
    params=ShapleyDistributionParams,
    needs={"game"},
    passes=lambda params, patches: params.coalitions,
)
class ShapleyDistribution(OfClassifier[ShapleyDistributionParams]):
    """phi+ and phi- of equations 4 and 5 (Naouar et al. 2025) as free numbers: no network stands between them and v.

    What remains wrong with such maps is due to the objective, and what a trained SALVAGE lacks beside them to its
    network and its training.
    """

    def attribute(self, images: Tensor, targets: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """phi+ - phi- [B, h, w] of images [B, 3, H, W] for the classes `targets` [B]."""
        params, players = self.params, self.classifier.players
        generator = source(generator)
        sizes = uniform_sizes(players, params.coalitions, generator)
        design = random_masks(1, players, sizes, generator)[0]
        with torch.inference_mode(False), torch.enable_grad():
            logits = PatchGame(self.classifier, images, output="logit").value(design)
            log_v = logits.clone().log_softmax(-1)
            coalitions = design.to(images.device).expand(len(images), -1, -1)
            parts = torch.zeros(2, len(images), players, log_v.shape[-1], device=images.device, requires_grad=True)
            optimiser = torch.optim.Adam([parts], lr=params.learning_rate)
            schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, params.steps)
            for _ in range(params.steps):
                optimiser.zero_grad()
                # A sum over images, so that none of them is fitted otherwise for the company it is in.
                loss = distribution_loss(parts[0], parts[1], coalitions, log_v, 1.0, params.divergence) * len(images)
                loss.backward()
                optimiser.step()
                schedule.step()
        present, absent = parts.detach()
        return column(present - absent, targets).reshape(-1, *self.classifier.grid)
