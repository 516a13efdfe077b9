"""MNIST, SVHN, CIFAR-100 and STL-10 in their true archives, read back pixel by pixel; every damage ends as one line."""

import gzip
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.io import savemat

from tests.data.disk_forms import content, expected, idx, noise, open_disk_set, refusal, train_and_validation
from tests.toolbox import Trap
from xai.data import disk_set


def test_svhn(tmp_path: Path) -> None:
    made = {}
    for leaf, count in (("train", 40), ("test", 5)):
        pixels, labels = noise(32, 32, 3, count), np.arange(count) % 10 + 1
        savemat(tmp_path / f"{leaf}_32x32.mat", {"X": pixels, "y": labels[:, None].astype(np.uint8)})
        # Class 10 is the digit 0.
        made[leaf] = expected([(pixels[..., n], str(labels[n] % 10)) for n in range(count)])
    everything, validation = train_and_validation("svhn", tmp_path)
    assert everything == made["train"]
    assert torch.bincount(validation.labels).tolist() == [1] * 10
    test = open_disk_set("svhn", tmp_path, "test")
    assert test.labels.tolist() == [1, 2, 3, 4, 5]
    assert content(test) == made["test"]


@pytest.mark.parametrize(
    ("pixels", "labels", "why"),
    [
        (np.zeros((32, 32, 3, 4), np.float32), [1, 2, 3, 4], "expected uint8"),
        (np.zeros((32, 32), np.uint8), [1, 2, 3, 4], "expected uint8"),
        (np.zeros((32, 32, 3, 4), np.uint8), [1, 2, 3], "3 labels for 4 pictures"),
        (np.zeros((32, 32, 3, 4), np.uint8), [0, 1, 2, 3], "outside 1 to 10"),
    ],
)
def test_svhn_damaged(tmp_path: Path, pixels: np.ndarray, labels: list[int], why: str) -> None:
    savemat(tmp_path / "test_32x32.mat", {"X": pixels, "y": np.array(labels)[:, None]})
    assert why in refusal("svhn", tmp_path, "test")


def test_a_mat_that_would_grow_is_refused_before_it_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = np.zeros((32, 32, 3, 1000), np.uint8)
    savemat(tmp_path / "test_32x32.mat", {"X": pixels, "y": np.ones((1000, 1))}, do_compression=True)
    assert (tmp_path / "test_32x32.mat").stat().st_size < 10_000
    assert len(open_disk_set("svhn", tmp_path, "test")) == 1000
    monkeypatch.setattr(disk_set, "_MOST_OF_MAT", pixels.nbytes - 1)
    monkeypatch.setattr(disk_set, "loadmat", None)
    assert "unpacks to more than 3,071,999 bytes" in refusal("svhn", tmp_path, "test")


@pytest.mark.parametrize(
    ("folder", "sign", "packed"), [(".", "-", False), ("MNIST/raw", "-", True), (".", ".", False), ("raw", ".", True)]
)
def test_mnist(tmp_path: Path, folder: str, sign: str, packed: bool) -> None:
    made = {}
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    for stem, count in (("train", 100), ("t10k", 12)):
        pixels, labels = noise(count, 28, 28), (np.arange(count) % 10).astype(np.uint8)
        for kind, values in (("images", pixels), ("labels", labels)):
            name = f"{stem}-{kind}{sign}idx{values.ndim}-ubyte"
            body = idx(values)
            path = tmp_path / folder / (name + ".gz" if packed else name)
            path.write_bytes(gzip.compress(body) if packed else body)
        made[stem] = expected([(pixels[n, ..., None].repeat(3, 2), str(labels[n])) for n in range(count)])
    everything, validation = train_and_validation("mnist", tmp_path)
    assert everything == made["train"]
    assert torch.bincount(validation.labels).tolist() == [1] * 10
    assert content(open_disk_set("mnist", tmp_path, "test")) == made["t10k"]


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda body: body[:-1], "announces"),
        (lambda body: body + b"\0", "more"),
        (lambda body: body[:7], "no idx file"),
        (lambda body: b"\0\0\x0d" + body[3:], "no idx file"),
        (lambda body: body[:4] + b"\xff" * 12 + body[16:], "announces"),
        (lambda body: body[:4] + bytes(12), "no entries"),
        (lambda body: b"", "no idx file"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_mnist_damaged(tmp_path: Path, damage: Callable[[bytes], bytes], why: str, packed: bool) -> None:
    body = damage(idx(noise(4, 28, 28)))
    end = ".gz" if packed else ""
    (tmp_path / f"t10k-images-idx3-ubyte{end}").write_bytes(gzip.compress(body) if packed else body)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.arange(4, dtype=np.uint8)))
    message = refusal("mnist", tmp_path, "test")
    assert why in message or (packed and "is broken" in message)


def test_mnist_with_a_broken_gzip_or_wrong_labels(tmp_path: Path) -> None:
    whole = gzip.compress(idx(noise(4, 28, 28)))
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([0, 1, 2, 10], dtype=np.uint8)))
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    for broken in (whole[: len(whole) // 2], b"no gzip", whole[:-8] + bytes(8)):
        path.write_bytes(broken)
        assert "is broken" in refusal("mnist", tmp_path, "test")
    path.write_bytes(whole)
    assert "outside its 10 classes" in refusal("mnist", tmp_path, "test")
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(np.array([0, 1, 2], dtype=np.uint8)))
    assert "3 labels for 4 pictures" in refusal("mnist", tmp_path, "test")


@pytest.mark.parametrize("inside", [".", "cifar-100-binary"])
def test_cifar100(tmp_path: Path, inside: str) -> None:
    root = tmp_path / inside
    root.mkdir(exist_ok=True)
    names = [f"kind_{n}" for n in range(100)]
    (root / "fine_label_names.txt").write_text("\n".join(names) + "\n")
    made = {}
    for leaf, count in (("train", 1000), ("test", 100)):
        pixels, fine = noise(count, 32, 32, 3), np.arange(count) % 100
        records = b"".join(bytes([n % 20, fine[n]]) + pixels[n].transpose(2, 0, 1).tobytes() for n in range(count))
        (root / f"{leaf}.bin").write_bytes(records)
        made[leaf] = expected([(pixels[n], f"kind {fine[n]}") for n in range(count)])
    everything, validation = train_and_validation("cifar100", tmp_path)
    assert everything == made["train"]
    assert torch.bincount(validation.labels).tolist() == [1] * 100
    assert content(open_disk_set("cifar100", tmp_path, "test")) == made["test"]
    (root / "test.bin").write_bytes(records[:-1])
    assert "no whole number of 3074-byte records" in refusal("cifar100", tmp_path, "test")
    (root / "test.bin").write_bytes(b"")
    assert "no whole number" in refusal("cifar100", tmp_path, "test")


def test_cifar100_as_pickles_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "cifar-100-python"
    root.mkdir()
    for leaf in ("meta", "train", "test"):
        (root / leaf).write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    for base in (tmp_path, root):
        assert "get cifar-100-binary.tar.gz" in refusal("cifar100", base)
    assert not (tmp_path / "sprung").exists()


def test_stl10(tmp_path: Path) -> None:
    root = tmp_path / "stl10_binary"
    root.mkdir()
    names = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]
    (root / "class_names.txt").write_text("\n".join(names))
    made = {}
    for leaf, count in (("train", 20), ("test", 3)):
        pixels, labels = noise(count, 96, 96, 3), np.arange(count) % 10
        (root / f"{leaf}_y.bin").write_bytes((labels + 1).astype(np.uint8).tobytes())
        (root / f"{leaf}_X.bin").write_bytes(pixels.transpose(0, 3, 2, 1).tobytes())
        made[leaf] = expected([(pixels[n], names[labels[n]]) for n in range(count)])
    everything, validation = train_and_validation("stl10", tmp_path)
    assert everything == made["train"]
    assert torch.bincount(validation.labels).tolist() == [1] * 10
    assert content(open_disk_set("stl10", tmp_path, "test")) == made["test"]
    (root / "test_y.bin").write_bytes(bytes([0, 1, 2]))
    assert "outside its 10 classes" in refusal("stl10", tmp_path, "test")
    (root / "test_y.bin").write_bytes(bytes([1, 2]))
    assert "2 labels for 3 pictures" in refusal("stl10", tmp_path, "test")
