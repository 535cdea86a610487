"""Each optimizer against its published update, written out in NumPy, and against torch's own; what a step
launches; and that a training goes on from a saved state as if it had not stopped."""

import io
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from search.training.muon import orthogonalize
from search.training.optimizers import build_optimizer, full_rate, optimizers
from spaces import config

LR, DECAY, STEPS = 0.03, 0.02, 6


def sgd(w, gradients, nesterov):
    velocity = np.zeros_like(w)
    for t, gradient in enumerate(gradients(), start=1):
        g = gradient(w) + DECAY * w
        velocity = g if t == 1 else 0.9 * velocity + g
        w = w - LR * (g + 0.9 * velocity if nesterov else velocity)
    return w


def adaptive(w, gradients, name):
    m, v, mu_product = np.zeros_like(w), np.zeros_like(w), 1.0
    for t, gradient in enumerate(gradients(), start=1):
        g = gradient(w) + (0 if name == "adamw" else DECAY * w)
        if name == "adamw":
            w = w * (1 - LR * DECAY)
        m = 0.9 * m + 0.1 * g
        if name == "adamax":
            v = np.maximum(0.99 * v, np.abs(g) + 1e-8)
            w = w - LR / (1 - 0.9**t) * m / v
            continue
        v = 0.99 * v + 0.01 * g * g
        v_hat = v / (1 - 0.99**t)
        if name == "nadam":
            mu, mu_next = 0.9 * (1 - 0.5 * 0.96 ** (t * 0.004)), 0.9 * (1 - 0.5 * 0.96 ** ((t + 1) * 0.004))
            mu_product *= mu
            m_hat = mu_next * m / (1 - mu_product * mu_next) + (1 - mu) * g / (1 - mu_product)
        else:
            m_hat = m / (1 - 0.9**t)
        w = w - LR * m_hat / (np.sqrt(v_hat) + 1e-8)
    return w


def rmsprop(w, gradients):
    v = np.zeros_like(w)
    for gradient in gradients():
        g = gradient(w) + DECAY * w
        v = 0.95 * v + 0.05 * g * g
        w = w - LR * g / (np.sqrt(v) + 1e-8)
    return w


def radam(w, gradients):
    """Liu et al. 2020 (arXiv:1908.03265), algorithm 2; torch rectifies above a length of 5, not of 4."""
    m, v, longest = np.zeros_like(w), np.zeros_like(w), 2 / (1 - 0.9) - 1
    for t, gradient in enumerate(gradients(), start=1):
        g = gradient(w) + DECAY * w
        m, v = 0.9 * m + 0.1 * g, 0.9 * v + 0.1 * g * g
        length = longest - 2 * t * 0.9**t / (1 - 0.9**t)
        step = m / (1 - 0.9**t)
        if length > 5:
            rectified = (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            step = step * rectified**0.5 * (1 - 0.9**t) ** 0.5 / (np.sqrt(v) + 1e-8)
        w = w - LR * step
    return w


def adagrad(w, gradients):
    total = np.zeros_like(w)
    for gradient in gradients():
        g = gradient(w) + DECAY * w
        total = total + g * g
        w = w - LR * g / (np.sqrt(total) + 1e-10)
    return w


def adadelta(w, gradients):
    """Zeiler 2012 (arXiv:1212.5701), algorithm 1, times the learning rate."""
    squares, steps = np.zeros_like(w), np.zeros_like(w)
    for gradient in gradients():
        g = gradient(w) + DECAY * w
        squares = 0.8 * squares + 0.2 * g * g
        step = np.sqrt(steps + 1e-6) / np.sqrt(squares + 1e-6) * g
        steps = 0.8 * steps + 0.2 * step * step
        w = w - LR * step
    return w


CASES = {
    "sgd": (
        config.SGD(lr=LR, momentum=0.9, nesterov=False, weight_decay=DECAY),
        lambda w, g: sgd(w, g, False),
    ),
    "nesterov": (
        config.SGD(lr=LR, momentum=0.9, nesterov=True, weight_decay=DECAY),
        lambda w, g: sgd(w, g, True),
    ),
    "rmsprop": (config.RMSprop(lr=LR, alpha=0.95, weight_decay=DECAY), rmsprop),
    "radam": (config.RAdam(lr=LR, beta2=0.9, weight_decay=DECAY), radam),
    "adagrad": (config.Adagrad(lr=LR, weight_decay=DECAY), adagrad),
    "adadelta": (config.Adadelta(lr=LR, rho=0.8, weight_decay=DECAY), adadelta),
    **{
        section.name: (section, lambda w, g, name=section.name: adaptive(w, g, name))
        for section in (
            kind(lr=LR, beta2=0.99, weight_decay=DECAY)
            for kind in (config.Adam, config.AdamW, config.NAdam, config.Adamax)
        )
    },
}


@pytest.mark.parametrize("case", CASES)
def test_updates_follow_the_published_rule(case):
    section, by_hand = CASES[case]
    target = np.random.default_rng(0).normal(size=(3, 4))
    layer = nn.Linear(4, 3, bias=False).double()
    start = layer.weight.detach().numpy().copy()
    optimizer = build_optimizer(section, layer, torch.tensor(LR))
    for _ in range(STEPS):
        optimizer.zero_grad()
        (0.5 * (layer.weight - torch.from_numpy(target)) ** 2).sum().backward()
        optimizer.step()
    expected = by_hand(start, lambda: [lambda w: w - target] * STEPS)
    # the rate is a float32 tensor, hence seven digits
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=2e-6, atol=1e-7)


SECTIONS = {section().name: section for section in get_args(get_args(config.Optimizer)[0])}


def test_every_optimizer_of_the_configuration_has_a_builder():
    assert set(optimizers) == set(SECTIONS)


class Parameters(nn.Module):
    """Parameters of these shapes, drawn at random."""

    def __init__(self, *shapes):
        super().__init__()
        draw = torch.Generator().manual_seed(0)
        self.each = nn.ParameterList([torch.randn(shape, generator=draw) for shape in shapes])


MIXED = ((5, 3), (7,), (2, 3, 3, 3), (1,), (4, 4), (4, 4), (3, 5), (6,), (2, 9))
NEVER_TRAINED, FROZEN_LATER, MATRICES_BEGIN, FREEZING = (0, 1), (2, 3, 4), 2, 7


def set_gradients(parameters, step):
    """The same ones whenever it is called; none for some parameters, at some steps or ever."""
    draw = torch.Generator().manual_seed(step)
    for index, parameter in enumerate(parameters):
        gradient = torch.randn(parameter.shape, generator=draw)
        begun = parameter.ndim == 1 or step >= MATRICES_BEGIN
        stopped = index in NEVER_TRAINED or (index in FROZEN_LATER and step >= FREEZING)
        parameter.grad = gradient if begun and not stopped else None


THEIRS = {
    "nadam": torch.optim.NAdam,
    "radam": torch.optim.RAdam,
    "adamax": torch.optim.Adamax,
    "adagrad": torch.optim.Adagrad,
}


@pytest.mark.parametrize("beta2", [0.5, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", THEIRS)
def test_updates_are_those_of_torch_whichever_parameters_have_gradients(name, decay, beta2):
    """RAdam never rectifies at 0.5 and 0.6 and begins to after a few steps at 0.9 and 0.999."""
    ours, theirs = Parameters(*MIXED), Parameters(*MIXED)
    betas = {} if name == "adagrad" else {"beta2": beta2}
    optimizer = build_optimizer(SECTIONS[name](lr=LR, weight_decay=decay, **betas), ours, torch.tensor(LR))
    expected = THEIRS[name](
        [
            {"params": [p for p in theirs.each if p.ndim > 1], "weight_decay": decay},
            {"params": [p for p in theirs.each if p.ndim == 1]},
        ],
        lr=LR,
        **({"betas": (0.9, beta2)} if betas else {}),
    )
    for step in range(12):
        for one, module in ((optimizer, ours), (expected, theirs)):
            set_gradients(module.each, step)
            one.step()
    torch.testing.assert_close(list(ours.each), list(theirs.each), rtol=1e-6, atol=3e-7)


@pytest.mark.parametrize("name", optimizers)
def test_a_parameter_without_a_gradient_neither_moves_nor_decays(name):
    module = Parameters(*MIXED)
    optimizer = build_optimizer(SECTIONS[name](weight_decay=0.1), module, torch.tensor(LR))
    before = [parameter.detach().clone() for parameter in module.each]
    for step in range(FREEZING + 3):
        if step == FREEZING:
            frozen = [module.each[index].detach().clone() for index in FROZEN_LATER]
        set_gradients(module.each, step)
        optimizer.step()
    moved = [not torch.equal(parameter, kept) for parameter, kept in zip(module.each, before, strict=True)]
    assert moved == [index not in NEVER_TRAINED for index in range(len(MIXED))]
    for index, kept in zip(FROZEN_LATER, frozen, strict=True):
        assert torch.equal(module.each[index], kept)


def train(module, optimizer, lr, steps):
    for step in steps:
        lr.fill_(LR / (1 + step))
        set_gradients(module.each, step)
        optimizer.step()


def saved_and_loaded(value):
    file = io.BytesIO()
    torch.save(value, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.parametrize("interrupted", [1, MATRICES_BEGIN + 1, FREEZING + 1])
@pytest.mark.parametrize("name", optimizers)
def test_a_training_goes_on_from_its_saved_state_bit_for_bit(name, interrupted):
    """Also from a state in which some parameters have none yet, and others none to come."""
    section, whole, lr = SECTIONS[name](weight_decay=0.1), Parameters(*MIXED), torch.tensor(LR)
    optimizer = build_optimizer(section, whole, lr)
    train(whole, optimizer, lr, range(interrupted))
    state = saved_and_loaded((whole.state_dict(), optimizer.state_dict()))
    train(whole, optimizer, lr, range(interrupted, 12))

    resumed, lr = Parameters(*MIXED), torch.tensor(LR)
    optimizer = build_optimizer(section, resumed, lr)
    train(resumed, optimizer, lr, range(3))  # which the state must replace
    resumed.load_state_dict(state[0])
    optimizer.load_state_dict(state[1])
    lr = optimizer.param_groups[0]["lr"]
    for group in optimizer.param_groups:
        group["lr"] = lr
    train(resumed, optimizer, lr, range(interrupted, 12))
    for one, other in zip(whole.each, resumed.each, strict=True):
        assert torch.equal(one, other)


class Counting(TorchDispatchMode):
    """Counts operations: all of them, and those that are more than another view of the same memory."""

    def __init__(self):
        super().__init__()
        self.all = self.launched = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace != "profiler":
            self.all += 1
            self.launched += not function.is_view
        return function(*args, **kwargs or {})


MOST_LAUNCHED = {"adagrad": 11, "adamax": 25, "nadam": 59, "radam": 63, "muon": 54}
"""Operations of a step of two groups, of which one decays; of Muon for matrices of two shapes."""


@pytest.mark.parametrize("matrices", [2, 5])
@pytest.mark.parametrize("vectors", [1, 20])
@pytest.mark.parametrize("name", MOST_LAUNCHED)
def test_a_step_takes_as_few_operations_for_many_parameters_as_for_few(name, matrices, vectors):
    module = Parameters(*[(8, 4, 3, 3)] * matrices, *[(16, 8)] * matrices, *[(8,)] * vectors, (10, 16))
    optimizer = build_optimizer(SECTIONS[name](weight_decay=0.1), module, torch.tensor(LR))
    for parameter in module.each:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # makes what is kept
    with Counting() as operations:
        optimizer.step()
    assert operations.launched <= MOST_LAUNCHED[name]


@pytest.mark.parametrize("case", [*CASES, "muon"])
def test_a_rate_of_zero_changes_nothing(case):
    """The rate is read from the tensor at every step: none is frozen at construction."""
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    before = [parameter.detach().clone() for parameter in network.parameters()]
    lr = torch.tensor(LR)
    optimizer = build_optimizer(CASES[case][0] if case in CASES else MUON, network, lr)
    lr.zero_()
    network(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    torch.testing.assert_close([p.detach() for p in network.parameters()], before, rtol=0, atol=0)


MUON = config.Muon(lr=LR, momentum=0.8, adamw_ratio=0.3, beta1=0.9, beta2=0.95, weight_decay=DECAY)


def newton_schulz(g, iterations=5):
    """Jordan's quintic on the singular values alone: each goes through a s + b s^3 + c s^5."""
    left, values, right = np.linalg.svd(g, full_matrices=False)
    values = values / np.linalg.norm(values)
    for _ in range(iterations):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left * values @ right


@pytest.mark.parametrize("shape", [(3, 7), (7, 3), (5, 5)])
def test_orthogonalization_maps_singular_values_by_the_quintic(shape):
    matrices = np.random.default_rng(0).normal(size=(2, *shape)) * [[[1.0]], [[50.0]]]
    for ours, g in zip(orthogonalize(torch.from_numpy(matrices), 5).numpy(), matrices, strict=True):
        np.testing.assert_allclose(ours, newton_schulz(g), atol=1e-5)
        values = np.linalg.svd(ours, compute_uv=False)
        assert values.min() > 0.6
        assert values.max() < 1.3


@pytest.mark.parametrize("shape", [(2, 3, 7), (2, 7, 3)])
def test_orthogonalization_takes_four_operations_an_iteration(shape):
    matrices = torch.ones(shape)
    with Counting() as operations:
        orthogonalize(matrices, 5)
    assert operations.all <= 23


@pytest.mark.parametrize("nesterov", [False, True])
def test_muon_orthogonalizes_hidden_matrices_and_leaves_the_rest_to_adamw(nesterov):
    rng = np.random.default_rng(0)
    hidden = [nn.Conv2d(2, 6, 3), nn.Linear(6, 4), nn.Linear(4, 6), nn.Linear(6, 4)]
    network = nn.Sequential(*hidden, nn.Linear(4, 3)).double()
    optimizer = build_optimizer(MUON.model_copy(update={"nesterov": nesterov}), network, torch.tensor(LR))
    start = {name: p.detach().numpy().copy() for name, p in network.named_parameters()}
    targets = {name: rng.normal(size=value.shape) for name, value in start.items()}
    for _ in range(STEPS):
        optimizer.zero_grad()
        torch.stack(
            [0.5 * (p - torch.from_numpy(targets[n])).square().sum() for n, p in network.named_parameters()]
        ).sum().backward()
        optimizer.step()
    for name, parameter in network.named_parameters():
        by_hand = muon_by_hand if name.endswith("weight") and name != "4.weight" else adamw_by_hand
        decay = DECAY if name.endswith("weight") else 0.0
        expected = by_hand(start[name], targets[name], decay, nesterov)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=2e-5, atol=1e-6)


def muon_by_hand(w, target, decay, nesterov):
    velocity = np.zeros_like(w)
    for _ in range(STEPS):
        g = w - target
        velocity = 0.8 * velocity + g
        update = g + 0.8 * velocity if nesterov else velocity
        flat = update.reshape(len(w), -1)
        step = newton_schulz(flat) * max(1, flat.shape[0] / flat.shape[1]) ** 0.5
        w = w - LR * decay * w - LR * step.reshape(w.shape)
    return w


def adamw_by_hand(w, target, decay, _nesterov):
    m, v, lr = np.zeros_like(w), np.zeros_like(w), 0.3 * LR
    for t in range(1, STEPS + 1):
        g = w - target
        w = w * (1 - lr * decay)
        m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g * g
        w = w - lr * m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.95**t)) + 1e-8)
    return w


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize(("momentum", "batch_size"), [(0.5, 64), (0.9, 64), (0.9, 256), (0.98, 1024)])
def test_decoupled_settings_leave_the_effective_step_alone(nesterov, momentum, batch_size):
    """1,024 examples of a constant gradient move a weight by lr times it, and take the share weight_decay of
    a weight away, whatever batch and momentum."""
    section = config.SGD(
        lr=0.5, momentum=momentum, nesterov=nesterov, weight_decay=1e-4, parametrization="decoupled"
    )
    moved, kept = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        moved.weight.zero_()
        kept.weight.fill_(1.0)
    rate = torch.tensor(full_rate(section, batch_size))
    undecayed = section.model_copy(update={"weight_decay": 0.0})
    pushing, decaying = build_optimizer(undecayed, moved, rate), build_optimizer(section, kept, rate)
    warmed, examples = 4096 // 64, 102_400  # momentum is at its limit before the count begins
    for step in range(warmed * 16 + examples // batch_size):
        moved.weight.grad = torch.ones_like(moved.weight)
        kept.weight.grad = torch.zeros_like(kept.weight)
        pushing.step()
        decaying.step()
        if step == warmed * 16 - 1:
            before = moved.weight.item(), kept.weight.item()
    assert before[0] - moved.weight.item() == pytest.approx(0.5 * examples / 1024, rel=1e-5)
    assert np.log(before[1] / kept.weight.item()) == pytest.approx(1e-4 * examples / 1024, rel=0.01)


def test_a_plain_rate_is_never_scaled():
    assert full_rate(config.SGD(lr=0.3, momentum=0.5), 4096) == 0.3
    assert full_rate(config.Adam(lr=0.01), 4096) == 0.01


@pytest.mark.parametrize("everything", [False, True])
def test_weight_decay_spares_norms_and_biases_unless_told(everything):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    section = config.SGD(weight_decay=0.1, decay_norms_and_biases=everything)
    optimizer = build_optimizer(section, network, torch.tensor(0.1))
    decayed = [p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    assert all(parameter.ndim > 1 or everything for parameter in decayed)
    assert len(decayed) == (6 if everything else 2)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6
