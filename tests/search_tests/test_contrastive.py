"""Supervised contrast against loops over the paper's formula, and a network's features against its logits."""

from typing import get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from search.training.contrastive import BANK, Projection, bank_indices, contrast, neighbour_votes
from search.training.features import (
    Perceptron,
    build_network,
    classifier_of,
    feature_count,
    features,
    network_cost,
)
from search.training.models import Shape, cost
from spaces import config
from spaces.config import Configuration


def views(images: int, outputs: int = 5) -> np.ndarray:
    points = np.random.default_rng(0).normal(size=(2 * images, outputs))
    return points / np.linalg.norm(points, axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_loss_is_the_papers_l_out(temperature):
    points = views(6)
    labels = np.tile([0, 1, 2, 0, 1, 0], 2)
    expected = []
    for i in range(12):
        others = [a for a in range(12) if a != i]
        total = sum(np.exp(points[i] @ points[a] / temperature) for a in others)
        positives = [p for p in others if labels[p] == labels[i]]
        shares = [np.exp(points[i] @ points[p] / temperature) / total for p in positives]
        expected.append(-np.mean(np.log(shares)))
    losses, _ = contrast(torch.from_numpy(points), torch.from_numpy(labels), temperature)
    np.testing.assert_allclose(losses.numpy(), expected, rtol=1e-10)


def test_the_nearest_view_is_of_another_image():
    points = views(6)
    labels = np.tile([0, 1, 2, 0, 1, 0], 2)
    expected = []
    for i in range(12):
        others = [a for a in range(12) if a % 6 != i % 6]
        nearest = max(others, key=lambda a: points[i] @ points[a])
        expected.append(labels[nearest] == labels[i])
    _, fits = contrast(torch.from_numpy(points), torch.from_numpy(labels), 0.1)
    assert fits.tolist() == expected
    assert 0 < sum(expected) < 12


def test_the_loss_has_finite_slopes_and_pulls_a_class_together():
    points = torch.from_numpy(views(8)).requires_grad_()
    labels = torch.tensor([0, 1] * 8)
    optimizer = torch.optim.SGD([points], lr=0.5)
    for _ in range(100):
        optimizer.zero_grad()
        losses, fits = contrast(F.normalize(points, dim=1), labels, 0.5)
        losses.mean().backward()
        assert torch.isfinite(points.grad).all()
        optimizer.step()
    similarity = F.normalize(points, dim=1).detach() @ F.normalize(points, dim=1).detach().T
    same = labels[:, None] == labels[None, :]
    assert similarity[same].mean() > 0.9
    assert similarity[~same].mean() < -0.5
    assert fits.all()


@pytest.mark.parametrize("neighbours", [1, 3, 6])
def test_votes_are_those_of_the_nearest(neighbours):
    rng = np.random.default_rng(0)
    bank, asked = rng.normal(size=(20, 4)), rng.normal(size=(9, 4))
    labels = np.arange(20) % 3
    predicted, log_shares = neighbour_votes(*map(torch.from_numpy, (asked, bank, labels)), neighbours, 3)
    for row, point in enumerate(asked):
        cosines = bank @ point / np.linalg.norm(bank, axis=1) / np.linalg.norm(point)
        nearest = np.argsort(-cosines)[:neighbours]
        votes = np.bincount(labels[nearest], minlength=3)
        sums = np.bincount(labels[nearest], cosines[nearest], minlength=3)
        leading = [k for k in range(3) if votes[k] == votes.max()]
        assert predicted[row] == max(leading, key=lambda k: sums[k])
        np.testing.assert_allclose(log_shares[row].exp(), (votes + 1 / 3) / (neighbours + 1), rtol=1e-6)


def test_more_neighbours_than_images_are_all_of_them():
    bank = torch.eye(3)
    predicted, _ = neighbour_votes(bank, bank, torch.tensor([2, 0, 1]), 10, 3)
    assert predicted.tolist() == [2, 0, 1]


def test_the_bank_is_spread_over_data_sorted_by_class():
    train = torch.arange(0, 40_000, 2)
    bank = bank_indices(train)
    assert len(bank) == len(bank.unique()) == BANK
    assert set(bank.tolist()) <= set(train.tolist())
    assert torch.bincount(bank // 4000).tolist() == [500] * 10
    torch.testing.assert_close(bank_indices(train[:7]), train[:7])


def test_the_projection_ends_on_the_unit_sphere():
    projection = Projection(6, 3)
    points = projection(torch.randn(5, 6))
    assert points.shape == (5, 3)
    torch.testing.assert_close(points.norm(dim=1), torch.ones(5))
    assert [type(layer) for layer in projection] == [nn.Linear, nn.ReLU, nn.Linear]


MODELS = [kind() for kind in get_args(get_args(config.Model)[0])]


@pytest.mark.parametrize(
    "model",
    [pytest.param(m, marks=[pytest.mark.slow] * (m.name == "torchvision"), id=m.name) for m in MODELS],
)
@pytest.mark.parametrize("head", [None, 0, 7])
def test_every_network_is_features_and_a_classifier(model, head):
    """Logits are the classifier of the features, up to one factor; and the output layer is the last matrix,
    which Muon leaves to AdamW."""
    loss = config.CrossEntropy() if head is None else config.SupervisedContrastive(head=head)
    network = build_network(Configuration(model=model, loss=loss), Shape(3, 32, 32, 10)).eval()
    images = torch.randn(2, 3, 32, 32)
    classifier = classifier_of(network)
    assert isinstance(classifier, Perceptron if head else nn.Linear)
    with torch.no_grad():
        features_NF = features(network, images)
        ratio = network(images) / classifier(features_NF)
    assert features_NF.shape == (2, feature_count(classifier))
    torch.testing.assert_close(ratio, ratio[0, 0].expand_as(ratio), rtol=1e-3, atol=1e-5)
    last = [parameter for parameter in network.parameters() if parameter.ndim > 1][-1]
    assert last is (classifier[2] if head else classifier).weight


def test_a_perceptron_in_the_classifiers_place_is_counted():
    plain = Configuration(loss=config.SupervisedContrastive())
    deep = Configuration(loss=config.SupervisedContrastive(head=50))
    shape = Shape(3, 32, 32, 10)
    assert network_cost(plain, shape) == cost(plain.model, shape)
    extra = network_cost(deep, shape).parameters - network_cost(plain, shape).parameters
    assert extra == (128 * 50 + 50 + 50 * 10 + 10) - (128 * 10 + 10)
    built = sum(parameter.numel() for parameter in build_network(deep, shape).parameters())
    assert built == network_cost(deep, shape).parameters


def test_gradients_flow_through_features_and_not_into_the_classifier():
    network = build_network(Configuration(), Shape(1, 8, 8, 10))
    features(network, torch.randn(4, 1, 8, 8)).sum().backward()
    assert network[0].weight.grad.abs().sum() > 0
    assert classifier_of(network).weight.grad is None
