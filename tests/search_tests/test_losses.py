"""Each loss against its formula in NumPy, for hard labels and for blended ones."""

from typing import get_args

import numpy as np
import pytest
import torch

from search.training.losses import losses, training_loss
from spaces import config

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(6, 4)) * 3
BLENDED = RNG.dirichlet(np.ones(4), size=6)
HARD = np.eye(4)[[0, 1, 2, 3, 0, 1]]


def log_shares(logits):
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def smoothed(targets, section):
    q = (1 - section.label_smoothing) * targets + section.label_smoothing / 4
    return -(q * log_shares(LOGITS)).sum(1)


def focal(targets, section):
    p = np.exp(log_shares(LOGITS))
    return -(targets * (1 - p) ** section.gamma * np.log(p)).sum(1)


def generalized(targets, section):
    p = np.exp(log_shares(LOGITS))
    return (targets * (1 - p**section.q) / section.q).sum(1)


def computed(section, logits, targets):
    return training_loss(section, torch.from_numpy(logits), torch.from_numpy(targets).float())


@pytest.mark.parametrize("targets", [HARD, BLENDED], ids=["hard", "blended"])
@pytest.mark.parametrize(
    ("section", "formula"),
    [
        (config.CrossEntropy(), smoothed),
        (config.CrossEntropy(label_smoothing=0.1), smoothed),
        (config.Focal(gamma=2.0), focal),
        (config.Focal(gamma=0.5), focal),
        (config.GeneralizedCrossEntropy(q=0.7), generalized),
        (config.GeneralizedCrossEntropy(q=1.0), generalized),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_losses_follow_their_formulas(section, formula, targets):
    np.testing.assert_allclose(
        computed(section, LOGITS, targets).numpy(), formula(targets, section), rtol=2e-5
    )


@pytest.mark.parametrize(
    "section",
    [config.Focal(gamma=0.0), config.GeneralizedCrossEntropy(q=1e-6), config.SupervisedContrastive()],
)
def test_the_limits_are_cross_entropy(section):
    plain = computed(config.CrossEntropy(), LOGITS, BLENDED)
    torch.testing.assert_close(computed(section, LOGITS, BLENDED), plain, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "section", [config.Focal(gamma=0.5), config.Focal(), config.GeneralizedCrossEntropy(q=0.1)]
)
def test_certain_predictions_have_finite_losses_and_slopes(section):
    logits = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    loss = training_loss(section, logits, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    loss.sum().backward()
    assert loss.tolist()[0] == pytest.approx(0, abs=1e-6)
    assert 1 < loss.tolist()[1] < 1000
    assert torch.isfinite(logits.grad).all()


def test_the_generalized_loss_is_bounded_and_so_is_a_wrong_labels_pull():
    logits = torch.tensor([[30.0, 0.0, 0.0, 0.0]], requires_grad=True)
    section = config.GeneralizedCrossEntropy(q=0.7)
    loss = training_loss(section, logits, torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    loss.sum().backward()
    assert loss.item() <= 1 / 0.7 + 1e-6
    assert logits.grad.abs().max() < 1e-6


def test_every_loss_of_the_configuration_has_a_formula():
    members = get_args(get_args(config.Loss)[0])
    assert set(losses) == {section().name for section in members}
