"""What a configuration may name: no code but ours, and no place outside of the folder of all runs."""

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any

from omegaconf import DictConfig, OmegaConf

from xai.core.errors import UserError

_LAUNCHERS = "hydra_plugins.hydra_submitit_launcher.submitit_launcher"
_TARGETS = {
    "hydra._internal.core_plugins.basic_launcher.BasicLauncher",
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper",
    "hydra_plugins.hydra_joblib_launcher.joblib_launcher.JoblibLauncher",
    f"{_LAUNCHERS}.LocalLauncher",
    f"{_LAUNCHERS}.SlurmLauncher",
    *(f"hydra_plugins.xai_launchers.{name}" for name in ("Processes", "Ray", "Slurm")),
}
"""Launchers and sweepers that are shipped, here or as extras."""

_LOGGING = {"logging.StreamHandler", "logging.FileHandler", "logging.NullHandler", "logging.Formatter"}
_STREAMS = {"ext://sys.stdout", "ext://sys.stderr"}
_RESOLVERS = ("hydra", "now", "oc.env", "xai.label")


def check_config(config: DictConfig) -> None:
    """Refuse what would run code or write elsewhere, in a configuration that Hydra has composed and not yet used.

    Raises:
        UserError: A class that is not among those shipped, a name that leaves the folder of all runs, or a file that
            was meant for the whole and is not.
    """
    for path, key, value in _leaves(OmegaConf.to_container(config, resolve=False), ""):
        refused = (
            (key == "_target_" and value not in _TARGETS)
            or (path.startswith("hydra.callbacks") and value is not None)
            or (path.startswith(("hydra.job_logging", "hydra.hydra_logging")) and _runs_code(key, value))
            or (path.startswith("hydra.") and _makes_nodes(value))
        )
        if refused:
            raise UserError(
                f"{path}={value} names code, which a configuration may not: leave it out (launchers and sweepers that "
                "come with xai can be chosen; modules of your own are named in plugins)"
            )
    for group in ("experiment", "task", "study", "method"):
        if OmegaConf.is_dict(config.get(group)):
            raise UserError(f"the file of {group} does not say where it belongs: begin it with # @package _global_")
    # Before Hydra makes the folder.
    check_name(config.get("name"))
    if "store" in config and not str(config.get("store") or "").strip():
        raise UserError("store is empty: give the folder of the store as store=...")


def check_name(name: Any) -> None:
    """Refuse a name of a run that is none, or leaves outputs/.

    Raises:
        UserError: As said.
    """
    parts = name.split("/") if isinstance(name, str) else []
    inside = parts and all(part.strip() and not part.startswith(".") for part in parts) and name.isprintable()
    if not inside or PurePath(parts[0]) == PurePath("store") or any(len(part.encode()) > 200 for part in parts):
        shown = "" if name is None else str(name)
        raise UserError(
            f"name={shown if shown.isprintable() else ascii(shown)} is no folder below outputs/: use words, and / "
            "between them; store, names that begin with a dot and absolute paths are taken"
        )


def _leaves(node: Any, path: str) -> Iterator[tuple[str, str, Any]]:
    if isinstance(node, dict | list):
        items = node.items() if isinstance(node, dict) else enumerate(node)
        for key, value in items:
            at = f"{path}.{key}" if path else str(key)
            yield at, str(key), value if not isinstance(value, dict | list) else None
            yield from _leaves(value, at)


def _runs_code(key: str, value: Any) -> bool:
    text = str(value)
    outside = text.startswith(("ext://", "cfg://")) and text not in _STREAMS
    return key == "()" or (key == "class" and value not in _LOGGING) or outside


def _makes_nodes(value: Any) -> bool:
    """Whether a value is an interpolation that could become a group of settings only when it is used."""
    text = value if isinstance(value, str) else ""
    pieces = [piece.split("}")[0] for piece in text.split("${")[1:]]
    return any(":" in piece and piece.split(":")[0].strip() not in _RESOLVERS for piece in pieces)
