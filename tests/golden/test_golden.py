"""Small versions of the three studies give the numbers that stand in the golden files.

Two runs on one machine agree in every digit. On another processor sums are rounded otherwise; training from nothing
amplifies that, Adam most where a gradient is nearly nothing, and what goes by ranks or by the largest logit then jumps
for single images. The tolerances are about three times what was measured between the kernels of AVX-512 and of SSE 4,
wide only where there is a reason for it, and wider where a processor of another kind needs it (`slack`).

Two numbers are other ones than at first, which were wrong: `risk` and `risk_random` of the transfer, which were of the
first training images, all of one class. Of Learn to Rank those moved by at most 3e-5 that masks are clamped for, as
published (`ranking`, its refined rows, its decoder, the mark), and by 1e-4 deletion of `eigen_cam`, whose ties along
the border of an enlarged map had fallen by rounding. The row `ranking_published` has the published settings now, and
no numbers of before.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.golden.make import HERE, STUDIES, SUPERVISE, leaves, measure

pytestmark = pytest.mark.slow

Leaf = tuple[str, ...]

COUNTS = ("accuracy", "agreement", "precision", "recall", "f1", "mcc", "pointing_game")
"""Metrics that jump when one image's largest value is another's."""

RANKS = ("kendall", "iou@", "rra")
CURVES = ("lif", "mif", "r_lif", "r_mif", "curve", "informed", *RANKS)
"""Metrics, and curves of single images, that go by the order of a map's values, which rounding changes where two are
nearly equal."""

UNSTEADY = ("salvage", "vit_shapley", "length/", "figure6", "position_prior")
"""Rows learned from masks that follow the order of the network's own maps, or by Adam with gradients that are zero but
for rounding, as that of ViT-Shapley's class token; and what is made from them. Those of uniform masks are as steady as
the others, so that all that they share with these is held tightly.
"""

FLAT = ("flat_t",)
"""Maps that a step or two have moved from a flat one: all their values are nearly equal, and what goes by their order
follows the processor's rounding (with the plainest instructions of torch and MKL the insertion of one image differs by
1.5e-4)."""

SUPERSEDED = ("length/",)
"""Numbers that stood for something else than they said: a share of a training was a training of that length, with a
learning rate that ended there, and is now a moment of the one training."""


def tolerance(leaf: Leaf, scale: float) -> float:
    """How far a number may be from the golden one, where the largest of its list is `scale`."""
    kind, role, name = leaf[0], leaf[1], leaf[-1]
    unsteady = role.startswith(UNSTEADY) and not role.startswith(("salvage_uniform", "salvage_kernel"))
    if kind == "maps":
        return (5e-2 if unsteady else 1.5e-3) * scale
    if kind == "extra":
        return 5e-4 * scale
    if name in COUNTS:
        return 1.0 if unsteady else 1e-6
    if kind == "images" and name.startswith(CURVES):
        return (0.15 if unsteady else 0.015) * max(scale, 0.1)
    if kind == "images" and role.startswith(FLAT):
        return 1e-3
    if kind == "images" and unsteady:
        return {"logits": 0.4}.get(name, 0.05 * max(scale, 0.1))
    if name.startswith((*RANKS, "class_correlation")) and kind != "images":
        return 5e-3 if unsteady else 1e-3
    return 1e-4 + 1e-2 * scale if unsteady else 3e-5 + 3e-4 * scale


def slack(leaf: Leaf) -> float:
    """How many times its tolerance a number may be off: more than once where another processor alone takes it further.

    Measured on an AMD EPYC of family 26 with the kernels of AVX-512 and of AVX2, against the golden numbers and each
    other: the rectified map of `ranking_published` 3.1 times the tolerance, what goes by the order of a flat map that
    one step has moved 3.0, the maps of the row that is trained with four points on a path 1.2.
    """
    if leaf[1].startswith("ranking_published"):
        return 8.0
    if "flat" in "/".join(leaf[1:]) and any(rank in leaf[-1] for rank in RANKS):
        return 8.0
    return 3.0 if leaf[1].startswith("steps/") else 1.0


def distance(leaf: Leaf, wanted: Any, found: Any) -> str | None:
    """What is wrong with a number or a list of them; None where it is the golden one within its tolerance."""
    if not isinstance(wanted, list):
        wanted, found = [wanted], [found]
    expected, actual = (np.array(values, dtype=float) for values in (wanted, found))
    if expected.shape != actual.shape:
        return f"shape {actual.shape} instead of {expected.shape}"
    if (np.isnan(expected) != np.isnan(actual)).any():
        return "undefined in other places"
    far = float(np.nan_to_num(np.abs(expected - actual)).max(initial=0.0))
    whole = leaf[-1] in ("labels", "targets", "rows")
    allowed = 0.0 if whole else slack(leaf) * tolerance(leaf, float(np.nan_to_num(np.abs(expected)).max(initial=0.0)))
    return None if far <= allowed else f"{far:.3g} away, {allowed:.3g} allowed"


@pytest.fixture
def as_found() -> Iterator[None]:
    """A job sets the threads and the determinism of its process; the tests after it get theirs back."""
    threads, exact = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(exact)


@pytest.mark.parametrize("study", STUDIES)
@pytest.mark.usefixtures("as_found")
def test_a_study_gives_its_golden_numbers(study: str, tmp_path: Path) -> None:
    golden = json.loads((HERE / f"{study}.json").read_text())
    assert (golden.pop("overrides"), golden.pop("supervise")) == (STUDIES[study], SUPERVISE[study])

    found = dict(leaves(measure(STUDIES[study], SUPERVISE[study], tmp_path)))

    wanted = {leaf: value for leaf, value in leaves(golden) if not leaf[1].startswith(SUPERSEDED)}
    assert not wanted.keys() - found.keys()
    wrong = {"/".join(leaf): far for leaf, value in wanted.items() if (far := distance(leaf, value, found[leaf]))}
    assert not wrong, "\n".join(f"{leaf}: {far}" for leaf, far in list(wrong.items())[:40])


def test_the_tolerance_notices_another_number() -> None:
    assert distance(("rows", "salvage", "srg"), 0.004, 0.004) is None
    assert distance(("rows", "salvage", "srg"), 0.004, 0.005)
    assert distance(("rows", "salvage", "srg"), None, 0.004)
    assert distance(("maps", "rise"), [[0.5, 0.2]], [[0.5, 0.21]])
    assert distance(("maps", "rise"), [[0.5, 0.2]], [[0.5, 0.2, 0.1]])
    assert distance(("images", "rise", "labels"), [3, 4], [3, 5])
