"""The self-explaining CLIP of "Transferring visual explainability" (Yoshikawa et al.), Figure 1 and section 4.1.

One visual tower, one fixed matrix W of class embeddings. The [CLS] token through W gives logits; the patch tokens,
through the same layer norm, the same projection and the same W, give patch attributions. The parameters theta of the
paper are those of the visual tower; W comes from the text tower, which is never trained on a data set.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from xai.core.errors import UserError
from xai.data.captions import Tokenizer
from xai.models import packed
from xai.models.maskable import Normalisation, Removal, check_size
from xai.models.packed import TransformerClassifier


class Explained(NamedTuple):
    """Prediction with explanation: logits [B, C] and unnormalised patch attributions [B, M, C]."""

    logits: Tensor
    attributions: Tensor


@torch.no_grad()
def class_embeddings(clip: CLIP, tokenizer: Tokenizer, classes: Sequence[str], templates: Sequence[str]) -> Tensor:
    """The fixed head W: for each class the mean text embedding over the prompt templates (section 4.1, footnote 1).

    Args:
        clip: The model whose text tower is asked.
        tokenizer: The one that belongs to it.
        classes: C class names.
        templates: Captions with `{}` where the class name goes.

    Returns:
        W [K, C], unit columns.
    """
    device = next(clip.parameters()).device
    columns = []
    for name in classes:
        tokens = tokenizer([template.format(name) for template in templates]).to(device)
        columns.append(F.normalize(clip.encode_text(tokens, normalize=True).mean(0), dim=0))
    return torch.stack(columns, dim=1)


class SelfExplainingClip(TransformerClassifier):
    """A CLIP image classifier that can also explain itself, if its parameters have learned to.

    Args:
        visual: open_clip's visual tower with a [CLS] token; theta in the paper.
        head: W [K, C], unit columns.
        logit_scale: The factor that turns cosines into logits.
        mean: Channel means of the input normalisation.
        std: Channel deviations of the input normalisation.
        removal: How patches are removed.
        reference: What a removed patch shows, where `pixels` removal knows no name for it: [3, H, W], or of a shape
            that broadcasts to it, in [0, 1].
    """

    head: Tensor
    logit_scale: Tensor

    def __init__(
        self,
        visual: VisionTransformer,
        head: Tensor,
        logit_scale: float,
        mean: Sequence[float],
        std: Sequence[float],
        removal: Removal | None = None,
        reference: Tensor | None = None,
    ) -> None:
        if getattr(visual, "attn_pool", None) is not None or visual.pool_type != "tok" or visual.final_ln_after_pool:
            raise UserError(
                "a self-explaining CLIP needs a visual tower that pools by its [CLS] token, such as ViT-B-32"
            )
        normalisation = Normalisation(mean, std, removal or Removal(), reference)
        super().__init__(normalisation, visual.grid_size, visual.image_size, prefix=1)
        self.visual = visual
        self.register_buffer("head", head)
        self.register_buffer("logit_scale", torch.tensor(float(logit_scale)))
        self.eval()

    def explain(self, images: Tensor) -> Explained:
        """Predict and explain in one forward pass (Figure 1, right).

        Args:
            images: [B, 3, H, W] in [0, 1].

        Returns:
            Logits [B, C] and attributions [B, M, C]; `attributions[b, :, c]` is the paper's column c of Phi-tilde.

        Raises:
            UserError: For images of another size than the tower's.
        """
        check_size(images, self._size)
        tokens = self.visual.transformer(self.visual._embeds(self.normalisation(images)))
        features = self._project(tokens)
        return Explained(self._logits(features[:, 0]), features[:, 1:] @ self.head)

    def read_out(self, tokens: Tensor, groups: packed.Groups) -> Tensor:
        """Logits [N, C] of the [CLS] tokens [N, D] of N sequences."""
        return self._logits(self._project(tokens))

    @property
    def _transformer(self) -> Any:
        return self.visual.transformer

    @property
    def blocks(self) -> Any:
        """Of the visual tower."""
        return self.visual.transformer.resblocks

    def _embed(self, images: Tensor) -> Tensor:
        return self.visual._embeds(images)

    def _plain(self, images: Tensor) -> Tensor:
        features = self.visual(images)
        return self._logits(features[0] if isinstance(features, tuple) else features)

    def _project(self, tokens: Tensor) -> Tensor:
        return self.visual.ln_post(tokens) @ self.visual.proj

    def _logits(self, features: Tensor) -> Tensor:
        return self.logit_scale * F.normalize(features, dim=-1) @ self.head


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """The parameters theta of a model, by name, detached copies."""
    return {name: value.detach().clone() for name, value in visual_tower(model.state_dict()).items()}


def visual_tower(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters theta of the paper: those of the visual tower, by name."""
    return {name: value for name, value in tensors.items() if name.startswith("visual.")}


def load_parameters(model: nn.Module, parameters: Mapping[str, Tensor]) -> None:
    """Put parameters theta (names as `trainable` gives them) into a model.

    Raises:
        UserError: Some are missing or unknown; the first is named, and the model is as it was.
    """
    own = model.state_dict()
    missing = [name for name in visual_tower(own) if name not in parameters]
    for names, what in ((missing, "missing"), ([name for name in parameters if name not in own], "unknown here")):
        if names:
            raise UserError(f"{len(names)} parameters are {what}, the first is {names[0]}")
    model.load_state_dict(dict(parameters), strict=False)
