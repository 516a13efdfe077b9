import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tests.ranking.toys import MEAN, Toy, params, question
from tests.toolbox import randn, seeded
from xai.ranking.objective import draw, judge
from xai.ranking.refinement import Refinement, RefinementParams

HEIGHT, WIDTH = 12, 10


@pytest.fixture(scope="module")
def toy() -> Toy:
    return Toy(HEIGHT, WIDTH)


def refinement(**changes: float) -> RefinementParams:
    settings = {"steps": 3, "draws": 4, "size": 0.5, "sigma": 1.0, "temperature": 0.5, "learning_rate": 0.1}
    return RefinementParams(**{**settings, **changes})


def maps() -> Tensor:
    return randn(2, HEIGHT, WIDTH, seed=5)


def refined(toy: Toy, start: Tensor, settings: RefinementParams, seed: int = 0) -> list[Tensor]:
    return Refinement(toy, MEAN, params(), settings).of_maps(question(toy, HEIGHT, WIDTH), start, seeded(seed))


def loss(toy: Toy, of: Tensor) -> float:
    """Mean over the images and over draws that refinement has not seen."""
    generator, asked = seeded(99), question(toy, HEIGHT, WIDTH)
    with torch.no_grad():
        draws = [draw(params(), 2, generator) for _ in range(10)]
        return torch.stack([judge(of, asked, toy, MEAN, params(), one, 0.5).loss.mean() for one in draws]).mean().item()


class Network:
    """Maps that are a linear function of a few parameters."""

    def __init__(self) -> None:
        self.weight = (0.1 * randn(2, 40, seed=6)).requires_grad_()
        self.other = torch.ones((), dtype=torch.float64, requires_grad=True)
        self.calls = 0

    def __call__(self) -> Tensor:
        self.calls += 1
        return self.other * (self.weight @ randn(40, HEIGHT * WIDTH, seed=7)).unflatten(1, (HEIGHT, WIDTH))


def refined_network(toy: Toy, network: Network, settings: RefinementParams, seed: int = 0) -> list[Tensor]:
    asked = question(toy, HEIGHT, WIDTH)
    return Refinement(toy, MEAN, params(), settings).of_network(asked, [network.weight], network, seeded(seed))


def test_the_first_map_is_what_came_and_each_step_improves_the_objective(toy: Toy) -> None:
    found = refined(toy, maps(), refinement())
    assert len(found) == 4
    assert torch.equal(found[0], maps())
    losses = [loss(toy, one) for one in found]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[-1] > 0.01


def test_without_steps_maps_stay_as_they_are(toy: Toy) -> None:
    (only,) = refined(toy, maps(), refinement(steps=0))
    assert torch.equal(only, maps())


@pytest.mark.parametrize("sigma", [0.0, 1.0, 2.0])
def test_a_step_goes_down_the_smoothed_gradient_as_far_as_asked_for(toy: Toy, sigma: float) -> None:
    _, second = refined(toy, maps(), refinement(steps=1, draws=1, sigma=sigma, size=0.3))
    asked, drawn, leaf = question(toy, HEIGHT, WIDTH), draw(params(), 2, seeded()), maps().requires_grad_()
    judge(leaf, asked, toy, MEAN, params(), drawn, 0.5).loss.sum().backward()
    for image in range(2):
        slope = leaf.grad[image]
        if sigma:
            smooth = gaussian_filter(slope.numpy(), sigma, mode="mirror", radius=round(3 * sigma))
            slope = torch.from_numpy(smooth)
        expected = maps()[image] - 0.3 * maps()[image].std() * slope / slope.std()
        torch.testing.assert_close(second[image], expected)


def test_draws_are_averaged(toy: Toy) -> None:
    generator, asked, leaf = seeded(), question(toy, HEIGHT, WIDTH), maps().requires_grad_()
    for _ in range(3):
        judge(leaf, asked, toy, MEAN, params(), draw(params(), 2, generator), 0.5).loss.sum().backward()
    _, second = refined(toy, maps(), refinement(steps=1, draws=3, sigma=0.0))
    for image in range(2):
        moved, slope = (second - maps())[image].flatten(), leaf.grad[image].flatten()
        assert torch.cosine_similarity(moved, -slope, dim=0).item() == pytest.approx(1)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_the_scale_of_a_map_is_the_scale_of_its_steps(toy: Toy, scale: float) -> None:
    first, second = refined(toy, scale * maps(), refinement(steps=1, size=0.5))
    torch.testing.assert_close((second - first).flatten(1).std(1), 0.5 * first.flatten(1).std(1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("level", [0.0, 0.1, 1e4])
def test_a_constant_map_can_be_refined(toy: Toy, level: float, dtype: torch.dtype) -> None:
    flat = torch.full((2, HEIGHT, WIDTH), level, dtype=dtype)
    found = refined(toy, flat, refinement(steps=1))
    assert (found[1] - flat).flatten(1).std(1).min() > 0.1
    assert loss(toy, found[1]) < loss(toy, flat)


def test_images_are_refined_apart(toy: Toy) -> None:
    """A map of the first image that nobody would believe changes nothing for the second."""
    other = maps()
    other[0] *= 100
    found, expected = refined(toy, other, refinement())[-1], refined(toy, maps(), refinement())[-1]
    torch.testing.assert_close(found[1], expected[1])
    assert not torch.allclose(found[0] / 100, expected[0])


def test_a_generator_decides_everything(toy: Toy) -> None:
    first = refined(toy, maps(), refinement())[-1]
    assert torch.equal(first, refined(toy, maps(), refinement())[-1])
    assert not torch.equal(first, refined(toy, maps(), refinement(), seed=1)[-1])


def test_a_smoothing_wider_than_the_image_is_cut(toy: Toy) -> None:
    assert refined(toy, maps(), refinement(sigma=50.0))[-1].isfinite().all()


@pytest.mark.parametrize("mode", [torch.inference_mode, torch.no_grad])
def test_refinement_works_where_gradients_are_off(toy: Toy, mode: type) -> None:
    expected, expected_of_network = refined(toy, maps(), refinement()), refined_network(toy, Network(), refinement())
    network = Network()
    with mode():
        found = refined(toy, maps(), refinement())
        found_of_network = refined_network(toy, network, refinement())
    torch.testing.assert_close([one.clone() for one in found], expected)
    torch.testing.assert_close([one.clone() for one in found_of_network], expected_of_network)


def test_each_step_of_a_network_improves_the_objective(toy: Toy) -> None:
    network = Network()
    with torch.no_grad():
        start = network()
    found = refined_network(toy, network, refinement())
    assert len(found) == 4
    assert torch.equal(found[0], start)
    assert torch.equal(found[-1], network())
    assert not any(one.requires_grad for one in found)
    losses = [loss(toy, one) for one in found]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] - losses[-1] > 0.005


def test_a_network_is_asked_once_a_step(toy: Toy) -> None:
    network = Network()
    refined_network(toy, network, refinement(steps=3, draws=5))
    assert network.calls == 4


def test_a_step_of_a_network_is_one_of_adam(toy: Toy) -> None:
    network, twin = Network(), Network()
    refined_network(toy, network, refinement(steps=1, draws=2, learning_rate=0.02))
    generator, asked = seeded(), question(toy, HEIGHT, WIDTH)
    for _ in range(2):
        judge(twin(), asked, toy, MEAN, params(), draw(params(), 2, generator), 0.5).loss.mean().backward()
    # Adam's first step is as long whatever the gradient is, as long as that is not tiny.
    slope = twin.weight.grad / 2
    torch.testing.assert_close(network.weight, twin.weight - 0.02 * slope / (slope.abs() + 1e-8))


def test_without_steps_a_network_stays_as_it_is(toy: Toy) -> None:
    network = Network()
    (only,) = refined_network(toy, network, refinement(steps=0))
    assert torch.equal(only, network().detach())
    assert torch.equal(network.weight, Network().weight)


def test_nothing_but_the_parameters_given_changes_or_collects_a_gradient(toy: Toy) -> None:
    before, network = {name: value.clone() for name, value in toy.state_dict().items()}, Network()
    refined(toy, maps(), refinement())
    refined_network(toy, network, refinement())
    assert all(torch.equal(value, before[name]) for name, value in toy.state_dict().items())
    assert all(parameter.grad is None for parameter in toy.parameters())
    assert network.other.grad is None
    assert network.other.item() == 1
