"""Ways of learning within a whole run on digits: contrast, averages, clipping, wrong labels, fine figures."""

import dataclasses

import numpy as np
import pytest
import torch

from search.data.request import DataRequest
from search.data.sources import load
from search.data.split import make_split
from search.objective import history_of
from search.training.contrastive import neighbour_votes
from search.training.engine import Run, fit
from search.training.features import build_network, classifier_of, features
from search.training.resident import ResidentData, make_resident
from spaces.config import Configuration
from studies.record import History

CPU = torch.device("cpu")
CONTRAST = {"name": "supervised-contrastive", "pretraining": 0.5, "classifier_lr": 0.3}


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> ResidentData:
    data = load(DataRequest("digits", tmp_path_factory.mktemp("data")))
    split = make_split(data.labels_N, data.n_train, 0.2, 300, seed=0)
    return make_resident(data, split, CPU)


def configuration(**sections) -> Configuration:
    """A small network that learns digits in seconds, with some sections replaced."""
    tree = {
        "model": {"name": "vgg", "widths": [8, 16], "convolutions": 1, "head": 16},
        "optimizer": {"name": "sgd", "lr": 0.05},
        "training": {"epochs": 4, "batch_size": 32},
    }
    for name, section in sections.items():
        tree[name] = tree.get(name, {}) | section
    return Configuration.read(tree)


def floats(network) -> torch.Tensor:
    values = [v.flatten() for v in network.state_dict().values() if v.is_floating_point()]
    return torch.cat(values).clone()


def trained(network) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def body_and_classifier(network) -> tuple[torch.Tensor, torch.Tensor]:
    """All values before the classifier, normalization's statistics too, and those of the classifier."""
    count = sum(parameter.numel() for parameter in classifier_of(network).parameters())
    return floats(network)[:-count], floats(network)[-count:]


def predictions(run: Run, network, indices: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return network.eval()(run._scaling(pixels(run, indices))).argmax(1)


def pixels(run: Run, indices: torch.Tensor) -> torch.Tensor:
    return run.data.images_NHWC[indices].permute(0, 3, 1, 2) / 255


@pytest.mark.parametrize(("head", "training"), [(0, {}), (8, {"ema": 0.8})])
def test_contrast_learns_features_and_then_a_classifier_on_them_alone(digits, head, training):
    run = Run(configuration(loss=CONTRAST | {"head": head}, training=training), digits, CPU, seed=0)
    start = body_and_classifier(run.network)
    run.train_epoch()
    run.train_epoch()
    learnt = body_and_classifier(run._evaluated)
    assert not torch.equal(learnt[0], start[0])
    torch.testing.assert_close(learnt[1], start[1], rtol=1e-5, atol=1e-6)
    run.train_epoch()
    run.train_epoch()
    run.finish()
    end = body_and_classifier(run.network)
    torch.testing.assert_close(end[0], learnt[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(end[1], learnt[1], atol=1e-2)
    assert [report.phase for report in run.history] == ["features"] * 2 + ["classes"] * 2


def test_the_schedule_runs_over_each_phase_at_its_own_rate(digits):
    run = Run(configuration(loss=CONTRAST, schedule={"name": "polynomial"}), digits, CPU, seed=0)
    falling = 1 - np.arange(18) / 18
    np.testing.assert_allclose(run._lr_T, np.concatenate([0.05 * falling, 0.3 * falling]), rtol=1e-6)


def test_while_features_are_learnt_the_report_is_of_nearest_neighbours(digits):
    run = Run(configuration(loss=CONTRAST | {"neighbours": 5}), digits, CPU, seed=0)
    report = run.train_epoch()
    with torch.no_grad():
        bank, asked = (
            features(run.network.eval(), run._scaling(pixels(run, indices)))
            for indices in (digits.train_indices, digits.val_indices)
        )
    predicted, log_shares = neighbour_votes(asked, bank, digits.labels_N[digits.train_indices], 5, 10)
    labels = digits.labels_N[digits.val_indices]
    assert report.val_accuracy == pytest.approx((predicted == labels).double().mean().item(), abs=0.004)
    assert report.val_loss == pytest.approx(-log_shares[range(len(labels)), labels].mean().item(), rel=0.01)
    assert 0.3 < report.val_accuracy < 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_digits_are_learnt_by_contrast_and_the_value_is_the_classifiers(digits, precision):
    config = configuration(
        loss=CONTRAST,
        augmentation={"shift": 1},
        training={"epochs": 16, "precision": precision},
    )
    run, result = fit(config, digits, CPU, seed=0)
    assert result.value == run.history[-1].val_accuracy > 0.8
    assert result.best_epoch > 8
    assert run.history[0].val_accuracy < run.history[7].val_accuracy
    network = build_network(config, digits.shape)
    network.load_state_dict(run.network.state_dict())
    accuracy = (predictions(run, network, digits.val_indices) == digits.labels_N[digits.val_indices]).double()
    assert accuracy.mean().item() == pytest.approx(result.value, abs=0.004 if precision == "fp32" else 0.02)


def test_patience_runs_in_the_second_phase_only(digits):
    config = configuration(
        loss=CONTRAST | {"pretraining": 0.7, "classifier_lr": 1e-7}, training={"epochs": 10, "patience": 1}
    )
    run, result = fit(config, digits, CPU, seed=0)
    phases = [report.phase for report in run.history]
    assert phases == ["features"] * 7 + ["classes"] * 2  # at this rate the second cannot improve
    assert result.epoch == 8
    assert run.finished


def test_a_run_stopped_among_features_has_their_value(digits):
    _, result = fit(configuration(loss=CONTRAST), digits, CPU, 0, on_epoch=lambda report: report.epoch == 2)
    assert result.epoch == 2
    assert result.best_accuracy >= result.value


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"training": {"epochs": 1}}, "needs training.epochs of 2 or more, but got 1"),
        ({"augmentation": {"mixup": 0.2}}, "without augmentation.mixup and cutmix, but got mixup=0.2"),
        ({"augmentation": {"cutmix": 1.0}}, "but got mixup=0.0, cutmix=1.0"),
    ],
)
def test_contrast_that_makes_no_sense_is_refused(sections, message):
    with pytest.raises(ValueError, match=message):
        configuration(loss=CONTRAST, **sections)


@pytest.mark.parametrize(
    ("pretraining", "epochs", "expected"), [(0.8, 10, 8), (0.99, 2, 1), (0.01, 2, 1), (0.5, 5, 2)]
)
def test_both_phases_have_an_epoch(pretraining, epochs, expected):
    loss = configuration(loss=CONTRAST | {"pretraining": pretraining}).loss
    assert loss.feature_epochs(epochs) == expected


def test_the_average_takes_in_every_step_validates_and_remains(digits):
    run = Run(configuration(training={"ema": 0.9}), digits, CPU, seed=0)
    expected, after = floats(run.network).double(), []
    run._optimizer.register_step_post_hook(lambda *_: after.append(floats(run.network).double()))
    report = run.train_epoch()
    for t, weights in enumerate(after, start=1):
        d = min(0.9, (1 + t) / (10 + t))
        expected = d * expected + (1 - d) * weights
    assert len(after) == 9
    assert not torch.allclose(expected, after[-1], atol=1e-3)
    averaged = run._evaluated
    torch.testing.assert_close(floats(averaged).double(), expected, rtol=1e-4, atol=1e-5)
    correct = predictions(run, averaged, digits.val_indices) == digits.labels_N[digits.val_indices]
    assert report.val_accuracy == pytest.approx(correct.double().mean().item(), abs=0.004)
    run.finish()
    assert torch.equal(floats(run.network), floats(averaged))


def test_with_lookahead_the_slow_weights_validate(digits):
    section = {"lookahead_steps": 5, "lookahead_share": 0.5}
    run = Run(configuration(optimizer=section), digits, CPU, seed=0)
    report = run.train_epoch()  # 9 steps: they met at the fifth
    slow = run._evaluated
    assert not torch.equal(floats(slow), floats(run.network))
    correct = predictions(run, slow, digits.val_indices) == digits.labels_N[digits.val_indices]
    assert report.val_accuracy == pytest.approx(correct.double().mean().item(), abs=0.004)


def test_clipping_bounds_a_step_and_a_high_limit_changes_nothing(digits):
    plain = {"momentum": 0.0, "nesterov": False}
    for clip, same in ((1e-3, False), (1e6, True)):
        run = Run(configuration(optimizer=plain | {"clip": clip}), digits, CPU, seed=0)
        free = Run(configuration(optimizer=plain), digits, CPU, seed=0)
        before = trained(run.network)
        for each in (run, free):
            with each._random.active():
                each._shuffle()
            each._step()
        moved = [trained(each.network) - before for each in (run, free)]
        assert torch.equal(*moved) == same
        if not same:
            assert moved[0].norm() == pytest.approx(0.05 * clip, rel=0.01)
            cosine = torch.nn.functional.cosine_similarity(*moved, dim=0)
            assert cosine == pytest.approx(1, abs=1e-3)  # shorter, in the same direction


def test_the_decoupled_rate_per_batch(digits):
    section = {"lr": 2.0, "momentum": 0.75, "parametrization": "decoupled"}
    run = Run(configuration(optimizer=section, schedule={"name": "constant"}), digits, CPU, 0)
    assert run._lr_T.tolist() == pytest.approx([2.0 * 0.25 * 32 / 1024] * 36)


def test_memorization_is_followed_on_the_wrongly_labelled_images(digits):
    config = configuration(data={"noise": "symmetric", "noise_rate": 0.4}, training={"epochs": 3})
    run = Run(config, digits, CPU, seed=0)
    while not run.finished:
        report = run.train_epoch()
    given, true = run.data.labels_N, digits.labels_N
    wrong = digits.train_indices[given[digits.train_indices] != true[digits.train_indices]]
    assert 0.3 < len(wrong) / 300 < 0.5
    predicted = predictions(run, run.network, wrong)
    assert report.memorized == pytest.approx((predicted == given[wrong]).double().mean().item(), abs=0.01)
    assert report.corrected == pytest.approx((predicted == true[wrong]).double().mean().item(), abs=0.01)
    assert report.corrected > report.memorized  # three epochs learn the rule before its exceptions
    clean = predictions(run, run.network, digits.val_indices) == true[digits.val_indices]
    assert report.val_accuracy == pytest.approx(clean.double().mean().item(), abs=0.004)
    assert fit(configuration(), digits, CPU, 0)[0].history[-1].memorized is None


def test_runs_with_different_noise_share_the_data_untouched(digits):
    before = digits.labels_N.clone()
    Run(configuration(data={"noise": "asymmetric", "noise_rate": 0.5}), digits, CPU, 0)
    assert torch.equal(digits.labels_N, before)


def test_finer_figures_average_to_those_of_the_epoch_and_change_nothing_else(digits):
    plain, _ = fit(configuration(), digits, CPU, seed=0)
    run, _ = fit(configuration(training={"log_every": 1}), digits, CPU, seed=0)
    assert torch.equal(floats(plain.network), floats(run.network))
    for report in run.history:
        steps, losses, accuracies = zip(*report.steps, strict=True)
        assert steps == tuple(range(9 * report.epoch - 8, 9 * report.epoch + 1))
        assert np.mean(losses) == pytest.approx(report.train_loss, rel=1e-12)
        assert np.mean(accuracies) == pytest.approx(report.train_accuracy, rel=1e-12)
    coarse, _ = fit(configuration(training={"log_every": 8}), digits, CPU, seed=0)
    points = [point for report in coarse.history for point in report.steps]
    assert [step for step, _, _ in points] == [8, 16, 24, 32]
    every_loss = [loss for report in run.history for _, loss, _ in report.steps]
    assert points[1][1] == pytest.approx(np.mean(every_loss[8:16]), rel=1e-12)


def test_the_study_keeps_what_the_reports_say(digits):
    config = configuration(data={"noise": "symmetric", "noise_rate": 0.2}, training={"log_every": 5})
    run, _ = fit(config, digits, CPU, seed=0)
    history = history_of(run.history)
    assert History.joined(history.pieces(size=2)) == history
    assert history.step == (5, 10, 15, 20, 25, 30, 35)
    assert history.memorized == pytest.approx([r.memorized for r in run.history], rel=1e-4)
    assert history.step_loss[0] == pytest.approx(run.history[0].steps[0][1], rel=1e-4)
    plain = history_of(
        [dataclasses.replace(r, memorized=None, corrected=None, steps=()) for r in run.history]
    )
    assert set(plain.pieces()[0]) == {"train_loss", "train_accuracy", "val_loss", "lr", "seconds"}
