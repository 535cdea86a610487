"""Each optimizer against its published update, written out in NumPy, over several steps."""

import numpy as np
import pytest
import torch
from torch import nn

from search.training.losses import training_loss
from search.training.optimizers import build_optimizer, optimizers
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
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=2e-6)


def test_every_optimizer_of_the_configuration_has_a_builder():
    assert set(optimizers) == {"sgd", "adam", "adamw", "nadam", "adamax", "rmsprop"}


@pytest.mark.parametrize("case", CASES)
def test_a_rate_of_zero_changes_nothing(case):
    """The rate is read from the tensor at every step: none is frozen at construction."""
    layer = nn.Linear(4, 3)
    before = layer.weight.detach().clone()
    lr = torch.tensor(LR)
    optimizer = build_optimizer(CASES[case][0], layer, lr)
    lr.zero_()
    layer(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), before, rtol=0, atol=0)


@pytest.mark.parametrize("everything", [False, True])
def test_weight_decay_spares_norms_and_biases_unless_told(everything):
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))
    section = config.SGD(weight_decay=0.1, decay_norms_and_biases=everything)
    optimizer = build_optimizer(section, network, torch.tensor(0.1))
    decayed = [p for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]]
    assert all(parameter.ndim > 1 or everything for parameter in decayed)
    assert len(decayed) == (6 if everything else 2)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 6


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_with_smoothing_follows_its_formula(smoothing):
    rng = np.random.default_rng(0)
    logits, targets = rng.normal(size=(5, 4)), rng.dirichlet(np.ones(4), size=5)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    expected = -(((1 - smoothing) * targets + smoothing / 4) * log_p).sum(1)
    loss = training_loss(
        config.CrossEntropy(label_smoothing=smoothing),
        torch.from_numpy(logits),
        torch.from_numpy(targets).float(),
    )
    np.testing.assert_allclose(loss.numpy(), expected, rtol=1e-5)
