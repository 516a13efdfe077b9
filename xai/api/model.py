"""A classifier that can be explained, and how any network becomes one."""

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from xai.api.door import Answers, Output, admit
from xai.api.pixels import as_pixels
from xai.core.errors import UserError, check_finite
from xai.data.class_names import class_number
from xai.models.families import divided
from xai.models.maskable import MaskableClassifier, PaintedClassifier, Removal
from xai.models.named import default_cells, of_config
from xai.models.timm_vit import MaskableVit

_BATCH = 32
_INTERPOLATIONS = ("bicubic", "bilinear")


@dataclass(frozen=True)
class Model:
    """A classifier that can be explained; `wrap` and `load` make it.

    Args:
        name: What tables call it.
        classes: Names of its classes, C.
        image_size: Side of its images in pixels.
        mean: What it normalises with, three channels.
        std: The same.
        crop: Share of a picture's short side that it sees; above 1 with a black border around.
        make: Makes the network that answers with patches removed; the removal None is its own.
        device: Where it computes.
        fitted: Explainers that were trained for it, by name.
        source: What it was made from; a trained explainer starts there.
        fit: `crop` where the middle of a picture is cut out; `squash` where both sides are brought to one length first.
        interpolation: `bicubic` or `bilinear`, how a picture is resized.
    """

    name: str
    classes: tuple[str, ...]
    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: float
    make: Callable[[Removal | None], MaskableClassifier]
    device: torch.device
    fitted: dict[str, Any] = field(default_factory=dict)
    source: Any = None
    fit: str = "crop"
    interpolation: str = "bicubic"

    def pixels(self, images: Any, *, normalised: bool = False) -> Tensor:
        """Images as the classifier sees them, [B, 3, H, W] in [0, 1], on the CPU.

        Args:
            images: Pictures (PIL, or paths), uint8, or floats in [0, 1]; see `xai.api.pixels`.
            normalised: Whether floats have been normalised with `mean` and `std`, which is undone.

        Raises:
            UserError: What came is none of these.
        """
        by = (self.mean, self.std) if normalised else None
        how = {"crop": self.crop, "fit": self.fit, "interpolation": self.interpolation}
        return as_pixels(images, self.image_size, **how, normalised=by)  # type: ignore[arg-type]

    def network(self, removal: Removal | None = None) -> MaskableClassifier:
        """The classifier on its device, frozen and in evaluation mode; it answers with patches removed."""
        return self.make(removal).to(self.device).eval().requires_grad_(False)

    @torch.no_grad()
    def predict(self, images: Any, *, normalised: bool = False) -> Tensor:
        """Probabilities [B, C] of images, on the CPU.

        Raises:
            UserError: As `pixels`, or where the network does not give finite numbers.
        """
        network = self.network()
        parts = self.pixels(images, normalised=normalised).split(_BATCH)
        logits = torch.cat([network(part.to(self.device)).float().cpu() for part in parts])
        check_finite(logits, f"the answers of {self.name}", "give a network with finite outputs")
        return logits.softmax(1)

    def targets(self, wanted: Any, images: Tensor) -> Tensor:
        """Class numbers [B] for images [B, 3, H, W].

        Args:
            wanted: None (the predicted class of each), one class for all or one for each: numbers or names.
            images: In [0, 1].

        Raises:
            UserError: A class that the classifier does not know, or another number of them than of images.
        """
        if wanted is None:
            return self.predict(images).argmax(1)
        listed = wanted.tolist() if isinstance(wanted, Tensor) or hasattr(wanted, "tolist") else wanted
        if not isinstance(listed, (list, tuple)):
            listed = [listed] * len(images)
        found = [self._number(each) for each in listed]
        if len(found) != len(images):
            raise UserError(f"{len(found)} targets for {len(images)} images: give one for each, or one for all")
        return torch.tensor(found)

    def _number(self, wanted: Any) -> int:
        if isinstance(wanted, str):
            return class_number(wanted, self.classes, f"target {wanted!r}")
        number = _whole(wanted.item() if isinstance(wanted, Tensor) and wanted.ndim == 0 else wanted)
        if number is None or not 0 <= number < len(self.classes):
            raise UserError(
                f"target {wanted!r} is no class: they are numbered 0 to {len(self.classes) - 1}, or give a name"
            )
        return number

    def __repr__(self) -> str:
        return f"Model({self.name}, {len(self.classes)} classes, {self.image_size} px, {self.device})"


def check_model(model: Any) -> None:
    """Refuse what is no model.

    Raises:
        UserError: It says what makes one.
    """
    if not isinstance(model, Model):
        advice = "xai.wrap(network, mean=..., std=...)" if isinstance(model, nn.Module) else "xai.load or xai.wrap"
        raise UserError(f"the model is a {type(model).__name__}: give what {advice} makes")


def wrap(
    network: nn.Module,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    image_size: int | None = None,
    grid: int | tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    crop: float | None = None,
    fit: str | None = None,
    interpolation: str | None = None,
    output: Output = None,
    channels: int = 3,
    probabilities: bool | None = None,
    removal: str | float = "mean",
    device: str | torch.device = "cpu",
    name: str | None = None,
) -> Model:
    """Make a classifier that can be explained of any network. The network itself stays as it is: a copy is asked.

    Args:
        network: Images [B, 3, H, W], normalised, to logits [B, C], or to one logit a image (a sigmoid's).
        mean: Channel means (red, green, blue) that it normalises with; None takes timm's, where the network is timm's.
        std: Channel deviations.
        image_size: Side of its images, also as two that are alike, (224, 224); None takes timm's, else 224.
        grid: Patches down and across (or along both sides) that are removed as wholes, where the network has none of
            its own; None: 7 x 7, or the nearest that divides the image; if none does, it is refused.
        classes: Names of its classes; None numbers them.
        crop: Share of a picture's short side that it sees; None takes timm's, else 1.
        fit: `crop` resizes a picture's short side and cuts out the middle, `squash` resizes both; None takes timm's.
        interpolation: `bicubic` or `bilinear`, how pictures are resized; None takes timm's.
        output: Which part of what it returns are the logits: a key, attribute, position, or a function of it.
        channels: 1 for a network of grey images.
        probabilities: Whether its outputs are probabilities; None refuses what looks like them.
        removal: What a removed patch shows: `mean`, `black`, `blur` or a grey level; `tokens` drops the patch's token,
            which a plain vision transformer of timm can.
        device: Where it computes; the network itself goes there if it cannot be copied, and a warning says so.
        name: What tables call it; None takes the class of the network.

    Raises:
        UserError: It cannot be explained as it is; in one line that says what would be right.
    """
    network = _within(network)
    given: dict[str, Any] = {"mean": mean, "std": std, "image_size": image_size}
    given |= {"crop": crop, "fit": fit, "interpolation": interpolation}
    seen = of_config(getattr(network, "pretrained_cfg", None) or {})
    seen.update({key: value for key, value in given.items() if value is not None})
    mean, std = _channels(seen["mean"], seen["std"])
    size, share = square_side(seen["image_size"]), seen["crop"]
    if not isinstance(share, (int, float)) or not 0.01 < share <= 1.5:
        raise UserError(f"crop={share} is the share of a picture's short side that is seen: above 0.01, at most 1.5")
    check_resizing(seen["fit"], seen["interpolation"])
    if output is None:
        _check_head(network)
    place = open_device(device)
    answers = admit(network, size, output, channels, probabilities, place)
    with torch.no_grad():
        outputs = answers(torch.zeros(1, 3, size, size)).shape[1]
    names = _names(classes, outputs)
    alone = output is None and channels == 3 and not probabilities
    plain = alone and _drops_tokens(answers.network, mean, std, size)
    make = _maker(answers, plain, mean, std, size, grid, removal)
    label = name or type(network).__name__
    source = answers.network if alone else answers
    how = {"fit": seen["fit"], "interpolation": seen["interpolation"]}
    return Model(label, names, size, mean, std, float(share), make, place, source=source, **how)


def _within(network: Any) -> Any:
    """The network in torch.compile, which explainers by gradients cannot go through, or divided among several GPUs."""
    while True:
        if type(network).__name__ == "OptimizedModule":
            network = network._orig_mod
        elif isinstance(network, (DataParallel, DistributedDataParallel)):
            network = network.module
        else:
            return network


def _check_head(network: Any) -> None:
    """Refuse a network of timm that has no head: its features would pass for logits."""
    head = getattr(network, "get_classifier", None) if getattr(network, "pretrained_cfg", None) else None
    if callable(head) and isinstance(head(), nn.Identity):
        raise UserError(
            f"{type(network).__name__} has no head, and features are no logits: give the network of timm with its head "
            "(num_classes above 0), or output=<function> that makes logits of features"
        )


def _maker(
    answers: Answers,
    plain: bool,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    size: int,
    grid: int | tuple[int, int] | None,
    removal: str | float,
) -> Callable[[Removal | None], MaskableClassifier]:
    """What makes the classifier that answers with patches removed, by the removal that is asked for, or its own."""
    if not plain and removal == "tokens":
        raise UserError(
            "removal='tokens' needs a plain vision transformer of timm, in float32, and "
            f"{type(answers.network).__name__} is none, or does more than one: use removal='mean'"
        )
    own = Removal("tokens") if removal == "tokens" else Removal("pixels", str(removal))
    cells = _cells(grid, size)
    if not plain and grid is None and cells == (1, 1):
        raise UserError(
            f"images of {size} x {size} px cannot be cut into equal patches: say image_size={divided(size)}, if the "
            "network takes that, else grid=1 (the image is one patch, and only maps of pixels mean something)"
        )
    if not plain and (size % cells[0] or size % cells[1]):
        raise UserError(f"grid={cells} does not divide images of {size} x {size} px: give one that does")
    network: Any = answers.network

    def make(asked: Removal | None) -> MaskableClassifier:
        wanted = asked or own
        if plain:
            return MaskableVit(network, mean, std, wanted)
        if wanted.kind == "tokens":
            wanted = Removal("pixels", "mean")
        return PaintedClassifier(answers, cells, mean, std, wanted)

    return make


def _drops_tokens(network: nn.Module, mean: tuple[float, ...], std: tuple[float, ...], size: int) -> bool:
    """Whether it is a vision transformer whose answers its blocks and its head give, fast or, under hooks, slowly.

    Only one of float32 is, as the images are: another is painted, and asked in its own precision.
    """
    parameters = list(network.parameters())
    if not isinstance(network, VisionTransformer) or any(each.dtype != torch.float32 for each in parameters):
        return False
    device = parameters[0].device
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        maskable = MaskableVit(network, mean, std).to(device)
    except UserError:  # of a kind that has no fast pass
        return False
    try:
        with torch.no_grad():
            maskable(image)
    except UserError as error:
        reason = str(error).partition(":")[0]
        warnings.warn(
            f"the fast pass of {type(network).__name__} is not taken ({reason}): patches are painted over in its "
            "input, which takes longer",
            stacklevel=3,
        )
        return False
    return True


def _names(classes: Sequence[str] | None, outputs: int) -> tuple[str, ...]:
    count = 2 if outputs == 1 else outputs
    if classes is None:
        return tuple(map(str, range(count)))
    names = class_names(classes)
    if len(names) != count:
        pair = ", of the class that a low logit is for and of the other" if outputs == 1 else ""
        raise UserError(f"{len(names)} classes for a network of {outputs} outputs: give {count} names{pair}")
    return names


def class_names(classes: Any) -> tuple[str, ...]:
    """Names of classes, in the order of the outputs.

    Raises:
        UserError: They are in no order, are not text, or do not differ.
    """
    if isinstance(classes, (str, Set, Mapping)) or not isinstance(classes, Iterable):
        what = "one text" if isinstance(classes, str) else f"a {type(classes).__name__}"
        raise UserError(f"classes={classes!r} is {what}: give a list of names, in the order of the outputs")
    given = list(classes)
    names = tuple(str(each) for each in given if isinstance(each, str) and each)
    if len(names) != len(given) or len(set(names)) != len(names):
        twice = next((f"{each} comes twice" for each in names if names.count(each) > 1), "some are empty, or no text")
        raise UserError(f"classes need names that differ: {twice}")
    return names


def _channels(mean: Any, std: Any) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if mean is None or std is None:
        raise UserError(
            "say what the network normalises with: mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225) for most; "
            "mean=(0, 0, 0), std=(1, 1, 1) where it takes pixels in [0, 1], or std=(1 / 255,) * 3 where from 0 to 255"
        )
    mean, std = _three("mean", mean), _three("std", std)
    if min(std) <= 0:
        raise UserError(f"std={std} needs three numbers, one a channel, above 0")
    if max(mean) > 2 or max(std) > 2:  # either alone too: Caffe's networks have deviations of 1, Keras' means of 0
        advice = "divide both by 255" if max(std) >= 1 and not 0 < max(mean) <= 1 else "give both of pixels in [0, 1]"
        raise UserError(f"mean={mean} and std={std} are of pixels from 0 to 255, which here are in [0, 1]: {advice}")
    return mean, std


def _three(what: str, values: Any) -> tuple[float, ...]:
    try:
        found = tuple(float(value) for value in (values.tolist() if hasattr(values, "tolist") else values))
    except (TypeError, ValueError):
        found = ()
    if len(found) == 1:
        found *= 3
    if len(found) != 3 or not all(map(math.isfinite, found)):
        raise UserError(f"{what}={values!r} needs three numbers, one a channel")
    return found


def check_resizing(fit: Any, interpolation: Any) -> None:
    """Refuse ways to bring pictures to size that there are not.

    Raises:
        UserError: It says which there are.
    """
    if fit == "border":
        raise UserError(
            "its library shows this network whole pictures with a border around, which is not done here: say "
            "fit='crop' or fit='squash'; arrays of its size are taken as they are"
        )
    for name, value, known in (("fit", fit, ("crop", "squash")), ("interpolation", interpolation, _INTERPOLATIONS)):
        if value not in known:
            raise UserError(f"{name}={value!r} must be {' or '.join(map(repr, known))}")


def square_side(size: Any) -> int:
    """Side of square images, of a number or of two that are alike.

    Raises:
        UserError: It is none, or the two differ.
    """
    if isinstance(size, (tuple, list)) and len(size) == 2 and size[0] == size[1]:
        size = size[0]
    side = _whole(size)
    if side is None or not 1 <= side <= 4096:
        raise UserError(f"image_size={size!r} must be a whole number of pixels, from 1 to 4096; images are square")
    return side


def _cells(grid: Any, size: int) -> tuple[int, int]:
    if grid is None:
        return (default_cells(size),) * 2
    cells = [_whole(each) for each in (grid if isinstance(grid, (tuple, list)) else (grid, grid))]
    if len(cells) != 2 or cells[0] is None or cells[1] is None or min(cells[0], cells[1]) < 1:
        raise UserError(f"grid={grid!r} must be how many patches there are down and across, such as grid=(7, 7)")
    return cells[0], cells[1]


def _whole(value: Any) -> int | None:
    """A whole number of Python's or NumPy's; None for anything else."""
    return int(value) if isinstance(value, Integral) and not isinstance(value, bool) else None


def open_device(asked: Any) -> torch.device:
    """A device, if there is one of this name; else a `UserError`."""
    try:
        device = torch.device(asked)
        if device.type == "meta":
            raise TypeError("it computes nothing")
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"device={asked} cannot be used ({reason}): use device='cpu'") from None
    return device
