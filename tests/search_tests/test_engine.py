"""The engine on real digits: repeatable, continued from its state, labels kept, and against a plain loop."""

import dataclasses
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from digit_runs import CPU, configuration, digits_of
from torch import nn

from search.training import engine, evaluation
from search.training.engine import Run, fit
from search.training.models import build_model
from search.training.optimizers import optimizers
from search.training.resident import ResidentData


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> ResidentData:
    return digits_of(tmp_path_factory.mktemp("data"))


def weights(run: Run) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in run.network.state_dict().values()])


def timeless(history) -> list[dict]:
    """The history without what no two runs share."""
    return [
        {k: v for k, v in dataclasses.asdict(report).items() if k not in ("seconds", "images_per_second")}
        for report in history
    ]


def test_the_same_seed_gives_the_same_weights_and_another_does_not(digits):
    first, _ = fit(configuration(), digits, CPU, seed=7)
    second, _ = fit(configuration(), digits, CPU, seed=7)
    third, _ = fit(configuration(), digits, CPU, seed=8)
    assert torch.equal(weights(first), weights(second))
    assert timeless(first.history) == timeless(second.history)
    assert not torch.equal(weights(first), weights(third))


def test_runs_in_turn_give_the_same_as_runs_alone_and_leave_the_generator_alone(digits):
    alone = [fit(configuration(), digits, CPU, seed)[0] for seed in (1, 2)]
    torch.manual_seed(123)
    before = torch.get_rng_state()
    runs = [Run(configuration(), digits, CPU, seed) for seed in (1, 2)]
    for _ in range(3):
        for run in runs:
            run.train_epoch()
    assert torch.equal(torch.get_rng_state(), before)
    for one, other in zip(alone, runs, strict=True):
        assert torch.equal(weights(one), weights(other))


@pytest.mark.parametrize("optimizer", sorted(optimizers))
def test_a_run_continued_from_its_state_ends_with_the_same_weights(digits, optimizer, tmp_path):
    config = configuration(optimizer={"name": optimizer, "lr": 0.01}, training={"patience": 2})
    whole, _ = fit(config, digits, CPU, seed=3)
    first = Run(config, digits, CPU, seed=3)
    first.train_epoch()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second = Run(config, digits, CPU, seed=99)
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    while not second.finished:
        second.train_epoch()
    second.finish()
    assert torch.equal(weights(whole), weights(second))
    assert timeless(whole.history) == timeless(second.history)


CONTRAST = {"name": "supervised-contrastive", "pretraining": 0.5, "head": 8, "classifier_lr": 0.1}
UNMIXED = {"mixup": 0.0}
SETTINGS = {
    "lookahead": {"optimizer": {"lookahead_steps": 5}},
    "ema": {"training": {"ema": 0.9}},
    "lookahead and ema": {
        "optimizer": {"lookahead_steps": 4, "lookahead_share": 0.3, "lookahead_decline": "cubic"},
        "training": {"ema": 0.9, "patience": 2},
    },
    "clip and log": {"optimizer": {"clip": 0.5}, "training": {"log_every": 4}},
    "bf16, lookahead": {"training": {"precision": "bf16"}, "optimizer": {"lookahead_steps": 3}},
    "decoupled, by epoch": {
        "optimizer": {"lr": 2.0, "weight_decay": 1e-3, "parametrization": "decoupled"},
        "schedule": {"name": "polynomial", "per": "epoch", "warmup": 0.3},
    },
    "noise": {"data": {"noise": "symmetric", "noise_rate": 0.3}, "loss": {"name": "focal"}},
    "contrast": {"loss": CONTRAST, "augmentation": UNMIXED},
    "contrast, averaged": {
        "loss": CONTRAST,
        "augmentation": UNMIXED,
        "optimizer": {"lookahead_steps": 4},
        "training": {"ema": 0.8, "log_every": 7, "patience": 3},
    },
    "contrast by muon": {
        "loss": CONTRAST,
        "augmentation": UNMIXED,
        "optimizer": {"name": "muon", "lr": 0.01},
    },
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_run_of_any_settings_continued_at_any_epoch_ends_with_the_same_weights(digits, settings, tmp_path):
    sections = {name: dict(section) for name, section in SETTINGS[settings].items()}
    sections["training"] = {"epochs": 4} | sections.get("training", {})
    config = configuration(**sections)
    whole = Run(config, digits, CPU, seed=3)
    states = []
    while not whole.finished:
        whole.train_epoch()
        torch.save(whole.state_dict(), tmp_path / f"{whole.epoch}.pt")
        states.append(tmp_path / f"{whole.epoch}.pt")
    result = whole.finish()
    run = Run(config, digits, CPU, seed=99)
    for state in reversed(states):  # backwards, so that one run is also taken back to an earlier phase
        run.load_state_dict(torch.load(state, weights_only=True))
        while not run.finished:
            run.train_epoch()
        assert run.finish() == result
        assert torch.equal(weights(whole), weights(run))
        assert timeless(whole.history) == timeless(run.history)


def test_an_epoch_follows_a_plain_loop(digits):
    """Without randomness but the order, an epoch is textbook SGD with momentum on standardized images."""
    config = configuration(
        model={"dropout": 0.0}, augmentation={"shift": 0, "rotation": 0.0, "mixup": 0.0, "cutout": 0.0},
        optimizer={"name": "sgd", "lr": 0.05, "weight_decay": 0.01}, schedule={"name": "constant"},
    )  # fmt: skip
    run = Run(config, digits, CPU, seed=5)
    network = build_model(config.model, digits.shape)
    network.load_state_dict(dict(run.network.state_dict()))  # which counts no batches
    report = run.train_epoch()

    pixels = digits.images_NHWC.permute(0, 3, 1, 2).double() / 255
    images = (
        (pixels - pixels[digits.train_indices].mean()) / pixels[digits.train_indices].std(correction=0)
    ).float()
    decayed = [p for p in network.parameters() if p.ndim > 1]
    spared = [p for p in network.parameters() if p.ndim <= 1]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": 0.01}, {"params": spared}], lr=0.05, momentum=0.9, nesterov=True
    )
    losses, correct = [], []
    for indices in run._order_SB:
        logits, labels = network(images[indices]), digits.labels_N[indices]
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        correct.append((logits.argmax(1) == labels).double().mean().item())
    network.eval()
    with torch.no_grad():
        logits = network(images[digits.val_indices])
    labels = digits.labels_N[digits.val_indices]
    assert report.train_loss == pytest.approx(np.mean(losses), rel=1e-4)
    assert report.train_accuracy == pytest.approx(np.mean(correct), abs=1e-9)
    assert report.val_loss == pytest.approx(F.cross_entropy(logits, labels).item(), rel=1e-3)
    assert report.val_accuracy == pytest.approx(
        (logits.argmax(1) == labels).double().mean().item(), abs=0.004
    )
    assert report.lr == pytest.approx(0.05)


def test_an_epoch_visits_every_training_image_at_most_once_and_no_validation_image(digits):
    run = Run(configuration(), digits, CPU, seed=0)
    orders = []
    for _ in range(2):
        run.train_epoch()
        orders.append(run._order_SB.flatten().tolist())
    for order in orders:
        assert len(order) == len(set(order)) == 9 * 32
        assert set(order) <= set(digits.train_indices.tolist())
        assert not set(order) & set(digits.val_indices.tolist())
    assert orders[0] != orders[1]


def test_digits_are_learnt(digits):
    config = configuration(augmentation={"shift": 0, "rotation": 0.0, "mixup": 0.0, "cutout": 0.0},
                           training={"epochs": 8})  # fmt: skip
    _, result = fit(config, digits, CPU, seed=0)
    assert result.value > 0.9
    assert result.epoch == 8


def test_validation_in_batches_of_any_size_gives_the_same(digits, monkeypatch):
    reports = []
    for batch in (evaluation.BATCH, 7):
        monkeypatch.setattr(evaluation, "BATCH", batch)
        reports.append(Run(configuration(), digits, CPU, seed=0).train_epoch())
    whole, sliced = reports
    assert sliced.val_accuracy == whole.val_accuracy
    assert sliced.val_loss == pytest.approx(whole.val_loss, rel=1e-6)


def test_a_diverging_run_says_so_and_is_finished(digits):
    run = Run(configuration(optimizer={"name": "sgd", "lr": 1e30}), digits, CPU, seed=0)
    report = run.train_epoch()
    assert report.diverged
    assert run.finished
    assert 0 <= report.val_accuracy <= 1


def test_early_stopping_returns_to_its_best_epoch(digits):
    # a rate that is fine at first and ruinous later: one cycle up to a large rate
    config = configuration(
        optimizer={"name": "sgd", "lr": 3.0, "momentum": 0.0, "nesterov": False},
        schedule={"name": "triangular", "peak": 0.9, "start": 0.01},
        training={"epochs": 30, "patience": 3, "monitor": "loss"},
    )
    states = {}

    def remember(report) -> bool:
        states[report.epoch] = weights_of(run)
        return False

    run = Run(config, digits, CPU, seed=0)

    def weights_of(run):
        return weights(run).clone()

    while not run.finished:
        remember(run.train_epoch())
    result = run.finish()
    best = min(run.history, key=lambda report: report.val_loss)
    assert run.epoch < 30
    assert run.epoch - best.epoch == 3
    assert result.epoch == best.epoch
    assert result.value == best.val_accuracy
    assert torch.equal(weights(run), states[best.epoch])


def test_without_early_stopping_the_value_is_the_last_epochs_and_the_best_is_beside_it(digits):
    run, result = fit(configuration(), digits, CPU, seed=0)
    assert result.value == run.history[-1].val_accuracy
    assert result.best_accuracy == max(report.val_accuracy for report in run.history)


def test_fit_stops_when_told(digits):
    run, result = fit(configuration(), digits, CPU, 0, on_epoch=lambda report: report.epoch == 2)
    assert run.epoch == result.epoch == 2


def test_learning_rates_follow_the_schedule_step_by_step(digits):
    config = configuration(schedule={"name": "step", "milestones": [0.5], "gamma": 0.1})
    run, _ = fit(config, digits, CPU, 0)
    steps = 3 * 9
    # float32 table; the rate halves its exponent at the first step at or after the middle
    assert run._lr_T.tolist() == pytest.approx([0.05 if s / steps < 0.5 else 0.005 for s in range(steps)])
    assert [report.lr for report in run.history] == pytest.approx([0.05, 0.005, 0.005])


def test_a_batch_larger_than_the_training_set_is_refused(digits):
    config = configuration(training={"batch_size": 301})
    with pytest.raises(ValueError, match="must not exceed the 300 training images, but got 301"):
        Run(config, digits, CPU, 0)


def test_mixed_and_augmented_images_keep_their_labels(digits):
    """Each class is one uniform grey level: after shuffling, augmentation and mixing, the mean grey of an
    image is what its target says."""
    greys = torch.arange(10, dtype=torch.uint8) * 25
    images = greys[digits.labels_N][:, None, None, None].expand(-1, 8, 8, 1).contiguous()
    data = dataclasses.replace(digits, images_NHWC=images)
    config = configuration(data={"scaling": "unit"}, augmentation={"cutout": 0.0, "rotation": 0.0, "shift": 0,
                                                                   "mixup": 0.5, "cutmix": 0.5})  # fmt: skip
    seen = []

    class Watching(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, images):
            seen.append(images.mean((1, 2, 3)))
            return self.network(images)

    run = Run(config, data, CPU, 0)
    run.network = Watching(run.network)
    run._begin(run._phases[0])
    targets = []
    loss = engine.training_loss

    def watching_loss(section, logits, targets_BK):
        targets.append(targets_BK)
        return loss(section, logits, targets_BK)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "training_loss", watching_loss)
        run.train_epoch()
    images_B, targets_BK = torch.cat(seen[:9]), torch.cat(targets)
    torch.testing.assert_close(images_B, targets_BK @ (greys.float() / 255), atol=1e-5, rtol=0)
    mixed = ((targets_BK > 0.01) & (targets_BK < 0.99)).any(1).float().mean()
    assert mixed > 0.3
    assert math.isclose(float(targets_BK.sum()), len(targets_BK), rel_tol=1e-5)


def test_bf16_is_used_when_asked_for(digits):
    run = Run(configuration(training={"precision": "bf16", "epochs": 1}), digits, CPU, 0)
    kinds = []
    run.network[0].register_forward_hook(lambda _module, _inputs, output: kinds.append(output.dtype))
    report = run.train_epoch()
    assert set(kinds) == {torch.bfloat16}
    assert not report.diverged
