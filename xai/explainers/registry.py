"""The registry of explainers: post-hoc methods, trained networks, refined maps and controls, each found by its name."""

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from xai.core import plugins
from xai.core.calling import captum_names
from xai.core.errors import UserError
from xai.core.settings import settings, unknown
from xai.explainers.block import BlockExplainer, Explainer
from xai.models.maskable import MaskableClassifier, Removal

if TYPE_CHECKING:
    # Not at run time, for the sake of whoever wants an explainer and no training.
    from xai.core.runtime import Runtime
    from xai.data.catalogue import OpenData

MODULES = (
    "xai.explainers.posthoc",
    "xai.explainers.controls",
    "xai.explainers.of_row",
    "xai.explainers.learned.kernel_shap_proxy",
    "xai.papers.salvage.explainers",
    "xai.papers.ranking.explainers",
    "xai.papers.vectors.explainers",
)
"""What registers the explainers that come with the framework; of a package, all its modules."""

Kind = Literal["post-hoc", "trained", "refined", "control", "classifier"]
NEEDS = frozenset({"gradients", "attention", "features", "game", "regions", "training"})
"""What an explainer may need of a classifier, of a data set, or before it can explain."""


@settings
class ExplainerParams:
    """Settings of an explainer; each explainer has its own subclass."""

    @property
    def classifier_removal(self) -> Removal | None:
        """How the classifier that is explained removes patches; None where the explainer removes none."""
        return None

    @property
    def of_pixels(self) -> bool:
        """Whether maps are of pixels, [B, H, W], and not on the patch grid."""
        return False

    def for_split(self, split: str) -> Self:
        """The settings for images of a split: what is learned from may be cheaper than what is measured against."""
        return self


@dataclass(frozen=True)
class Info:
    """What there is to say of an explainer.

    Args:
        name: What it is called in settings.
        label: What it is called in tables.
        about: What it is, in a sentence.
        kind: `post-hoc`, `trained`, `refined`, `control`, or `classifier`, which gives logits and no maps.
        class_specific: Whether maps depend on the target; maps of attention are of the image alone.
        needs: What it needs, of `NEEDS`.
        passes: From its settings and M patches, what an image costs in forward passes of the classifier, where a
            backward pass counts as two; None where settings do not tell (`passes_of`).
    """

    name: str
    label: str
    about: str
    kind: Kind = "post-hoc"
    class_specific: bool = True
    needs: frozenset[str] = frozenset()
    passes: Callable[[Any, int], float] | None = None


@dataclass(frozen=True)
class Prepared:
    """An explainer that is ready to be made.

    Args:
        made_from: All that determines its maps beside the case: it goes into their key in the store.
        build: Makes it; called once at most, and only if something has to be computed.
        pick: Which of the K stages of a path the maps of this row are.
        pool: Patches (h, w) that the maps of pixels are averaged in, once they are made.
        notes: Numbers for the frame: what training took, its share of the full length, ...
        passes: As in `Info`, where it depends on another row.
        share: Of the time that the maps take, what this row is charged: of a path, that up to its stage.
    """

    made_from: Mapping[str, Any]
    build: Callable[[], Explainer | BlockExplainer]
    pick: int | None = None
    pool: tuple[int, int] | None = None
    notes: Mapping[str, float] = field(default_factory=dict)
    passes: float | None = None
    share: float = 1.0

    def chosen(self, maps: Tensor) -> Tensor:
        """The maps [B, h, w] of this row, of all that its explainer makes: [B, h, w], or [B, K, h, w] of a path."""
        picked = maps if self.pick is None else maps[:, self.pick]
        return picked if self.pool is None else F.adaptive_avg_pool2d(picked, self.pool)


class Context(Protocol):
    """What an explainer is prepared with: a classifier, a split of a data set, a seed, and the other rows."""

    @property
    def runtime(self) -> "Runtime":
        """Where to work."""

    @property
    def model(self) -> Any:
        """The model that is explained, as the case has it."""

    @property
    def data(self) -> "OpenData":
        """The data set."""

    @property
    def learned_from(self) -> "OpenData":
        """The data set whose images explainers learn from: the same, but for a probe."""

    @property
    def learned_in(self) -> Mapping[str, Any]:
        """What tells where a prior is learned, if that is elsewhere: a part of keys."""

    @property
    def split(self) -> str:
        """Which split is explained."""

    @property
    def seed(self) -> int:
        """Of all that is drawn."""

    def network(self, removal: Removal | None = None) -> MaskableClassifier:
        """The classifier on its device, frozen and in evaluation mode; None removes patches as the case does."""

    def blank(self, removal: Removal | None = None) -> MaskableClassifier:
        """A classifier of the same build, with weights that may mean nothing: what can be had before any training."""

    def row(self, name: str) -> "Row":
        """Another row, with the settings it has here."""

    def maps_of(self, name: str, split: str, images: int | None) -> Tensor:
        """Maps [N, h, w] or [N, H, W] by another row, of the first `images` images of a split; None takes all."""


@dataclass(frozen=True)
class Entry:
    """One line of the registry.

    Args:
        info: What there is to say.
        params: Its settings.
        made_by: The module that registers it.
        of_classifier: Makes it from (classifier, params), where that is all it takes.
        of_context: Prepares it from (context, params), where it takes more.
        fits: Raises `UserError` where (context, params) do not fit `of_context`, without training anything.
        opaque: Whether it brings a network of its own that nobody here can reach, as an object of a user's does.
    """

    info: Info
    params: type[ExplainerParams]
    made_by: str
    of_classifier: Callable[[Any, Any], Any] | None = None
    of_context: Callable[[Any, Any], Prepared] | None = None
    fits: Callable[[Any, Any], object] | None = None
    opaque: bool = False

    @property
    def name(self) -> str:
        """What it is called."""
        return self.info.name

    @property
    def asks_once(self) -> bool:
        """Whether it asks the classifier no more for several classes of an image than for one."""
        return hasattr(self.of_classifier, "attribute_classes")

    def build(self, classifier: MaskableClassifier, params: ExplainerParams) -> Any:
        """Make it for a classifier, on its device and in evaluation mode.

        Raises:
            UserError: Where the classifier cannot give what it needs, or a classifier alone is not enough.
        """
        if self.of_classifier is None:
            raise UserError(f"{self.name} is made from more than a classifier: it is a row of a study")
        return self.of_classifier(classifier, params)

    def prepare(self, context: Context, params: ExplainerParams) -> Prepared:
        """Get it ready for a classifier and a split."""
        code = plugins.code_of(self.made_by)
        if self.of_context is not None:
            prepared = self.of_context(context, params)
            return replace(prepared, made_from={**prepared.made_from, **code}) if code else prepared
        own = params.for_split(context.split)
        made_from = {"name": self.name, **asdict(own), **code}
        return Prepared(made_from, lambda: self.build(context.network(own.classifier_removal), own))

    def check(self, context: Context, params: ExplainerParams) -> None:
        """Refuse what does not fit, before any work."""
        if "regions" in self.info.needs:
            one = context.data.source.images(context.split, torch.tensor([0]), 0)
            if one.regions is None:
                raise UserError(f"{self.name} needs the regions of the objects, which data={context.data.name} has not")
        if self.fits is not None:
            self.fits(context, params)
        if self.of_classifier is not None:
            self.build(context.blank(params.classifier_removal), params)


@dataclass(frozen=True)
class Row:
    """One row of a table: an explainer with its settings. Several rows may use one explainer.

    Args:
        name: Of the row.
        label: What tables call it.
        entry: The explainer.
        params: Its settings.
    """

    name: str
    label: str
    entry: Entry
    params: ExplainerParams


_ENTRIES: dict[str, Entry] = {}
_filled = False

Made = TypeVar("Made", bound=Callable[..., Any])


def explainer(
    name: str,
    *,
    label: str,
    about: str,
    params: type[ExplainerParams] = ExplainerParams,
    kind: Kind = "post-hoc",
    class_specific: bool = True,
    needs: set[str] | frozenset[str] = frozenset(),
    passes: Callable[[Any, int], float] | None = None,
    check: Callable[[Any, Any], object] | None = None,
) -> Callable[[Made], Made]:
    """Register an explainer: its settings are of the class `params`, and the rest of the arguments are those of `Info`.

    It decorates a class, made of (classifier, params), which refuses what a classifier cannot give as it is made; or a
    function (context, params) -> `Prepared`, for what has to be trained, or is made from other rows' maps. `check`
    belongs to such a function: it raises `UserError` where (context, params) do not fit, before any work.

    Raises:
        UserError: Where the name is taken.
    """
    if unheard := sorted(set(needs) - NEEDS):
        raise ValueError(f"{name} needs {', '.join(unheard)}: known are {', '.join(sorted(NEEDS))}")
    info = Info(name, label, about, kind, class_specific, frozenset(needs), passes)

    def add(made: Made) -> Made:
        taken = _ENTRIES.get(name)
        # A cell of a notebook is run again.
        if taken is not None and not taken.made_by == made.__module__ == "__main__":
            raise UserError(
                f"the name {name} is taken: {taken.made_by} and {made.__module__} both register an explainer of that "
                "name, give one of them another"
            )
        if isinstance(made, type):
            if hasattr(made, "attribute"):
                made.attribute = captum_names(made.attribute)
            entry = Entry(info, params, made.__module__, of_classifier=made, fits=check)
        else:
            entry = Entry(info, params, made.__module__, of_context=made, fits=check)
        _ENTRIES[name] = entry
        plugins.registered()
        return made

    return add


def entry(name: str) -> Entry:
    """Look an explainer up by name; an unknown name is a `UserError` that suggests the nearest."""
    _fill()
    if name not in _ENTRIES:
        raise UserError(unknown(f"explainer={name}", name, _ENTRIES, "explainer", "choose from"))
    return _ENTRIES[name]


def names() -> list[str]:
    """All registered explainers, sorted."""
    _fill()
    return sorted(_ENTRIES)


def passes_of(context: Context, row: Row, prepared: Prepared | None = None) -> float | None:
    """What an image of the split costs a row, in forward passes; None where nobody can say.

    Where neither other rows nor settings tell, as of a pass for each channel of some layer, the explainer itself does,
    by `passes(side)` for images of so many pixels a side.
    """
    if prepared is not None and prepared.passes is not None:
        return prepared.passes
    if row.entry.info.passes is not None:
        return row.entry.info.passes(row.params.for_split(context.split), context.blank().players)
    if hasattr(row.entry.of_classifier, "passes"):
        return float(row.entry.build(context.blank(), row.params).passes(context.model.image_size))
    return None


def lineage(row: Row, opened: Callable[[str], Row | None]) -> Iterator[Row]:
    """A row, the one that it is made from (`of`), and so on; `opened` gives rows by their names, or none.

    Raises:
        UserError: It comes back to a row that was there.
    """
    names, each = set[str](), row
    yield each
    while (of := getattr(each.params, "of", None)) is not None and (source := opened(of)) is not None:
        if of in names:
            raise UserError(f"of={of}: {of} is made from itself, name another row")
        names.add(of)
        yield (each := source)


def refusal(entry: Entry, params: ExplainerParams, context: Context) -> str | None:
    """Why an explainer does not fit a model or a data set, in a line; None where it does. Nothing is trained."""
    try:
        entry.check(context, params)
    except UserError as error:
        return str(error)
    return None


def _fill() -> None:
    """Import all that registers explainers: what comes with the framework, then plug-ins."""
    global _filled
    if _filled:
        return
    # Before the imports, because a plug-in may look at the registry while it is imported.
    _filled = True
    try:
        for name in MODULES:
            module = import_module(name)
            for inner in pkgutil.iter_modules(getattr(module, "__path__", [])):
                import_module(f"{name}.{inner.name}")
        plugins.load()
    except BaseException:
        _filled = False
        raise
