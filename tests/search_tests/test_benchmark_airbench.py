"""The benchmark's compiled arm trains what this engine trains, and as airbench's published code does.

Shapes: N images, K classes.
"""

import numpy as np
import pytest
import torch
from benchmark_scripts import script

from search.training.averaging import Lookahead
from search.training.engine import Run
from search.training.optimizers import coupled_decay, full_rate
from spaces.config import Configuration
from spaces.space import Space

airbench, bench_data = script("airbench"), script("bench_data")
IMAGES, BATCH = 32, 16
PUBLISHED = {"lr": 11.5, "momentum": 0.85, "weight_decay": 0.0153}
"""airbench94's settings, in its own convention."""


def tiny_data():
    random = np.random.default_rng(0)
    images_NHWC = random.integers(0, 256, (IMAGES + 10, 16, 16, 3), np.uint8)
    labels_N = np.arange(IMAGES + 10) % 10
    parts = images_NHWC[:IMAGES], labels_N[:IMAGES], images_NHWC[IMAGES:], labels_N[IMAGES:]
    arrays = bench_data.Arrays(*parts, np.full(3, 0.5), np.full(3, 0.29))
    return bench_data.resident(arrays, torch.device("cpu"))


def fast_94(batch_size=BATCH, epochs=2, shift=2, **model):
    """The base of the space, with a small network and small batches."""
    tree = Space.load("fast-94").base.tree()
    tree["model"] |= {"widths": [8, 8], **model}
    tree["training"] |= {"batch_size": batch_size, "epochs": epochs}
    tree["augmentation"]["shift"] = shift
    return Configuration.read(tree)


def test_its_rate_and_decay_are_those_of_the_engine():
    configuration = fast_94()
    optimizer, rates = airbench.Training(configuration, tiny_data())._optimizer()
    (group,) = optimizer.param_groups
    rate_of_mean = full_rate(configuration.optimizer, BATCH)
    assert group["lr"] * BATCH == pytest.approx(rate_of_mean)
    assert group["lr"] * group["weight_decay"] == pytest.approx(
        rate_of_mean * coupled_decay(configuration.optimizer)
    )
    assert max(rates) <= group["lr"] * (1 + 1e-6)
    assert len(rates) == 2 * IMAGES // BATCH


def test_its_rate_and_decay_are_those_that_airbench_comes_to_from_the_published_settings():
    optimizer, _ = airbench.Training(fast_94(), tiny_data())._optimizer()
    (group,) = optimizer.param_groups
    kilostep = 1024 * (1 + 1 / (1 - PUBLISHED["momentum"]))
    assert group["lr"] == pytest.approx(PUBLISHED["lr"] / kilostep, rel=0.01)
    share = group["lr"] * group["weight_decay"]
    assert share == pytest.approx(PUBLISHED["weight_decay"] * BATCH / kilostep, rel=0.01)


def test_it_trains_the_same_network_as_the_engine_to_the_same_weights_and_accuracies():
    # one batch of all images, flipped by a fixed rule: nothing is drawn; lookahead acts once, the bias stops
    configuration = fast_94(batch_size=IMAGES, epochs=7, shift=0, whitening_bias_epochs=3)
    run = Run(configuration, tiny_data(), torch.device("cpu"), seed=0)
    training = airbench.Training(configuration, tiny_data())
    training.network.load_state_dict(run.network.state_dict(), strict=False)  # counters of batches differ
    training._fix_bias(0)
    optimizer, rates = training._optimizer()
    slow = airbench.Slow(training.network, training.config.optimizer, len(rates))
    for epoch in range(7):
        report = run.train_epoch()
        training._train_epoch(epoch, optimizer, rates, slow)
        assert training._accuracy(slow.network, "none") == pytest.approx(report.val_accuracy)
    assert_same_weights(training.network, run.network)
    result = run.finish()
    assert_same_weights(slow.network, run.network)
    assert training._accuracy(slow.network, "mirror-shift") == pytest.approx(result.tta_accuracy)


def assert_same_weights(network, other):
    values = other.state_dict()
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, values[name], rtol=1e-3, atol=1e-4, msg=name)


def test_the_bias_of_the_whitening_learns_as_long_as_the_configuration_says():
    training = airbench.Training(fast_94(whitening_bias_epochs=1), tiny_data())
    training._fix_bias(0)
    optimizer, rates = training._optimizer()
    slow = airbench.Slow(training.network, training.config.optimizer, len(rates))
    bias = training.network[0].bias
    training._train_epoch(0, optimizer, rates, slow)
    learnt = bias.detach().clone()
    assert learnt.abs().sum() > 0
    training._train_epoch(1, optimizer, rates, slow)
    assert torch.equal(bias, learnt)
    assert bias.grad is None


def test_its_slow_weights_are_those_of_the_engines_lookahead():
    steps, trained = 15, torch.nn.Linear(3, 2)
    twin = torch.nn.Linear(3, 2)
    twin.load_state_dict(trained.state_dict())
    optimizer = fast_94().optimizer
    slow = airbench.Slow(trained, optimizer, steps)
    assert optimizer.lookahead_steps == 5
    lookahead = Lookahead(twin, 5, optimizer.lookahead_share, optimizer.lookahead_decline, steps)
    for step in range(1, steps + 1):
        for network in (trained, twin):
            with torch.no_grad():
                network.weight += step
        slow.update(step)
        if step % lookahead.every == 0:
            lookahead.update()
    torch.testing.assert_close(trained.weight, twin.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(slow.network.weight, lookahead.network.weight, rtol=1e-4, atol=1e-5)


def test_it_trains_in_half_precision():
    training = airbench.Training(fast_94(), tiny_data(), torch.half)
    run = training.run(seed=0)
    assert training.network[0].weight.dtype == torch.half
    assert all(0 <= run[name] <= 1 for name in ("accuracy", "tta_accuracy"))
    assert all(value.isfinite().all() for value in training.network.state_dict().values())


@pytest.mark.slow
def test_nothing_is_compiled_any_more_once_training_begins():
    training = airbench.Training(fast_94(whitening_bias_epochs=1), tiny_data())
    training.compile()
    with torch.compiler.set_stance("fail_on_recompile"):
        run = training.run(seed=0)
    assert run["seconds"] > 0
