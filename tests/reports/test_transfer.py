import dataclasses
import math
import re

import pytest
import torch

from xai.reports.headline import headline
from xai.reports.transfer import write_transfer_report
from xai.results import Result

RESULT = Result(
    method="transfer",
    role="proposed",
    data="mnist <5k>",
    source="digits",
    model="clip_tiny",
    seed=0,
    params={"alpha": 0.8, "lambda1": 1.0, "lambda2": 0.8},
    metrics={"accuracy": 0.9, "e_rmse": 0.95, "iou@10": 0.4, "rma": math.nan},
    n_images=300,
    seconds=2.0,
    peak_memory_bytes=2**30,
    split="test",
    chance={"accuracy": 0.1},
)
ROWS = [
    RESULT,
    dataclasses.replace(RESULT, role="ft_target", metrics={"accuracy": 0.92, "e_rmse": 1.45, "iou@10": 0.2}),
    dataclasses.replace(RESULT, role="constant", metrics={"e_rmse": 1.0}),
]
SWEEP = [dataclasses.replace(RESULT, params={"lambda2": value}) for value in (0.4, 0.8)]


def pictures(count):
    maps = torch.randn(count, 2, 2, generator=torch.Generator().manual_seed(0))
    return {
        "images": torch.full((count, 3, 8, 8), 100, dtype=torch.uint8),
        "labels": torch.zeros(count, dtype=torch.long),
        "class_names": ["zero"],
        "columns": [("reference", maps, None), ("Proposed", maps, torch.zeros(count, dtype=torch.long))],
    }


@pytest.mark.parametrize("count", [0, 2])
def test_the_page_holds_sentences_table_figures_and_what_made_it(tmp_path, count):
    notes = {"commit": "0123abc", "note": "a & b"}
    path = write_transfer_report(
        tmp_path / "out", ROWS, SWEEP, ROWS[1], 0.8, pictures(count), "python run.py a=<b>", notes
    )
    assert path == tmp_path / "out" / "report.html"
    text = path.read_text(encoding="utf-8")
    for sentence in headline(ROWS, 0.8):
        # The page names the size of the images besides.
        assert sentence.replace("<5k>", "&lt;5k&gt;").replace("'", "&#39;").split(" images")[0] in text
    for part in ("0.950", "1.450", "λ2 = 0.8 (chosen)", "python run.py a=&lt;b&gt;", "0123abc", "a &amp; b", "6.0 s"):
        assert part in text
    assert text.count("<img ") == (2 if count else 1)
    assert ("8 × 8 pixels" in text) == bool(count)
    assert not re.search(r"https?://|<5k>", text)


def test_the_glossary_explains_what_is_there_and_nothing_else(tmp_path):
    path = write_transfer_report(tmp_path, ROWS, SWEEP, ROWS[1], 0.8, pictures(0), "", {})
    terms = re.findall(r"<dt>(.*?)</dt>", path.read_text(encoding="utf-8"))
    assert {"Proposed (transferred)", "Constant map", "E-RMSE ↓", "Accuracy ↑"} <= set(terms)
    assert not {"Zero-shot", "IoU@1 ↑"} & set(terms)
