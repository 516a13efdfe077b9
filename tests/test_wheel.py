"""The wheel: it carries the configuration, and works from any folder without the repository."""

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that has the wheel, and sees what it needs in the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, timeout=300)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "xai/conf/config.yaml" in names
    assert "xai/py.typed" in names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/"))]
    venv.create(folder / "env", with_pip=False)
    python = folder / "env" / "bin" / "python"
    install = [*pip, "--python", str(python), "install", "--no-deps", "--quiet", str(wheel)]
    subprocess.run(install, check=True, timeout=300)
    # What it needs is installed beside the tests; this repository is not on the way.
    site = next((folder / "env" / "lib").glob("python*")) / "site-packages"
    others = [path for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    return folder


def run(installed: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(command, cwd=installed, env=environment, capture_output=True, text=True, timeout=600)


def test_the_package_of_the_wheel_is_the_one_that_is_imported(installed: Path) -> None:
    found = run(installed, str(installed / "env/bin/python"), "-c", "import xai; print(xai.__file__)")
    assert Path(found.stdout.strip()).is_relative_to(installed), found.stderr


@pytest.mark.slow
def test_the_command_explains_itself_and_a_picture_from_any_folder(installed: Path) -> None:
    command = str(installed / "env/bin/xai")
    assert "task=explain" in run(installed, command, "--help").stdout
    refused = run(installed, command, "task=explian")
    assert refused.returncode == 2
    assert "explain" in refused.stderr
    Image.fromarray(load_sample_image("china.jpg")).resize((160, 120)).save(installed / "china.png")
    # What explaining takes is no matter of the wheel.
    quick = ("row=grad_cam", "refine=0", "areas=[]", "logger=none")
    done = run(installed, command, "task=explain", "model=efficientnet_lite0", "image=china.png", *quick)
    assert done.returncode == 0, done.stderr
    assert "palace" in done.stdout
