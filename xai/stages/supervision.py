"""Explanation supervision ("+X"): the attributions of a split, by any registered explainer."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from xai.core.errors import UserError
from xai.core.settings import Count, build, settings, unknown
from xai.explainers import registry
from xai.explainers.registry import ExplainerParams
from xai.explainers.rows import open_params

FILE = "supervision.safetensors"
REVISION = 3
"""Raised when the same settings give other numbers, so that what older code made is not taken for them."""

_KEY = "xai.supervision"
_MOST_ROWS_NAMED = 5


@settings
class _Named:
    name: str
    block: Count


@settings
class SupervisionParams(_Named):
    """How explanation supervision is computed.

    Args:
        name: A registered explainer.
        block: Images that are explained together: they share one design of coalitions. Also what a kill can cost.
        explainer: The explainer's own settings.
    """

    explainer: ExplainerParams

    def of(self, split: str, coalitions: int | None = None) -> "SupervisionParams":
        """The settings for images of a split; `coalitions` replaces P where the explainer has one."""
        explainer = self.explainer.for_split(split)
        if coalitions is not None and any(field.name == "coalitions" for field in fields(explainer)):
            explainer = replace(explainer, coalitions=coalitions)  # type: ignore[call-arg]
        return replace(self, explainer=explainer)

    def flat(self) -> dict[str, Any]:
        """As the configuration has it: the explainer's settings beside name and block."""
        return {"name": self.name, "block": self.block, **asdict(self.explainer)}


def open_supervision(
    settings: Mapping[str, Any], where: str = "supervision", pixels: bool = False
) -> SupervisionParams:
    """Read the settings of an explainer.

    Args:
        settings: `name` of the explainer, `block`, and the parameters of that explainer.
        where: The name of the configuration group, for messages.
        pixels: Whether maps of pixels will do; what is learned from or measured with patches is on the patch grid.

    Raises:
        UserError: For an unknown name or a wrong parameter, or maps of pixels where patches are wanted.
    """
    name = settings.get("name")
    if not isinstance(name, str):
        raise UserError(f"{where}.name is not set: choose from {', '.join(registry.names())}")
    if name not in registry.names():
        raise UserError(unknown(f"{where}={name}", name, registry.names(), "explainer", "choose from"))
    named = build(_Named, {key: value for key, value in settings.items() if key in ("name", "block")}, where)
    own = {key: value for key, value in settings.items() if key not in ("name", "block")}
    schema = registry.entry(name).params
    known = {"name", "block", *(field.name for field in fields(schema))}
    for key in settings:
        if key not in known:
            raise UserError(unknown(f"{where}.{key}", key, known) + f" with {where}={name}")
    explainer = open_params(schema, own, where)
    if explainer.of_pixels and not pixels:
        raise UserError(f"{where}.resolution=pixel: maps of patches are wanted here, use {where}.resolution=patch")
    return SupervisionParams(named.name, named.block, explainer)
