"""Heat maps of images in memory; and explainers as objects, which are called by Captum's convention or by Quantus'."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from xai.api.case import InMemory, case_of, row_of, workplace
from xai.api.door import Answers, alike, one_line
from xai.api.model import Model, check_model
from xai.api.pixels import as_pixels
from xai.core.calling import captum_names
from xai.core.errors import UserError, check_finite
from xai.explainers import block as blocks
from xai.explainers.block import Block, BlockExplainer, Explainer, Explanation
from xai.explainers.registry import Row
from xai.metrics.functional.perturbation import enlarge_map
from xai.study.blocks import block_generator
from xai.study.case import Case

seen: Any = WeakTensorKeyDictionary()
"""By maps that `explain` returned, the images as the classifier saw them; forgotten with the maps."""
_NOISE = 0.5
"""How far from [0, 1] pixels may be brought by the noise that metrics of robustness add."""
_PROBES = 2


def explain(
    model: Model,
    images: Any,
    explainer: Any = "rise",
    *,
    targets: Any = None,
    normalised: bool = False,
    block: int = 16,
    seed: int = 0,
    **settings: Any,
) -> Tensor:
    """Explain what a classifier says of images.

    Args:
        model: Of `xai.load` or `xai.wrap`.
        images: Pictures (PIL, or paths), uint8, or floats [B, 3, H, W] in [0, 1].
        explainer: A name (`xai.explainers(model)` lists them), what `xai.fit` or `xai.explainer` returned for this
            model, or an object with `attribute(images, targets)`, which gets images in [0, 1] on the model's device,
            whatever came.
        targets: The class that is explained: one for all images or one for each, numbers or names; None explains the
            predicted class of each.
        normalised: Whether the floats have been normalised as the model does, which is undone.
        block: Images that are explained together.
        seed: Of all that is drawn.
        settings: Of the explainer, instead of its own: `masks=500`, ...

    Returns:
        Maps [B, h, w] on the patch grid, or [B, H, W] of pixels, float32, on the CPU; higher is more evidence for the
        target.

    Raises:
        UserError: Images, targets, settings or the explainer do not fit; in one line.
    """
    check_model(model)
    check_explains(explainer, model)
    pixels = model.pixels(images, normalised=normalised)
    chosen = model.targets(targets, pixels)
    row = row_of(explainer, settings, model.fitted)
    parts = []
    with workplace(model.device) as runtime:
        case = case_of(runtime, model, InMemory(model.classes, pixels), block=block, seed=seed)
        made = open_explainer(row, case, model)
        for number, positions in enumerate(torch.arange(len(pixels)).split(block)):
            seen_here, asked = pixels[positions].to(model.device), chosen[positions].to(model.device)
            with one_line(f"{row.name} on {model.name}"):
                maps = made.maps(Block(seen_here, asked, None, None, positions, block_generator(seed, number)))
            parts.append(maps.detach().float().cpu())
    found = torch.cat(parts)
    check_finite(found, f"the maps of {row.name}", f"outputs and gradients of {model.name} have to be finite")
    seen[found] = pixels
    return found


@dataclass(frozen=True, repr=False)
class Ready:
    """An explainer of a model.

    Args:
        name: By which it was asked for.
        label: What tables call it.
        made: The explainer.
        chosen: Makes of all its maps those that were asked for: a stage of a path, an average within patches.
        model: What it explains.
        normalised: Whether a call by Quantus' convention gives floats that are normalised as the model does.
        of_pixels: Whether maps are of pixels, and not on the patch grid.

    Attributes:
        knows_names: Classes may be called by their names; see `xai.core.calling.captum_names`.
    """

    name: str
    label: str
    made: Explainer | BlockExplainer
    chosen: Callable[[Tensor], Tensor]
    model: Model
    normalised: bool = False
    of_pixels: bool = False
    knows_names: ClassVar[bool] = True

    def explain(self, block: Block) -> Explanation:
        """Maps of a block, and logits where it classifies as well."""
        found = blocks.explain(self.made, block)
        return found if found.maps is None else found._replace(maps=self.chosen(found.maps))

    @captum_names
    def attribute(
        self,
        images: Tensor,
        targets: Any,
        generator: torch.Generator | None = None,
        *,
        normalised: bool = False,
    ) -> Tensor:
        """Maps [B, h, w] of images [B, 3, H, W] in [0, 1] for the classes `targets`, on the images' device.

        There is one class for all images or one for each, numbers or names, as in `xai.explain`. Captum's names will do
        as well: `attribute(inputs, target=3)`, `attribute(inputs, target="cat")`. `normalised` says that the images
        have been normalised as the model does, which is undone. Noise may bring pixels out of [0, 1], as metrics add
        it.

        Raises:
            UserError: They are no such images, or there are no such classes, or another number of them.
        """
        own = self.model
        by = (own.mean, own.std) if normalised else None
        pixels = as_pixels(images, own.image_size, normalised=by, margin=_NOISE)
        draws, chosen = generator or torch.Generator().manual_seed(0), own.targets(targets, pixels)
        rows = torch.arange(len(pixels))
        found = self.maps(Block(pixels.to(own.device), chosen.to(own.device), None, None, rows, draws))
        return found.to(images.device)

    def maps(self, block: Block) -> Tensor:
        """Maps [B, h, w] of a block; UserError: it makes none."""
        found = self.explain(block).maps
        if found is None:
            raise UserError(f"{self.name} classifies and makes no maps: choose an explainer that does")
        return found

    def __call__(self, model: Any, inputs: Any, targets: Any, **_: Any) -> np.ndarray[Any, Any]:
        """As Quantus calls an `explain_func`: maps of pixels [B, 1, H, W] of inputs [B, 3, H, W] for classes [B].

        What is explained is the model that this was made for, so metrics that change it cannot be had in this way.

        Raises:
            UserError: The network that Quantus hands over is this one with other weights.
        """
        _check_weights(self, model)
        own = self.model
        by = (own.mean, own.std) if self.normalised else None
        pixels = as_pixels(np.asarray(inputs), own.image_size, normalised=by, margin=_NOISE)
        maps = self.attribute(pixels, own.targets(np.asarray(targets), pixels)).detach().float()
        found: np.ndarray[Any, Any] = enlarge_map(maps, pixels.shape[-2:])[:, None].numpy()
        return found

    def __repr__(self) -> str:
        return f"{self.name} of {self.model.name}"


def check_explains(explainer: Any, model: Model) -> None:
    """Refuse what `xai.fit` or `xai.explainer` made of another network than the model's.

    One that was wrapped twice is the same: it has the same weights, and answers alike to images of noise, however it is
    fed and whatever is read of it.

    Raises:
        UserError: It says what to do.
    """
    if not isinstance(explainer, Ready) or explainer.model is model:
        return
    own = explainer.model
    differs = own.image_size != model.image_size or _differ(_weights(own), _weights(model))
    if differs or not alike(_of_noise(own), _of_noise(model)):
        raise UserError(
            f"{explainer!r} explains another network than {model.name}: give the model that it was made of, or make it "
            "of this one (xai.explainer, xai.fit)"
        )


@torch.no_grad()
def _of_noise(model: Model) -> Tensor:
    """Logits [B, C] of images of noise, on the CPU."""
    noise = torch.rand(_PROBES, 3, model.image_size, model.image_size, generator=torch.Generator().manual_seed(0))
    return model.network()(noise.to(model.device)).float().cpu()


def _weights(model: Model) -> Mapping[str, Tensor]:
    """What the model was made from, by the names there."""
    if isinstance(model.source, tuple):
        tensors: Mapping[str, Tensor] = model.source[1]
        return tensors
    return _tensors(model.source.network if isinstance(model.source, Answers) else model.source)


def _tensors(network: Any) -> dict[str, Tensor]:
    """A network's tensors by their names; what else it keeps, as of layers of whole numbers, is not looked at."""
    kept = network.state_dict() if isinstance(network, nn.Module) else {}
    return {name: value for name, value in kept.items() if isinstance(value, Tensor)}


def _differ(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> bool:
    """Whether weights of the same names have other values; of other names nobody can say."""
    return ours.keys() == theirs.keys() and not all(_alike(ours[name], theirs[name]) for name in ours)


def _check_weights(made: Ready, given: Any) -> None:
    if _differ(_weights(made.model), _tensors(given)):
        raise UserError(
            f"{made!r} was handed this network with other weights, which it does not explain: of random weights "
            "xai.compare(metrics=['randomisation']) asks"
        )


def _alike(ours: Tensor, theirs: Tensor) -> bool:
    return ours.dtype != theirs.dtype or torch.equal(ours.cpu(), theirs.cpu())


def explainer(model: Model, name: Any = "rise", *, normalised: bool = False, **settings: Any) -> Ready:
    """An explainer of a model as an object, for what calls explainers itself.

    It has `attribute(images, targets)`, or `attribute(inputs, target=...)` as Captum's have it, of images in [0, 1] and
    for classes by number or by name; and it is an `explain_func` of Quantus.

    Args:
        model: Of `xai.load` or `xai.wrap`.
        name: As `xai.explain` takes it.
        normalised: Whether Quantus will hand over floats that are normalised as the model does.
        settings: Of the explainer, instead of its own.

    Raises:
        UserError: There is no such explainer or setting, or it does not fit the model.
    """
    check_model(model)
    check_explains(name, model)
    row = row_of(name, settings, model.fitted)
    with workplace(model.device) as runtime:
        blank = torch.full((1, 3, model.image_size, model.image_size), 0.5)
        case = case_of(runtime, model, InMemory(model.classes, blank))
        return replace(open_explainer(row, case, model), normalised=normalised)


def open_explainer(row: Row, case: Case, model: Model) -> Ready:
    """The explainer of a row; UserError: it does not fit the case."""
    row.entry.check(case, row.params)
    prepared = row.entry.prepare(case, row.params)
    made = prepared.build()
    # What builds an explainer holds all that it was trained with.
    chosen = replace(prepared, build=lambda: made).chosen
    return Ready(row.name, row.label, made, chosen, model, of_pixels=row.params.of_pixels)
