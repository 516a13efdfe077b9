"""The words of each data set."""

import xai.data.disk  # noqa: F401  (fills DISK_SETS)
from xai.data.disk_set import DISK_SETS
from xai.data.prompts import PROMPTS


def test_every_set_has_prompts() -> None:
    assert DISK_SETS.keys() <= PROMPTS.keys()
    for templates in PROMPTS.values():
        assert templates
        assert all(template.count("{}") == 1 for template in templates)
