"""What the tests of the command line share: how it is called, and a classifier with what belongs to it."""

import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.toolbox import Trap
from xai import cli, vectors
from xai.models.clip import SelfExplainingClip
from xai.models.spec import Spec
from xai.papers.vectors.base import ModelParams

CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SMOKE = ("experiment=smoke", "logger=none")


@dataclass
class Cli:
    """The command line, in this process and in an empty folder."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["run.py", *arguments])
        self.capsys.readouterr()
        status = cli.main()
        said = self.capsys.readouterr()
        return status, said.out, said.err

    def refused(self, *arguments: str) -> str:
        """The one line that a command is refused with."""
        status, _, err = self(*arguments, "logger=none") if "logger" not in " ".join(arguments) else self(*arguments)
        assert status == 2
        assert err.startswith("error: "), err
        assert err.endswith("\n")
        assert err.count("\n") == 1, err
        assert self.made() == []
        return err[len("error: ") : -1]

    def made(self) -> list[Path]:
        """Whatever lies in the store under a final name."""
        return [path for path in self.folder.glob("**/store/[a-z]*/*") if not path.name.endswith(".partial")]


@dataclass(frozen=True)
class Files:
    """A classifier of the default model with random weights, a vector for it, and what belongs to them."""

    folder: Path
    model: ModelParams
    network: SelfExplainingClip
    spec: Spec
    vector_info: vectors.VectorInfo

    @property
    def checkpoint(self) -> Path:
        return self.folder / "classifier.safetensors"

    @property
    def vector(self) -> Path:
        return self.folder / "vector.safetensors"


def heat_map_of(run: Cli) -> Path:
    """The one heat map of the picture called photo."""
    (found,) = (run.folder / "outputs" / "explain").glob("photo.*.png")
    return found


def colours(size: tuple[int, int] = (70, 50)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels)


def bare_pickle(files: Files, folder: Path) -> Path:
    (folder / "pickle.pt").write_bytes(pickle.dumps({"visual.proj": Trap(folder / "marker")}))
    return folder / "pickle.pt"
