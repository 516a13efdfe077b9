"""Names of classes from files, as other tools write them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.toolbox import refusal
from xai.data.class_names import read_class_names

NAMES = ("tabby cat", "pug", "fox")


@pytest.mark.parametrize(
    "text",
    [
        "tabby cat\n\n pug\r\nfox",
        json.dumps(NAMES, indent=1),
        json.dumps({"2": "fox", "0": "tabby cat", "1": "pug"}),
        json.dumps({"fox": 2, "tabby cat": 0, "pug": 1}),
        json.dumps({"model_type": "vit", "id2label": dict(enumerate(NAMES))}),
    ],
)
def test_names_are_read_in_the_order_of_the_classes(tmp_path: Path, text: str) -> None:
    (tmp_path / "names").write_text(text, encoding="utf-8-sig")
    assert read_class_names(tmp_path / "names") == NAMES


@pytest.mark.parametrize(
    "found",
    [[1, 2], {"0": "a", "2": "b"}, {"a": 0, "b": 0}, {"0": ["n01440764", "tench"]}, {"id2label": None}, {"a": "b"}],
)
def test_json_of_another_form_is_refused(tmp_path: Path, found: Any) -> None:
    (tmp_path / "names.json").write_text(json.dumps(found))
    assert "names.json is JSON of another form than [" in refusal(read_class_names, tmp_path / "names.json")


@pytest.mark.parametrize(
    ("content", "said"), [(b"\n \n", "is empty"), (b"\xff\xfe\x00\xd8", "cannot be read"), (None, "cannot be read")]
)
def test_a_file_without_names_is_refused(tmp_path: Path, content: bytes | None, said: str) -> None:
    if content is not None:
        (tmp_path / "names.txt").write_bytes(content)
    assert f"names.txt {said}" in refusal(read_class_names, str(tmp_path / "names.txt"))
