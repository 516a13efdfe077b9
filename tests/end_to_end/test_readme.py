import re
from pathlib import Path
from typing import Any

import torch

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_python_of_the_readme_runs() -> None:
    code = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code) == 1
    found: dict[str, Any] = {}
    # As it stands, on images of a size that takes a second.
    exec(code[0].replace("224, 224", "28, 28"), found)
    assert found["phi"].shape == found["error"].shape == (2, 49)
    game, phi = found["game"], found["phi"]
    ends = game.value(torch.tensor([[False], [True]]).expand(-1, 49))
    torch.testing.assert_close(phi.sum(1), ends[:, 1] - ends[:, 0], rtol=1e-3, atol=1e-4)
    assert torch.isfinite(found["error"]).all()
