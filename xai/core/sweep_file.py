"""What a file of sweeps/ says: which runs, and what is shown of all of them together."""

from dataclasses import field
from typing import Any

from xai.core.settings import settings


@settings
class Sweep:
    """A file of sweeps/ (Hydra finds it as conf/sweep): which runs, and what is shown of all of them together.

    Args:
        title: Name of the table or figure.
        about: A sentence on what to look at.
        axes: By key, the values that Hydra is to combine, as after -m: `seed: 0,1,2`; one value is of every run.
        tables: Files of conf/table.
        claims: Files of conf/claim.
        figures: Registered figures, by name or with settings.
        documented: Further files of conf/table, which are not shown but left for the documentation.
    """

    title: str | None = None
    about: str | None = None
    axes: dict[str, Any] = field(default_factory=dict)
    tables: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    figures: tuple[str | dict[str, Any], ...] = ()
    documented: tuple[str, ...] = ()
