import pytest
import torch

from xai.core.provenance import peak_memory, provenance


def test_provenance_names_the_packages_that_make_the_numbers() -> None:
    found = provenance()
    assert torch.__version__.startswith(found["versions"]["torch"].split("+")[0])
    assert {"xai", "open_clip_torch", "pytorch-lightning"} <= set(found["versions"])
    assert found["commit"] is None or len(found["commit"]) == 40


def test_the_peak_is_in_bytes_on_every_system_and_of_the_device_that_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"ru_maxrss": 3000})
    monkeypatch.setattr("xai.core.provenance.resource.getrusage", lambda _: usage)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 7)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for platform, expected in (("linux", 3000 * 1024), ("darwin", 3000)):
        monkeypatch.setattr("xai.core.provenance.sys.platform", platform)
        assert peak_memory(torch.device("cpu")) == expected
    assert peak_memory(torch.device("cuda")) == 7
