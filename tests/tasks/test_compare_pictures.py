"""Pictures without labels take the names of their classes from the classifier's file."""

from pathlib import Path

from tests.composed import plain
from xai.core.settings import build
from xai.models import files
from xai.models.cnn import CnnParams
from xai.models.families import published_classes
from xai.models.spec import describe
from xai.tasks.compare import with_classes

GIVEN = {"name": "pictures", "path": "photos", "size": 8}


def test_classes_are_those_of_the_file_of_imagenet_or_given(tmp_path: Path) -> None:
    params = build(CnnParams, plain("model=cnn_tiny")["model"], "model")
    files.write(
        tmp_path / "c.safetensors", params.build(2), describe(params, "classifier", "mine", ("cat", "dog"), seed=0)
    )
    assert with_classes(GIVEN, str(tmp_path / "c.safetensors"))["classes"] == ("cat", "dog")
    assert with_classes(GIVEN, None)["classes"] == published_classes()
    named = {**GIVEN, "classes": ["x", "y"]}
    assert with_classes(named, str(tmp_path / "c.safetensors")) == named
    assert with_classes({"name": "folder"}, None) == {"name": "folder"}
