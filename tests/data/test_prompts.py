"""The words of each data set."""

import pytest

import xai.data.disk  # noqa: F401  (fills DISK_SETS)
from xai.core.errors import UserError
from xai.data.disk_set import DISK_SETS, check_classes
from xai.data.prompts import (
    EUROSAT_NAMES,
    FASHION,
    GTSRB_NAMES,
    IMAGENETTE_NAMES,
    PROMPTS,
    WBC_NAMES,
    captions,
)


def test_every_set_has_prompts() -> None:
    assert DISK_SETS.keys() <= PROMPTS.keys()
    for templates in PROMPTS.values():
        assert all("cat" in caption and "{" not in caption for caption in captions(templates, "cat"))


def test_captions() -> None:
    assert captions(["a {}.", "the {}!"], "{0} {}") == ("a {0} {}.", "the {0} {}!")
    for templates, why in (([], "no prompt template"), (["a cat"], "exactly once"), (["{} {}"], "exactly once")):
        with pytest.raises(UserError, match=why):
            captions(templates, "cat")


def test_names_written_here() -> None:
    assert len(GTSRB_NAMES) == 43
    assert len(EUROSAT_NAMES) == len(FASHION) == len(IMAGENETTE_NAMES) == 10
    assert len(WBC_NAMES) == 9
    for names in (EUROSAT_NAMES.values(), FASHION, GTSRB_NAMES, IMAGENETTE_NAMES.values(), WBC_NAMES.values()):
        check_classes(tuple(names))
