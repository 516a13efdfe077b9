import pytest
import torch
from torch import Tensor

from tests.ranking.toys import MEAN, Toy, drawn, params, published_step, question
from tests.toolbox import randn, seeded
from xai.core.errors import UserError
from xai.ranking.areas import peak_penalty
from xai.ranking.objective import Draw, Objective, ObjectiveParams, Question, draw, judge, training_targets

HEIGHT, WIDTH = 12, 10


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy(HEIGHT, WIDTH).requires_grad_(False)


def maps(seed: int = 5) -> Tensor:
    return randn(2, HEIGHT, WIDTH, seed=seed)


def ours(
    toy: Toy, settings: ObjectiveParams, random: Draw, temperature: float = 1.0, start: Tensor | None = None
) -> tuple[Objective, Tensor]:
    leaf = (maps() if start is None else start).clone().requires_grad_()
    judged = judge(leaf, question(toy, HEIGHT, WIDTH), toy, MEAN, settings, random, temperature)
    (gradient,) = torch.autograd.grad(judged.loss.sum(), leaf)
    return judged, gradient


def published(
    toy: Toy, settings: ObjectiveParams, random: Draw, temperature: float = 1.0, exact_end: bool = False
) -> tuple[Objective, Tensor]:
    leaf = maps().requires_grad_()
    judged = published_step(leaf, question(toy, HEIGHT, WIDTH), toy, settings, random, temperature, exact_end)
    (gradient,) = torch.autograd.grad(judged.loss.sum(), leaf)
    return judged, gradient


@pytest.mark.parametrize("steps", [3, 8])
@pytest.mark.parametrize("grid", [3, 5])
@pytest.mark.parametrize("reference", ["black", "mean", "blur"])
def test_loss_and_gradient_are_those_of_the_published_step(toy: Toy, reference: str, grid: int, steps: int) -> None:
    """Sinkhorn converges here, so that the published last mask is the reference alone, as ours is."""
    settings, random = params(steps=steps, iterations=300), drawn(grid, reference)
    judged, gradient = ours(toy, settings, random)
    as_published, expected = published(toy, settings, random)
    torch.testing.assert_close(judged, as_published, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-8)
    assert expected.abs().max() > 1e-4


@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_at_thirty_iterations_all_but_the_last_mask_is_as_published(toy: Toy, temperature: float) -> None:
    random = drawn(5, "blur")
    judged, gradient = ours(toy, params(), random, temperature)
    as_published, expected = published(toy, params(), random, temperature, exact_end=True)
    torch.testing.assert_close(judged, as_published, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-8)
    literal, _ = published(toy, params(), random, temperature)
    torch.testing.assert_close(judged, literal, rtol=0, atol=1e-3)


def test_masks_are_clamped_as_published_where_sinkhorn_has_not_come_far(toy: Toy) -> None:
    """Cells that differ by 14 leave columns of a soft order far from 1, and without clamps the gradient 13 % off."""
    random, steep, settings = drawn(5, "blur"), 30 * maps(), params(peak_weight=0.0)
    _, gradient = ours(toy, settings, random, 0.3, start=steep)
    found = []
    for clamped in (True, False):
        leaf = steep.clone().requires_grad_()
        judged = published_step(
            leaf, question(toy, HEIGHT, WIDTH), toy, settings, random, 0.3, exact_end=True, clamped=clamped
        )
        found.append(torch.autograd.grad(judged.loss.sum(), leaf)[0])
    torch.testing.assert_close(gradient, found[0], rtol=1e-4, atol=1e-8)
    assert (found[1] - found[0]).norm() > 0.08 * found[0].norm()


def test_the_mean_is_the_classifiers_or_the_one_that_is_named(toy: Toy) -> None:
    random, asked = drawn(5, "mean"), question(toy, HEIGHT, WIDTH)
    named = params(mean=(0.485, 0.456, 0.406))
    one, other = (judge(maps(), asked, toy, mean, named, random, 1.0) for mean in (MEAN, torch.rand(3)))
    torch.testing.assert_close(one, other, rtol=0, atol=0)
    expected = judge(maps(), asked, toy, torch.tensor(named.mean or ()), params(), random, 1.0)
    torch.testing.assert_close(one, expected, rtol=0, atol=0)
    assert not torch.equal(one.loss, judge(maps(), asked, toy, MEAN, params(), random, 1.0).loss)


def test_loss_is_made_of_its_parts(toy: Toy) -> None:
    judged, _ = ours(toy, params(peak_weight=0.5), drawn(5, "black"))
    torch.testing.assert_close(judged.loss, judged.deletion + 1 - judged.insertion + 0.5 * judged.peaks)
    torch.testing.assert_close(judged.peaks, peak_penalty(maps(), 5))
    assert judged.peaks.min() > 0


def test_insertion_of_a_map_is_deletion_of_its_negative(toy: Toy) -> None:
    random = drawn(5, "black")
    swapped = Draw(random.grid, random.reference, random.noise.flip(0))
    judged, _ = ours(toy, params(), random)
    opposite, _ = ours(toy, params(), swapped, start=-maps())
    torch.testing.assert_close(opposite.deletion, judged.insertion)
    torch.testing.assert_close(opposite.insertion, judged.deletion)


def test_images_do_not_influence_each_other(toy: Toy) -> None:
    random, asked = drawn(5, "blur"), question(toy, HEIGHT, WIDTH)
    together, _ = ours(toy, params(), random)
    for image in range(2):
        only = slice(image, image + 1)
        alone = Draw(random.grid, random.reference, random.noise[:, only])
        one = Question(*(part[only] for part in asked))
        judged = judge(maps()[only], one, toy, MEAN, params(), alone, 1.0)
        torch.testing.assert_close(judged.loss, together.loss[only])


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.3), (0.99, 0.0)])
def test_a_shifted_grid_is_a_cell_larger_and_the_image_begins_within_it(toy: Toy, shift: tuple[float, float]) -> None:
    settings, random = params(iterations=300), drawn(4, "black")._replace(shift=shift)
    judged, gradient = ours(toy, settings, random)
    as_published, expected = published(toy, settings, random)
    torch.testing.assert_close(judged, as_published, rtol=0, atol=1e-6)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-8)
    unshifted, _ = ours(toy, settings, drawn(4, "black"))
    assert (judged.loss - unshifted.loss).abs().max() > 1e-4


def test_draws_are_uniform_over_grids_and_references() -> None:
    generator, settings = seeded(), params(shift=True)
    draws = [draw(settings, 1, generator) for _ in range(900)]
    for values, names in (([d.grid for d in draws], [3, 4, 5]), ([d.reference for d in draws], settings.references)):
        counts = [values.count(name) for name in names]
        assert sum(counts) == 900
        assert all(abs(count - 300) < 4 * (900 * 2 / 9) ** 0.5 for count in counts)
    shifts = torch.tensor([d.shift for d in draws])
    assert shifts.min() >= 0
    assert 0.98 < shifts.max() < 1
    assert shifts.mean(0).tolist() == pytest.approx([0.5, 0.5], abs=0.04)


def test_noise_comes_from_a_source_of_its_own_where_there_is_one() -> None:
    draws = [draw(params(shift=True), 2, seeded(1), seeded(own)) for own in (2, 3)]
    assert draws[0].noise.shape == (2, 2, draws[0].grid ** 2, draws[0].grid ** 2)
    assert (draws[0].grid, draws[0].reference, draws[0].shift) == (draws[1].grid, draws[1].reference, draws[1].shift)
    assert not torch.equal(draws[0].noise, draws[1].noise)
    assert not torch.equal(draws[0].noise[0], draws[0].noise[1])
    assert draw(params(), 1, seeded()).shift is None


def test_training_targets_are_the_prediction_and_its_rival() -> None:
    logits = torch.tensor([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0], [0.0, 1.0, 2.0]])
    assert training_targets(logits, torch.tensor([0, 2, 1])).tolist() == [[0, 1], [0, 2], [2, 1]]


@pytest.mark.parametrize("reference", ["black", "mean", "blur"])
def test_what_was_made_in_inference_mode_can_be_judged(toy: Toy, reference: str) -> None:
    expected, expected_gradient = ours(toy, params(), drawn(5, reference))
    with torch.inference_mode():
        asked, random, mean = question(toy, HEIGHT, WIDTH), drawn(5, reference), MEAN.clone()
        judged = judge(maps(), asked, toy, mean, params(), random, 1.0)
    torch.testing.assert_close(judged.loss.clone(), expected.loss)
    leaf = maps().requires_grad_()
    judged = judge(leaf, asked, toy, mean, params(), random, 1.0)
    judged.loss.sum().backward()
    torch.testing.assert_close(leaf.grad, expected_gradient)


@pytest.mark.parametrize("reference", ["black", "mean", "blur"])
def test_autocast_is_the_classifiers_alone(reference: str) -> None:
    toy = Toy(HEIGHT, WIDTH, dtype=torch.float32).requires_grad_(False)
    asked = Question(
        *(part.float() if part.is_floating_point() else part for part in question(toy.double(), HEIGHT, WIDTH))
    )
    toy.float()

    saw_autocast = []

    def in_float32(images: Tensor) -> Tensor:
        saw_autocast.append(torch.is_autocast_enabled("cpu"))
        with torch.autocast("cpu", enabled=False):
            return toy(images)

    def both() -> tuple[Tensor, Tensor]:
        leaf = maps().float().requires_grad_()
        random = drawn(5, reference)
        judged = judge(leaf, asked, in_float32, MEAN, params(), random._replace(noise=random.noise.float()), 0.3)
        with torch.autocast("cpu", enabled=False):
            (gradient,) = torch.autograd.grad(judged.loss.sum(), leaf)
        return judged.loss, gradient

    expected = both()
    assert not any(saw_autocast)
    saw_autocast.clear()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = both()
    assert saw_autocast
    assert all(saw_autocast)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_map_without_order_is_refused_in_one_line(toy: Toy, bad: float) -> None:
    broken = maps()
    broken[1, 3, 3] = bad
    with pytest.raises(UserError, match=r"^the batch's maps of rows 1 hold NaN or infinity: nothing to rank$"):
        ours(toy, params(), drawn(5, "black"), start=broken)


def test_a_grid_finer_than_the_image_is_refused_in_one_line(toy: Toy) -> None:
    with pytest.raises(UserError, match=r"^a grid of 11 x 11 cells .* 12 x 10 px: use 2 to 10 cells a side$"):
        ours(toy, params(), drawn(11, "black"))


@pytest.mark.parametrize("wrong", [-1, 4])
def test_a_class_out_of_range_is_refused_in_one_line(toy: Toy, wrong: int) -> None:
    asked = question(toy, HEIGHT, WIDTH)
    asked.targets[1, 1] = wrong
    with pytest.raises(UserError, match=f"^class {wrong} is unknown: .* 0 to 3$"):
        judge(maps(), asked, toy, MEAN, params(), drawn(5, "black"), 1.0)


@pytest.mark.parametrize("shape", [(2, 12, 9), (1, 12, 10)])
def test_maps_of_another_size_than_the_images_are_refused_with_both(toy: Toy, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"maps are \[.*\] and images \[2, 3, 12, 10\]"):
        judge(torch.zeros(shape), question(toy, HEIGHT, WIDTH), toy, MEAN, params(), drawn(5, "black"), 1.0)


def test_images_too_small_for_the_settings_are_refused_in_one_line() -> None:
    params(grid_max=8, peak_window=15).check_size(8, 9)
    with pytest.raises(UserError, match=r"^a grid of 8 x 8 cells does not fit an image of 7 x 9 px: .*$"):
        params(grid_max=8).check_size(7, 9)
    with pytest.raises(UserError, match=r"^objective.peak_window=15 does not fit .* 7 x 9 px: use at most 13$"):
        params(peak_window=15).check_size(7, 9)
