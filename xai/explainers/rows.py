"""Rows of a table: explainers with their settings, as `conf/explainer/<row>.yaml` has them."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from functools import partial
from itertools import islice
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from xai.core.composing import BUDGET, POOLED, choices, compose_choice
from xai.core.errors import UserError
from xai.core.settings import build, shown, unknown
from xai.explainers import registry
from xai.explainers.registry import Context, Row, lineage, passes_of
from xai.models.maskable import Removal

log = logging.getLogger(__name__)

_NUMBERS = ("coalitions", "evaluation_coalitions", "masks", "samples", "permutations")
"""What explainers call how many they ask about."""
_GROUND = Removal("pixels", "0.25")
"""What files of conf/explainer paint removed patches with: the ground of the scattered sets."""


def load_row(
    name: str,
    overrides: Mapping[str, Any] | None = None,
    where: str = "explainers",
    asked: str = "explainer",
) -> Row:
    """A row from its file.

    Args:
        name: Of the row, and of a file of the group `explainer`.
        overrides: By row, the settings that replace those of its file, as typed under `explainers.<row>`. A row that
            says `variant_of` starts from that row's settings, and from what replaces them.
        where: What the user typed before the row's name.
        asked: What the user typed to choose the row.

    Raises:
        UserError: Where there is no such file, or a setting is wrong.
    """
    settings = _settings(name, overrides or {}, where, (), asked)
    try:
        values: Any = OmegaConf.to_container(settings, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        path = f"{where}.{name}.{error.full_key}"
        raise UserError(f"{path} is not set: give it as {path}=...") from None
    except OmegaConfBaseException as error:
        raise UserError(f"{where}.{name}: {str(error).splitlines()[0]}") from None
    return open_row(name, values, f"{where}.{name}")


def _settings(name: str, overrides: Mapping[str, Any], where: str, seen: tuple[str, ...], asked: str) -> DictConfig:
    """The settings of a row, those of the row it is a variant of below its own."""
    own, given = _file(name, asked), overrides.get(name, {})
    if not isinstance(given, Mapping):
        raise UserError(f"{where}.{name}={shown(given)} must be a group of settings: {where}.{name}.<setting>=...")
    base = own.pop("variant_of", None)
    if base in (*seen, name):
        raise UserError(f"explainer={name} is a variant of itself: name the row that it starts from")
    parts = [own, OmegaConf.create(dict(given))]
    if base is not None:
        parts.insert(0, _settings(str(base), overrides, where, (*seen, name), asked))
    merged = OmegaConf.merge(*parts)
    assert isinstance(merged, DictConfig)
    return merged


def _file(name: str, asked: str) -> DictConfig:
    """What `conf/explainer/<row>.yaml` says; of pixels in patches, or of another budget, it need not be there."""
    if name in choices("explainer"):
        return compose_choice("explainer", name, asked)
    if name.endswith(POOLED):
        of = name.removesuffix(POOLED)
        label = f"{load_row(of, asked=asked).label}, pooled"
        return OmegaConf.create({"name": "pooled", "label": label, "of": of})
    if budget := BUDGET.fullmatch(name):
        return _of_budget(budget["of"], int(budget["number"]), asked)
    return compose_choice("explainer", name, asked)


def budget_of(row: Row) -> tuple[str, int]:
    """The setting that says how many perturbed images a row asks about, and how many; ("", 0) where it asks of none."""
    numbers = _numbers_of(row)
    return (numbers[0], getattr(row.params, numbers[0])) if numbers else ("", 0)


def _numbers_of(row: Row) -> list[str]:
    """What a row calls how many it asks about; empty where it asks about none, or not at test time."""
    asks = row.entry.info.kind in ("post-hoc", "refined")
    return [each.name for each in fields(row.params) if asks and each.name in _NUMBERS]


def _of_budget(of: str, number: int, asked: str) -> DictConfig:
    """The settings of a row that asks about another number of perturbed images.

    Raises:
        UserError: It asks about none, or not at test time.
    """
    row = load_row(of, asked=asked)
    numbers = _numbers_of(row)
    if not numbers:
        raise UserError(
            f"{of}_{number}: {of} asks about no number of perturbed images: leave _{number} out, or use kernel_shap_"
            f"{number}, rise_{number} ..."
        )
    label = f"{row.label}, {number:,}"
    return OmegaConf.create({"variant_of": of, "label": label, **dict.fromkeys(numbers, number)})


def made_from(rows: Sequence[Row], overrides: Mapping[str, Any]) -> dict[str, Row]:
    """The rows that rows are made from (`of`), and what those are made from, by name."""
    opened = partial(load_row, overrides=overrides)
    return {each.name: each for row in rows for each in islice(lineage(row, opened), 1, None)}


def open_row(name: str, settings: Mapping[str, Any], where: str | None = None) -> Row:
    """A row from its settings.

    Args:
        name: Of the row.
        settings: `name` of the explainer, where it is not that of the row; `label`, where tables shall not call it as
            the explainer; and the explainer's own settings.
        where: What the user typed before a setting's name; None is `explainers.<row>`.

    Raises:
        UserError: For an unknown explainer, or a wrong setting of one.
    """
    where = f"explainers.{name}" if where is None else where
    explainer, label = settings.get("name", name), settings.get("label")
    if not isinstance(explainer, str) or explainer not in registry.names():
        raise UserError(unknown(f"{where}.name={explainer}", str(explainer), registry.names(), "explainer"))
    if not isinstance(label, str | None) or not (label or "").isprintable():
        raise UserError(f"{where}.label={shown(label)} must be text: one line of characters that can be seen")
    entry = registry.entry(explainer)
    own = {key: value for key, value in settings.items() if key not in ("name", "label")}
    return Row(name, label or entry.info.label, entry, build(entry.params, own, where))


def removing_as_the_model(row: Row, given: Mapping[str, Any]) -> Row:
    """The row with patches removed as the model itself does it, unless `given` settings say otherwise.

    A row that leaves tokens out by its file, as `tis` does, is no such explainer where they are painted over.
    """
    leaves_out = getattr(getattr(row.params, "removal", None), "kind", None) == "tokens"
    return row if leaves_out or "removal" in given else _without(row, "removal")


def of_photographs(row: Row, given: Mapping[str, Any]) -> Row:
    """The row without the grey of the scattered sets, unless `given` settings say it: the model removes by itself."""
    grey = getattr(row.params, "removal", None) == _GROUND and "removal" not in given
    return _without(row, "removal") if grey else row


def warn_of_grey(row: Row, given: Mapping[str, Any], photographs: Sequence[str]) -> None:
    """Warn where patches of data sets of photographs get the grey of the scattered sets, and nobody has typed that."""
    if photographs and of_photographs(row, given) is not row:
        log.warning(
            "removed patches of %s show %s, the ground of the scattered sets: explainers.%s.removal.reference=mean "
            "shows what the model normalises with, as at the scale of the paper",
            *(" and ".join(dict.fromkeys(photographs)), _GROUND.reference, row.name),
        )


def of_no_split(row: Row, given: Mapping[str, Any]) -> Row:
    """The row for images of no split: `coalitions` are those of any image where they alone are `given`."""
    alone = "coalitions" in given and "evaluation_coalitions" not in given
    return _without(row, "evaluation_coalitions") if alone else row


def _without(row: Row, setting: str) -> Row:
    """The row with a setting left open, if it has such a one."""
    has = any(each.name == setting for each in fields(row.params))
    return replace(row, params=replace(row.params, **{setting: None})) if has else row


ALL = "all"
_ORDER = ("post-hoc", "control")


def every_row(
    named: Sequence[Row], overrides: Mapping[str, Any], cost_of: Callable[[Row], float], budget: int | None
) -> tuple[list[Row], dict[str, str]]:
    """The rows of conf/explainer that need no training, one of each explainer and kind of map.

    Refined maps are not among them: they are moved until they do well by a metric.

    Of several rows of one explainer that is the one of its own name, else the first; what is named besides is not
    repeated. What a classifier or a data set does not have is found out later, by asking the row.

    Args:
        named: Rows that are there already.
        overrides: By row, settings that replace those of its file.
        cost_of: Forward passes that a map by a row costs.
        budget: Forward passes that a map may cost; None: any number.

    Returns:
        The rows, post-hoc methods before controls; and why others are not among them, by name.
    """
    found: dict[tuple[str, bool], Row] = {(row.entry.name, row.params.of_pixels): row for row in named}
    left: dict[str, str] = {}
    opened = partial(_opened, overrides=overrides)
    for name in sorted(choices("explainer"), key=lambda name: (name not in _names_of(name), name)):
        row = opened(name)
        if row is None or row.entry.info.kind not in _ORDER or _is_trained(row, opened):
            continue
        if (row.entry.name, row.params.of_pixels) in found:
            continue
        if budget is not None and (cost := cost_of(row)) > budget:
            left[name] = f"a map costs {cost:,.0f} passes, more than budget={budget}; by its name it is taken"
            continue
        found[row.entry.name, row.params.of_pixels] = row
    new = [row for row in found.values() if row not in named]
    return sorted(new, key=lambda row: (_ORDER.index(row.entry.info.kind), row.params.of_pixels)), left


def cost_of(context: Context, row: Row) -> float:
    """Passes that a map costs; nothing where the row does not fit, which is said later, or waits for a training."""
    try:
        # What is made from another row knows its cost as it is prepared, which trains what has to be trained.
        ready = getattr(row.params, "of", None) is not None and not _is_trained(row, context.row)
        return passes_of(context, row, row.entry.prepare(context, row.params) if ready else None) or 0.0
    except UserError:
        return 0.0


def _names_of(name: str) -> tuple[str, ...]:
    """What the row of an explainer is called whose name is that of the explainer."""
    row = _opened(name, {})
    return () if row is None else (row.entry.name, f"{row.entry.name}_pixels")


def _opened(name: str, overrides: Mapping[str, Any]) -> Row | None:
    """A row; None where its file leaves something to whoever names it."""
    try:
        return load_row(name, overrides)
    except UserError:
        if name in overrides:
            raise
        return None


def _is_trained(row: Row, opened: Callable[[str], Row | None]) -> bool:
    """Whether a row, or the one it is made from, has to be trained; `opened` gives rows by their names."""
    infos = (each.entry.info for each in lineage(row, opened))
    return any(info.kind == "trained" or "training" in info.needs for info in infos)
