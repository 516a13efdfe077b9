import math
import threading
import weakref
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tests.models.tiny_clip import CLASSES, classifier, coalitions, pictures
from tests.models.tiny_vit import FAMILIES, MEAN, STD, maskable, network, small_cnn
from xai import games
from xai.core.errors import UserError
from xai.games import OneClass, PatchGame, split
from xai.models.maskable import Encoded, MaskableClassifier, PaintedClassifier, Removal, Rows, sort_rows

EXACT = {"rtol": 1e-6, "atol": 1e-6}  # values are float32
CLASSIFIERS: dict[str, Callable[[], MaskableClassifier]] = {
    "clip_tokens": lambda: classifier(Removal("tokens")),
    "clip_mean": lambda: classifier(Removal("pixels", "mean")),
    "clip_blur": lambda: classifier(Removal("pixels", "blur")),
    "vit_tokens": lambda: maskable(network(**FAMILIES["registers"]), Removal("tokens")),
    "vit_without_class_token": lambda: maskable(network(**FAMILIES["average_of_patches_only"]), Removal("tokens")),
    "vit_pixels": lambda: maskable(network(), Removal("pixels", "black")),
    "cnn_mean": lambda: PaintedClassifier(small_cnn(), (4, 4), MEAN, STD, Removal("pixels", "mean")),
    "cnn_blur": lambda: PaintedClassifier(small_cnn(), (4, 4), MEAN, STD, Removal("pixels", "blur")),
}


@pytest.fixture(params=CLASSIFIERS)
def model(request: pytest.FixtureRequest) -> MaskableClassifier:
    return CLASSIFIERS[request.param]().requires_grad_(False)


@pytest.fixture
def _one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks follow one another."""
    monkeypatch.setattr(games, "own_cores", lambda: 1)


def different(images: int = 3, rows: int = 12) -> Tensor:
    return torch.stack([coalitions(rows, seed) for seed in range(images)])


def naive(model: MaskableClassifier, images: Tensor, keep: Tensor, output: str = "probability") -> Tensor:
    """One call of the classifier for each image and coalition."""
    values = torch.zeros(*keep.shape[:2], CLASSES, dtype=torch.float64)
    for image in range(keep.shape[0]):
        for row in range(keep.shape[1]):
            logits = model(images[image : image + 1], keep[image, row : row + 1])[0]
            powers = (logits - logits.max()).exp()
            of = {"probability": powers / powers.sum(), "logit": logits, "centred_logit": logits - logits.mean()}
            values[image, row] = of[output]
    return values.float()


@pytest.mark.parametrize("output", ["probability", "logit", "centred_logit"])
def test_values_are_the_classifiers_answers(model: MaskableClassifier, output: str) -> None:
    images, keep = pictures(3), different()
    game = PatchGame(model, images, output=output)
    expected = naive(model, images, keep, output)
    torch.testing.assert_close(game.value(keep), expected, **EXACT)
    assert game.players == 16
    targets = torch.tensor([4, 0, 2])
    aimed = PatchGame(model, images, targets, output=output).value(keep)
    assert aimed.shape == (3, 12)
    for image, target in enumerate(targets.tolist()):
        torch.testing.assert_close(aimed[image], expected[image, :, target], **EXACT)
    if output == "probability":
        torch.testing.assert_close(game.value(keep).sum(-1), torch.ones(3, 12), **EXACT)


@pytest.mark.parametrize("cores", [1, 4])
def test_chunks_and_order_change_nothing(
    model: MaskableClassifier, monkeypatch: pytest.MonkeyPatch, cores: int
) -> None:
    images, keep = pictures(3), different()
    monkeypatch.setattr(games, "own_cores", lambda: cores)
    monkeypatch.setattr(games, "_SECONDS_WORTH_A_THREAD", 0.0)
    whole = PatchGame(model, images, tokens=10_000).value(keep)
    for tokens in (1, 7, 64, None):
        torch.testing.assert_close(PatchGame(model, images, tokens=tokens).value(keep), whole, **EXACT)
    shuffled = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    game = PatchGame(model, images, tokens=40)
    torch.testing.assert_close(game.value(keep[:, shuffled]), whole[:, shuffled], **EXACT)
    torch.testing.assert_close(game.value(keep[:, 4:5]), whole[:, 4:5], **EXACT)
    assert (whole[0] - whole[1]).abs().max() > 0.01


@pytest.mark.parametrize("tokens", [1, 7, 10_000])
def test_shared_coalitions_are_the_same_as_one_copy_an_image(model: MaskableClassifier, tokens: int) -> None:
    images, keep = pictures(3), coalitions(9)
    game = PatchGame(model, images, tokens=tokens)
    torch.testing.assert_close(game.value(keep), naive(model, images, keep.repeat(3, 1, 1)), **EXACT)
    torch.testing.assert_close(game.value(keep), game.value(keep.repeat(3, 1, 1)), **EXACT)


def cost(kept: int) -> int:
    return 2 + kept


@pytest.mark.parametrize("budget", [1, 2, 7, 30, 100, 100_000])
@pytest.mark.parametrize("seed", range(5))
def test_a_cut_holds_every_coalition_once_in_order_and_within_the_budget(seed: int, budget: int) -> None:
    keep = coalitions(40, seed)
    order, groups = sort_rows(keep)
    chunks = list(split(Rows(keep[order], order, groups), cost, budget))
    assert torch.equal(torch.cat([chunk.keep for chunk in chunks]), keep[order])
    assert torch.equal(torch.cat([chunk.owner for chunk in chunks]), order)
    spent = []
    for chunk in chunks:
        sizes = chunk.keep.sum(1).tolist()
        assert [size for count, size in chunk.groups for _ in range(count)] == sizes
        assert len({size for _, size in chunk.groups}) == len(chunk.groups)
        assert all(count > 0 for count, _ in chunk.groups)
        spent.append([cost(size) for size in sizes])
        assert sum(spent[-1]) <= budget or len(sizes) == 1
    # None could have taken the first of the next.
    assert all(sum(one) + following[0] > budget for one, following in pairwise(spent))


class Watched(MaskableClassifier):
    """Another classifier, whose passes are written down, and which may have no room for large ones."""

    def __init__(
        self, inner: MaskableClassifier, error: Exception | None = None, *, rows: int = 0, images: int = 0
    ) -> None:
        super().__init__()
        self.inner, self.grid = inner, inner.grid
        self._error, self._room = error, {"rows": rows, "images": images}
        self.encoded: list[int] = []
        self.decoded: list[Rows] = []
        self.failed: list[weakref.ref[Tensor]] = []
        self.held: list[bool] = []

    def encode(self, images: Tensor) -> Encoded:
        self.encoded.append(len(images))
        self._work(len(images), self._room["images"])
        return self.inner.encode(images)

    def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
        self.decoded.append(rows)
        self._work(len(rows.keep), self._room["rows"])
        return self.inner.decode(encoded, rows)

    def cost(self, kept: int) -> int:
        return self.inner.cost(kept)

    def _work(self, size: int, room: int) -> None:
        self.held.append(any(activations() is not None for activations in self.failed))
        if self._error and size > room:
            activations = torch.zeros(size)
            self.failed.append(weakref.ref(activations))
            # A new one each time, as torch raises them: an error holds on to the frames that it went through.
            raise type(self._error)(*self._error.args)


def test_no_pass_is_larger_than_asked_for_and_images_are_encoded_once() -> None:
    model = Watched(classifier(Removal("tokens")))
    game = PatchGame(model, pictures(3), tokens=20)
    game.value(different())
    game.value(different())
    assert model.encoded == [3]
    spent = [sum(count * (1 + size) for count, size in rows.groups) for rows in model.decoded]
    assert 17 <= max(spent) <= 20
    assert sum(spent) == 2 * int((1 + different().sum(2)).sum())


@pytest.mark.parametrize("removal", [Removal("tokens"), Removal("pixels", "blur")], ids=["tokens", "pixels"])
def test_nothing_is_read_back_from_the_device(removal: Removal) -> None:
    # Tensors of the meta device have shapes and no values: to wait for one of them is an error.
    for inner in (classifier(removal), maskable(network(**FAMILIES["registers"]), removal)):
        model = Watched(inner).to("meta")
        game = PatchGame(model, pictures(3).to("meta"), torch.tensor([1, 2, 0]), tokens=40)
        values = game.value(different())
        assert (values.device.type, values.shape, values.dtype) == ("meta", (3, 12), torch.float32)
        assert len(model.decoded) > 5
        assert all(rows.keep.device.type == rows.owner.device.type == "meta" for rows in model.decoded)
        assert sum(count for rows in model.decoded for count, _ in rows.groups) == 36


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes."),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    MemoryError(),
]


@pytest.mark.usefixtures("_one_core")
@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "cublas", "python"])
@pytest.mark.parametrize("tokens", [10_000, 18 * 17])
def test_a_pass_that_memory_does_not_hold_is_halved_and_so_are_those_after_it(error: Exception, tokens: int) -> None:
    inner = classifier(Removal("pixels"))
    model = Watched(inner, error, rows=5, images=3)
    game = PatchGame(model, pictures(3), tokens=tokens)
    torch.testing.assert_close(game.value(different()), naive(inner, pictures(3), different()), **EXACT)
    # Halved from 36 or 18 rows of 17 tokens to 4, once: what comes later is cut before it is tried.
    assert len(model.failed) == (3 if tokens == 10_000 else 2)
    assert len(model.encoded) == 1
    model.decoded.clear()
    torch.testing.assert_close(game.value(different()), naive(inner, pictures(3), different()), **EXACT)
    assert [len(rows.keep) for rows in model.decoded] == [4] * 9


@pytest.mark.parametrize("room", [1, 2, 3, 7])
def test_values_come_out_right_however_little_memory_there_is(
    model: MaskableClassifier, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    monkeypatch.setattr(games, "own_cores", lambda: 1)
    cramped = Watched(model, OUT_OF_MEMORY[0], rows=room, images=room)
    game = PatchGame(cramped, pictures(5), tokens=300)
    torch.testing.assert_close(game.value(different(5)), naive(model, pictures(5), different(5)), **EXACT)
    assert min(cramped.encoded) <= room
    assert cramped.failed
    # What a pass had computed when it failed is let go of before the next one starts.
    assert not any(cramped.held)


def test_cores_that_run_out_of_memory_together_come_out_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "own_cores", lambda: 4)
    monkeypatch.setattr(games, "_SECONDS_WORTH_A_THREAD", 0.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    inner = classifier(Removal("tokens"))
    game = PatchGame(Watched(inner, OUT_OF_MEMORY[1], rows=2, images=9), pictures(3), tokens=60)
    torch.testing.assert_close(game.value(different()), naive(inner, pictures(3), different()), **EXACT)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=["cuda", "cpu", "cublas", "python"])
@pytest.mark.parametrize(("what", "room"), [("encode", {"rows": 100, "images": 0}), ("decode", {"images": 100})])
def test_a_single_image_that_does_not_fit_is_told_in_one_line(
    error: Exception, what: str, room: dict[str, int]
) -> None:
    with pytest.raises(UserError) as caught:
        PatchGame(Watched(classifier(), error, **room), pictures(3)).value(different())
    assert str(caught.value) == f"not enough memory to {what} a single image: free some, or use a smaller model"
    assert type(caught.value.__cause__) is type(error)


@pytest.mark.parametrize("error", [RuntimeError("shapes"), UserError("a grid"), KeyError(1)])
@pytest.mark.parametrize("room", [{"rows": 100}, {"images": 100}], ids=["encode", "decode"])
@pytest.mark.usefixtures("_one_core")
def test_other_errors_pass_through_at_once(error: Exception, room: dict[str, int]) -> None:
    model = Watched(classifier(), error, **room)
    with pytest.raises(type(error)) as caught:
        PatchGame(model, pictures(3)).value(different())
    assert caught.value.args == error.args
    assert caught.value.__cause__ is None
    assert len(model.failed) == 1


@pytest.mark.parametrize(("mixed", "ours"), [(True, True), (False, True), (False, False)])
def test_workers_compute_as_their_caller_would(monkeypatch: pytest.MonkeyPatch, mixed: bool, ours: bool) -> None:
    monkeypatch.setattr(games, "own_cores", lambda: 4)
    monkeypatch.setattr(games, "_SECONDS_WORTH_A_THREAD", 0.0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    seen: list[tuple[bool, torch.dtype, bool]] = []
    workers = set()

    class Reporting(Watched):
        foreign = not ours

        def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
            workers.add(threading.get_ident())
            state = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu"), torch.is_inference_mode_enabled()
            seen.append(state)
            return super().decode(encoded, rows)

    inner = classifier(Removal("tokens")).float()
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
        values = PatchGame(Reporting(inner), pictures(3).float(), tokens=20).value(different())
        expected = PatchGame(inner, pictures(3).float(), tokens=10_000).value(different())
    assert set(seen) == {(mixed, torch.bfloat16, True)}
    # What a foreign network keeps while it runs, nobody knows.
    assert (workers == {threading.get_ident()}) != ours
    assert values.dtype == torch.float32
    exact = PatchGame(inner, pictures(3).float()).value(different())
    torch.testing.assert_close(values, expected, rtol=0.02 if mixed else 1e-5, atol=0.02 if mixed else 1e-5)
    assert torch.allclose(values, exact, rtol=1e-5, atol=1e-6) != mixed


def test_chunks_that_are_over_in_a_moment_are_left_to_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(games, "own_cores", lambda: 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    workers = set()

    class Reporting(Watched):
        foreign = False

        def decode(self, encoded: Encoded, rows: Rows) -> Tensor:
            workers.add(threading.get_ident())
            return super().decode(encoded, rows)

    model = Reporting(classifier(Removal("tokens")))
    for seconds in (math.inf, 0.0):
        monkeypatch.setattr(games, "_SECONDS_WORTH_A_THREAD", seconds)
        workers.clear()
        PatchGame(model, pictures(3), tokens=20).value(different())
        assert (len(workers) > 1) == (seconds == 0)


@pytest.mark.parametrize(
    "shape", [(2, 4, 16), (3, 4, 15), (4, 15), (16,), (3, 0, 16), (0, 16), (3, 2, 4, 16)], ids=lambda shape: str(shape)
)
def test_coalitions_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    game = PatchGame(classifier(), pictures(3))
    with pytest.raises(ValueError, match=r"the game needs torch.bool \[3, S, 16\]"):
        game.value(torch.ones(shape, dtype=torch.bool))


def test_numbers_in_the_place_of_coalitions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"coalitions are torch\.float32"):
        PatchGame(classifier(), pictures(1)).value(torch.ones(1, 2, 16))


def test_one_class_of_several_is_the_game_of_that_class_and_nothing_is_asked_twice() -> None:
    images, both = pictures(3), torch.tensor([[1, 0], [2, 2], [0, 4]])
    game, answers = PatchGame(classifier(), images, both), dict[bytes, Tensor]()
    first, second = (OneClass(game, column, answers) for column in range(2))
    for asked in (different(), different()[0]):
        before = len(answers)
        for column, one in enumerate((first, second)):
            assert torch.equal(one.value(asked), PatchGame(classifier(), images, both[:, column]).value(asked))
        assert len(answers) == before + 1


@pytest.mark.parametrize("targets", [torch.tensor([1]), torch.tensor([1, 2, 3, 4]), torch.tensor(1)])
def test_targets_are_one_for_each_image(targets: Tensor) -> None:
    with pytest.raises(ValueError, match="one class for each of 3 images"):
        PatchGame(classifier(), pictures(3), targets)


def test_an_unknown_output_is_refused() -> None:
    with pytest.raises(ValueError, match="output='odds' is unknown"):
        PatchGame(classifier(), pictures(1), output="odds")
