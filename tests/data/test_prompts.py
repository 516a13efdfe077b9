"""The words of each data set."""

import xai.data.disk  # noqa: F401  (fills DISK_SETS)
from xai.data.disk_set import DISK_SETS, check_classes
from xai.data.prompts import EUROSAT_NAMES, FASHION, GTSRB_NAMES, IMAGENETTE_NAMES, PROMPTS, WBC_NAMES


def test_every_set_has_prompts() -> None:
    assert DISK_SETS.keys() <= PROMPTS.keys()
    for templates in PROMPTS.values():
        assert templates
        assert all(template.count("{}") == 1 for template in templates)


def test_names_written_here() -> None:
    assert len(GTSRB_NAMES) == 43
    assert len(EUROSAT_NAMES) == len(FASHION) == len(IMAGENETTE_NAMES) == 10
    assert len(WBC_NAMES) == 9
    for names in (EUROSAT_NAMES.values(), FASHION, GTSRB_NAMES, IMAGENETTE_NAMES.values(), WBC_NAMES.values()):
        check_classes(tuple(names))
