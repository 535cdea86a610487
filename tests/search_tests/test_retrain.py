"""Networks trained for keeps: what they are judged by, what is written, and what an interruption leaves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from commands import called, content_of
from exports import export, make_folder, search
from sklearn import metrics as reference

from search.data.request import DataRequest
from search.data.sources import load, load_test
from search.interrupts import Interrupts
from search.options import DEFAULT_STORAGE
from search.retraining.exported import exported_split
from search.retraining.look_keeper import LookKeeper
from search.retraining.measures import over_seeds
from search.retraining.retrain import RetrainRequest, figure_text, retrain
from search.retraining.screen import RetrainScreen
from search.retraining.seed_run import SeedOrder, train_seed
from search.retraining.trained import TrainedConfiguration, TrainedModel, read_config
from studies.export import read_export
from studies.looks import looks_of
from studies.storage import open_storage
from studies.study import SearchStudy

ROOT = Path(__file__).parents[2]
PATIENCE = 240
"""Seconds to wait for anything at all on a busy machine."""


class Here:
    """A study of a small folder of images, its export, and a data folder."""

    def __init__(self, root: Path, test: int = 10) -> None:
        self.root = root
        self.url = f"sqlite:///{root}/studies.db"
        self.images = make_folder(root / "images", test=test)
        self.data_dir = root / "data"
        search(self.url, DataRequest(str(self.images), self.data_dir))
        self.file = root / "best.yaml"
        self.export = export(self.url, self.file)

    def request(self, where: str, **changes) -> RetrainRequest:
        settings = {"file": self.file, "folder": self.root / where, "data_dir": self.data_dir, "seeds": 1}
        settings["storage_url"] = self.url
        return RetrainRequest(**{**settings, "device": "cpu", **changes})

    def order(self, folder: Path, index: int, keep: bool = False, has_test: bool = True) -> SeedOrder:
        """The order of a seed as the command makes it."""
        from search.retraining.retrain import _config

        data = DataRequest(str(self.images), self.data_dir)
        request = RetrainRequest(self.file, folder, seeds=index, keep_validation=keep)
        config = _config(request, self.export, load(data), torch.device("cpu"))
        seed = config.trained.seeds[index - 1]
        return SeedOrder(config, data, has_test, "cpu", folder, index, seed)

    def looks(self):
        with closing(open_storage(self.url, create=False)) as storage:
            return looks_of(SearchStudy(storage, "s"))


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Here:
    return Here(tmp_path_factory.mktemp("here"))


@pytest.fixture(scope="module")
def seed_folder(here: Here) -> Path:
    """A seed that was trained and judged, in this process."""
    folder = here.root / "alone"
    folder.mkdir()
    train_seed(here.order(folder, 1), lambda kind, what: None)
    return folder / "seed-1"


@pytest.fixture
def interrupts():
    """Signal handlers of the command, and those of the tests again."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield Interrupts()
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_seed_trains_on_training_and_validation_images_and_nothing_is_held_out(here, seed_folder):
    told = json.loads((seed_folder / "metrics.json").read_text())
    data = load(DataRequest(str(here.images), here.data_dir))
    split = exported_split(here.export.runs[0], data)
    assert told["training_images"] == len(split.train_indices) + len(split.val_indices) == 72
    assert told["validation_images"] == 0
    assert told["validation_accuracy"] is None
    assert told["curves"]["val_accuracy"] == []
    assert told["epochs"] == 2, "early stopping is off where nothing is held out"
    config = read_config(seed_folder)
    pixels = data.images_NHWC.reshape(-1, 3) / 255
    np.testing.assert_allclose(config.trained.mean, pixels.mean(0), rtol=1e-6)
    np.testing.assert_allclose(config.trained.std, pixels.std(0), rtol=1e-6)


def test_the_figures_are_those_of_scikit_learn_for_the_saved_network(here, seed_folder):
    told = json.loads((seed_folder / "metrics.json").read_text())
    test = load_test(DataRequest(str(here.images), here.data_dir))
    log_p_NK = TrainedModel.load(seed_folder, torch.device("cpu")).log_probabilities(test.images_NHWC)
    p_NK = log_p_NK.double().exp().numpy()
    predicted_N = p_NK.argmax(1)
    assert told["accuracy"] == reference.accuracy_score(test.labels_N, predicted_N)
    assert told["loss"] == pytest.approx(reference.log_loss(test.labels_N, p_NK / p_NK.sum(1, keepdims=True)))
    assert told["confusion_matrix"] == reference.confusion_matrix(test.labels_N, predicted_N).tolist()
    report = reference.classification_report(
        test.labels_N, predicted_N, target_names=test.classes, output_dict=True, zero_division=0
    )
    for row in told["per_class"]:
        expected = report[row["class"]]
        assert row["precision"] == pytest.approx(expected["precision"])
        assert row["recall"] == pytest.approx(expected["recall"])
        assert row["f1"] == pytest.approx(expected["f1-score"])
        assert row["support"] == expected["support"] == 10


def test_the_file_gives_the_same_test_accuracy_in_a_new_process_to_the_last_digit(here, seed_folder):
    program = (
        "import sys, torch; from pathlib import Path\n"
        "from search.data.request import DataRequest; from search.data.sources import load_test\n"
        "from search.retraining.trained import TrainedModel\n"
        "torch.set_num_threads(1)\n"
        "test = load_test(DataRequest(sys.argv[2], Path(sys.argv[3])))\n"
        "model = TrainedModel.load(Path(sys.argv[1]), torch.device('cpu'))\n"
        "log_p = model.log_probabilities(test.images_NHWC)\n"
        "labels = torch.from_numpy(test.labels_N)\n"
        "loss = torch.nn.functional.nll_loss(log_p.double(), labels).item()\n"
        "print(repr((log_p.argmax(1) == labels).sum().item() / len(labels)), repr(loss))\n"
    )
    words = [sys.executable, "-c", program, str(seed_folder), str(here.images), str(here.data_dir)]
    accuracy, loss = subprocess.check_output(words, cwd=ROOT, text=True, stderr=subprocess.DEVNULL).split()
    told = json.loads((seed_folder / "metrics.json").read_text())
    assert float(accuracy) == told["accuracy"]
    assert float(loss) == pytest.approx(told["loss"], rel=1e-12)


@pytest.mark.slow
def test_a_killed_command_is_continued_and_a_finished_seed_is_neither_trained_nor_tested_again(here):
    folder = here.root / "killed"
    first = started(here, folder)
    assert wait_for(lambda: (folder / "seed-1").is_dir() and (folder / "metrics.json").is_file())
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    assert not (folder / "seed-3").exists(), "the machine was too fast for this test"
    (folder / ".seed-2.999").mkdir(exist_ok=True)
    seen = {path: path.stat().st_mtime_ns for path in (folder / "seed-1").iterdir()}
    again = started(here, folder)
    output, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 0, output
    assert "seed 1:" not in output
    assert {path: path.stat().st_mtime_ns for path in (folder / "seed-1").iterdir()} == seen
    assert not list(folder.glob(".seed-*"))
    told = json.loads((folder / "metrics.json").read_text())
    assert told["test_accuracy"]["n"] == len(told["test_looks"]) == len(told["runs"]) == 3
    assert told["test_accuracy"]["mean"] == pytest.approx(np.mean(told["test_accuracy"]["values"]))
    assert told["test_accuracy"]["spread"] == pytest.approx(np.std(told["test_accuracy"]["values"], ddof=1))
    looks = [look for look in here.looks() if look.folder == "killed"]
    seeds = [run["seed"] for run in told["runs"]]
    looked = {look.seeds[0]: look.accuracies[0] for look in looks}  # in any order: one may be recorded late
    assert len(looks) == 3
    assert looked == dict(zip(seeds, told["test_accuracy"]["values"], strict=True))
    assert (folder / "model.safetensors").read_bytes() == (folder / "seed-1/model.safetensors").read_bytes()
    for name in ("learning-curves", "confusion-matrix"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    alone = here.root / "other process"
    alone.mkdir()
    train_seed(here.order(alone, 3), lambda kind, what: None)
    weights = "seed-3/model.safetensors"
    assert (alone / weights).read_bytes() == (folder / weights).read_bytes(), "decided by its seed alone"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interruption_ends_with_130_and_a_line(here, number):
    folder = here.root / f"interrupted {number}"
    command = started(here, folder, "--seeds", "50")
    assert wait_for(lambda: (folder / "seed-1").is_dir())
    os.killpg(command.pid, number)
    output, _ = command.communicate(timeout=PATIENCE)
    assert command.returncode == 130, output
    assert "interrupted; " in output
    assert "of 50 seeds are finished. The same command continues" in output


def started(here: Here, folder: Path, *words: str) -> warm.Process:
    """The command, in a session of its own."""
    command = ["retrain", str(here.file), "-o", str(folder), "--seeds", "3", "--device", "cpu"]
    command += ["--storage", here.url]
    return warm.Process(
        [*command, "--data-dir", str(here.data_dir), *words], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


def wait_for(happened) -> bool:
    end = time.monotonic() + PATIENCE
    while not happened():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def test_with_the_validation_images_held_out_they_validate_and_may_stop_a_training(here, tmp_path):
    train_seed(here.order(tmp_path, 1, keep=True), lambda kind, what: None)
    told = json.loads((tmp_path / "seed-1" / "metrics.json").read_text())
    assert (told["training_images"], told["validation_images"]) == (54, 18)
    assert told["validation_accuracy"] == told["curves"]["val_accuracy"][told["epoch"] - 1]


@pytest.fixture(scope="module")
def no_test(tmp_path_factory) -> Here:
    """Images of which none are for tests."""
    return Here(tmp_path_factory.mktemp("no test"), test=0)


def test_without_test_images_networks_are_judged_on_held_out_ones_or_not_at_all(no_test, tmp_path):
    train_seed(no_test.order(tmp_path, 1, keep=True, has_test=False), lambda kind, what: None)
    told = json.loads((tmp_path / "seed-1" / "metrics.json").read_text())
    assert (told["judged_on"], told["validation_images"], told["test_looks"]) == ("validation", 18, [])
    assert told["accuracy"] == told["validation_accuracy"]
    train_seed(no_test.order(tmp_path, 2, has_test=False), lambda kind, what: None)
    told = json.loads((tmp_path / "seed-2" / "metrics.json").read_text())
    assert (told["judged_on"], told["test_looks"], told["validation_accuracy"]) == (None, [], None)
    assert sorted(path.name for path in (tmp_path / "seed-2").glob("*.png")) == [
        "filters.png",
        "learning-curves.png",
    ]


@pytest.mark.slow
def test_that_there_are_no_test_images_is_said_before_training(no_test, interrupts, capsys):
    assert retrain(no_test.request("none"), RetrainScreen(), interrupts) == 0
    output = capsys.readouterr().out
    assert "has no test images; networks are judged on nothing" in output.split("seed 1")[0]
    told = json.loads((no_test.root / "none" / "metrics.json").read_text())
    assert (told["judged_on"], told["test_looks"]) == (None, [])


def test_a_study_that_cannot_be_reached_or_is_another_is_said_and_changes_nothing(here, tmp_path):
    assert "gone.db" in LookKeeper(here.export, "best", f"sqlite:///{tmp_path}/gone.db").outlook()
    assert not (tmp_path / "gone.db").exists()
    url = f"sqlite:///{tmp_path}/other.db"
    other = "question: Another?\nparameters:\n  model.dropout: {float: [0.0, 0.5], role: scientific}\n"
    other += "base: {model: {name: vgg, widths: [4]}, training: {epochs: 1, batch_size: 16}}\n"
    search(url, DataRequest(str(here.images), here.data_dir), space=other)
    keeper = LookKeeper(here.export, "best", url)
    keeper.keep([{"date": "2026-01-02T03:04:05Z", "seed": 1, "accuracy": 0.5}])
    assert "another one" in keeper.outcome()
    with closing(open_storage(url, create=False)) as storage:
        assert looks_of(SearchStudy(storage, "s")) == ()
    assert (
        "are recorded in metrics.json and in study 's'" in LookKeeper(here.export, "best", here.url).outlook()
    )


@pytest.fixture
def asked(here, tmp_path, monkeypatch):
    """What the command asks for, given more words, in a folder of its own."""
    requests = []
    monkeypatch.setattr(
        "search.retraining.retrain.retrain", lambda request, *_: requests.append(request) or 0
    )

    def ask(*words: str, **environment: str) -> RetrainRequest:
        (tmp_path / "working").mkdir(exist_ok=True)
        assert (
            called(tmp_path / "working", "retrain", str(here.file), "-o", "runs", *words, **environment)[0]
            == 0
        )
        return requests[-1]

    return ask


@pytest.mark.parametrize("kind", ["server", "file"])
def test_what_a_file_says_of_its_storage_is_never_connected_to(here, tmp_path, asked, kind):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        theirs = f"mysql://me:geheim@127.0.0.1:{server.getsockname()[1]}/d"
        storage = {"server": theirs, "file": here.url}[kind]
        before = content_of(here.root)
        export = here.export.model_copy(update={"storage": storage})
        keeper = LookKeeper(export, "best", asked().storage_url)
        keeper.keep([{"date": "2026-01-02T03:04:05Z", "seed": 1, "accuracy": 0.5}])
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()
    assert content_of(here.root) == before
    assert "recorded in the folder alone" in keeper.outcome()
    assert "by --storage" in keeper.outcome()
    assert "geheim" not in keeper.outcome()


def test_the_storage_of_the_command_is_the_one_that_its_settings_name(here, asked):
    assert asked().storage_url == DEFAULT_STORAGE
    assert asked(CIFAR_SEARCH_STORAGE="sqlite:///set.db").storage_url == "sqlite:///set.db"
    assert asked("--storage", here.url, CIFAR_SEARCH_STORAGE="sqlite:///set.db").storage_url == here.url


def other_data(here: Here) -> dict:
    return {"dataset": str(make_folder(here.root / f"other-{time.monotonic_ns()}", train=20))}


def edited(here: Here, old: str, new: str) -> dict:
    file = here.root / f"edited-{time.monotonic_ns()}.yaml"
    text = here.file.read_text()
    assert old in text
    file.write_text(new.join(text.rsplit(old, 1)))
    return {"file": file}


def occupied(here: Here) -> dict:
    (here.root / "occupied").mkdir(exist_ok=True)
    (here.root / "occupied" / "thesis.tex").write_text("")
    return {"folder": here.root / "occupied"}


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda here: {"file": here.root / "none.yaml"}, ["none.yaml", "No such file"]),
        (lambda here: {"file": here.images}, ["images", "directory"]),
        (lambda here: {"dataset": "cifra10"}, ["--dataset", "'cifra10'", "did you mean 'cifar10'"]),
        (other_data, ["--dataset", "hash"]),
        (lambda here: {"device": "cpuu"}, ["--device", "'cpuu'"]),
        (lambda here: {"precision": "fp64"}, ["--precision", "'fp64'"]),
        (occupied, ["-o", "occupied", "retrain began"]),
        (lambda here: {"folder": here.file}, ["-o", "must be a folder"]),
        (lambda here: edited(here, "batch_size: 16", "batch_size: 999"), ["training.batch_size", "999"]),
        (lambda here: edited(here, "convolutions: 1", "convolutions: one"), ["model.convolutions", "'one'"]),
        (lambda here: edited(here, "val_size: 0.25", "val_size: 0.5"), ["split recorded"]),
        (lambda here: edited(here, "source: ", "sauce: "), ["data", "'sauce'"]),
    ],
)
def test_what_users_get_wrong_is_refused_before_anything_is_made(here, interrupts, change, parts):
    with pytest.raises(ValueError, match=r".") as refused:
        retrain(here.request("never", **change(here)), RetrainScreen(), interrupts)
    for part in parts:
        assert part in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not (here.root / "never").exists()


def test_a_folder_of_another_training_is_refused(here, seed_folder, interrupts, tmp_path):
    folder = here.root / "first"
    folder.mkdir()
    (folder / "config.yaml").write_bytes((seed_folder / "config.yaml").read_bytes())
    changed = edited(here, "dropout: 0.0", "dropout: 0.1")
    with pytest.raises(ValueError, match=r"the configuration is .* there, but .* now"):
        retrain(here.request("first", **changed), RetrainScreen(), interrupts)
    with pytest.raises(ValueError, match="keeping the validation images is False there, but True now"):
        retrain(here.request("first", keep_validation=True), RetrainScreen(), interrupts)


def test_a_config_of_a_run_is_an_export_itself(here, seed_folder):
    config = read_config(seed_folder)
    assert isinstance(config, TrainedConfiguration)
    assert config.trained_settings.training.patience == 0
    read = read_export(seed_folder / "config.yaml")
    assert read.settings == here.export.settings
    assert read.runs == here.export.runs


def test_figures_over_seeds_are_as_sure_as_they_can_be():
    from scipy import stats

    values = [0.9, 0.92, 0.97]
    figure = over_seeds(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (figure["low"], figure["high"]) == (pytest.approx(low), pytest.approx(high))
    assert high > 1
    assert "3 seeds" in figure_text(figure)
    assert figure_text(figure).endswith("to 100.00 %"), "no share is above all"
    assert over_seeds([0.5])["spread"] is None
    assert figure_text(over_seeds([0.5])) == "50.00 %, one seed"
    assert over_seeds([0.5, None]) is None


def test_a_training_that_diverges_is_written_down_as_it_is(here, tmp_path):
    order = here.order(tmp_path, 1)
    wild = order.config.settings.tree()
    wild["optimizer"]["lr"], wild["model"]["normalization"] = 1e30, "none"
    config = order.config.model_copy(update={"configuration": wild})
    train_seed(replace(order, config=config), lambda kind, what: None)
    told = json.loads((tmp_path / "seed-1" / "metrics.json").read_text())
    assert told["diverged"]
    assert told["loss"] is None
    assert np.sum(told["confusion_matrix"]) == told["test_images"] == 30
    assert told["pictures"]["filters"].startswith("none")
    text = (tmp_path / "seed-1" / "metrics.json").read_text()
    assert "NaN" not in text
    assert "Infinity" not in text
