"""Running averages and Lookahead against their formulas, in float64, with normalization's statistics."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from search.training.averaging import Lookahead, RunningAverage

STEPS = 12


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double()


def floats(network: nn.Module) -> np.ndarray:
    values = [v.flatten() for v in network.state_dict().values() if v.is_floating_point()]
    return torch.cat(values).numpy().copy()


def move(network: nn.Module, by: np.ndarray) -> None:
    """One step of training, as far as an average can tell: weights and statistics move."""
    position = 0
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            value += torch.from_numpy(by[position : position + value.numel()]).view_as(value)
            position += value.numel()
        else:
            assert name.endswith("num_batches_tracked")
            value += 1


def moves(network: nn.Module) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(STEPS, len(floats(network))))


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_a_running_average_decays_by_at_most_its_decay(network, decay):
    average = RunningAverage(network, decay)
    expected = floats(network)
    for t, by in enumerate(moves(network), start=1):
        move(network, by)
        average.update()
        d = min(decay, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * floats(network)
        np.testing.assert_allclose(floats(average.network), expected, rtol=1e-6, atol=1e-6)
    assert average.network[1].num_batches_tracked == STEPS


def test_a_step_loses_half_its_weight_in_a_half_life(network):
    average = RunningAverage(network, 0.9)
    average._steps += 1000  # far beyond the first steps, when the average is over fewer
    before = floats(average.network)
    half_life = np.log(2) / -np.log(0.9)
    move(network, np.ones(len(before)))
    for _ in range(round(half_life)):
        average.update()
    gone = (floats(average.network) - before).mean()
    assert gone == pytest.approx(1 - 0.9 ** round(half_life), rel=1e-5)
    assert gone == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("decline", ["constant", "cubic"])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_lookahead_follows_its_algorithm(network, decline, share):
    lookahead = Lookahead(network, 4, share, decline, STEPS)
    slow = fast = floats(network)
    for t, by in enumerate(moves(network), start=1):
        move(network, by)
        fast = fast + by
        if t % lookahead.every == 0:
            lookahead.update()
            now = share if decline == "constant" else 1 - (1 - share) * (t / STEPS) ** 3
            slow = slow + now * (fast - slow)
            fast = slow
        np.testing.assert_allclose(floats(network), fast, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(floats(lookahead.network), slow, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "make", [lambda n: RunningAverage(n, 0.9), lambda n: Lookahead(n, 4, 0.5, "cubic", STEPS)]
)
def test_an_average_goes_on_from_its_state(network, make):
    average = make(network)
    steps = moves(network)
    for by in steps[:6]:
        move(network, by)
        average.update()
    other_network = copy.deepcopy(network)
    other = make(other_network)
    other.load_state_dict(copy.deepcopy(average.state_dict()))
    for by in steps[6:]:
        for trained, follower in ((network, average), (other_network, other)):
            move(trained, by)
            follower.update()
    np.testing.assert_array_equal(floats(other.network), floats(average.network))
    np.testing.assert_array_equal(floats(other_network), floats(network))


def test_averages_need_no_gradient_and_leave_the_trained_networks_alone(network):
    average = RunningAverage(network, 0.9)
    assert not any(parameter.requires_grad for parameter in average.network.parameters())
    assert all(parameter.requires_grad for parameter in network.parameters())
