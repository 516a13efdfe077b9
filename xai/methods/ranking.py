"""Learn to Rank (Schinagl et al. 2026): an explainer trained on deletion and insertion themselves."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from xai.core.optimisation import FitParams
from xai.core.settings import Positive, Share, settings
from xai.data.module import Batch
from xai.methods.learner import adamw
from xai.models.dense import DenseExplainer
from xai.models.evidence import evidence
from xai.models.maskable import MaskableClassifier
from xai.ranking.areas import confidence
from xai.ranking.objective import ObjectiveParams, Question, draw, judge, training_targets
from xai.sampling import common_and_own, torch_seeded

_RISE_FROM, _FALL_TO = 1 / 25, 1 / 25 / 1e4
"""Where the learning rate starts and ends, as shares of its peak."""


@settings
class RankingLoss:
    """What a training step asks.

    Args:
        own_class: Share of the images whose map is judged by the class it was drawn for alone, and drawn for the
            runner-up as often as `runner_up` says. 0 is the paper's: every map is drawn for the predicted class, and
            the curves of both classes count. That rewards maps that are the same for all classes.
        runner_up: How often such a map is drawn for the second class.
        temperature_start: tau of the soft order at the first step ...
        temperature_end: ... from where it goes linearly to this one at the last.
    """

    own_class: Share
    runner_up: Share
    temperature_start: Positive
    temperature_end: Positive

    def temperature(self, step: int, steps: int) -> float:
        """The temperature tau at a step."""
        done = step / max(steps - 1, 1)
        return self.temperature_start + (self.temperature_end - self.temperature_start) * min(done, 1.0)


class Ranking(LightningModule):
    """Trains the decoder of a dense explainer against a frozen classifier.

    Args:
        explainer: Its decoder is trained in place; its features stay as they are.
        classifier: What is explained, frozen.
        mean: [3] of its input normalisation.
        params: The optimisation.
        objective: What maps are judged by.
        loss: Which classes they are drawn for and judged by, and how soft the order is.
        seed: Of all draws.
        stage: Prefix of the logged names.
    """

    def __init__(
        self,
        explainer: DenseExplainer,
        classifier: MaskableClassifier,
        mean: Sequence[float],
        params: FitParams,
        objective: ObjectiveParams,
        loss: RankingLoss,
        seed: int,
        stage: str,
    ) -> None:
        super().__init__()
        self.decoder = explainer.decoder
        # In a list, so that Lightning neither trains them, nor writes them into every checkpoint.
        self._frozen: list[Any] = [explainer.features, classifier.eval().requires_grad_(False)]
        self._mean, self._look = torch.tensor(mean), explainer.look
        self._params, self._objective, self._loss = params, objective, loss
        self._seed, self._stage = seed, stage

    def on_fit_start(self) -> None:
        """Bring the frozen networks to the device of the training."""
        for network in self._frozen:
            network.to(self.device)
        self._mean = self._mean.to(self.device)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """One step: a map for each image, and how well deleting and inserting by it work."""
        features, classifier = self._frozen
        images = batch.pixels
        self._objective.check_size(*images.shape[-2:])
        common, own = common_and_own(self._seed, self.global_step, self.device, self.global_rank)
        drawn = draw(self._objective, len(images), common, own)
        with torch.no_grad():
            logits = classifier(images)
        targets, judged_by = self._targets(training_targets(logits, batch.labels), own)
        seen = (features(images), targets, images, evidence(self._look, classifier, images, targets, self._mean))
        # What dropout draws is of this step too, or a resumed run would draw something else.
        with torch_seeded(own, self.device):
            maps = self.decoder(*seen)
        question = Question(images, judged_by, confidence(logits, judged_by))
        tau = self._loss.temperature(self.global_step, int(self.trainer.estimated_stepping_batches))
        judged = judge(maps, question, classifier, self._mean, self._objective, drawn, tau)
        for name in ("deletion", "insertion", "peaks", "loss"):
            self.log(f"{self._stage}/{name}", getattr(judged, name).mean())
        return judged.loss.mean()

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW with warm-up and cosine, between the shares of the peak rate that the paper starts and ends with."""
        return adamw(self, self._params, _RISE_FROM, _FALL_TO)

    def _targets(self, pair: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The class [B] each map is drawn for, and the classes [B, 2] it is judged by."""
        chance = torch.rand(2, len(pair), generator=generator, device=generator.device)
        own, second = chance[0] < self._loss.own_class, chance[1] < self._loss.runner_up
        targets = torch.where(own & second, pair[:, 1], pair[:, 0])
        return targets, torch.where(own[:, None], targets[:, None], pair)
