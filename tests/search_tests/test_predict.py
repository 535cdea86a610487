"""Classes of image files: the accuracy that was recorded, and files that are no images."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from exports import export, make_folder, search
from PIL import Image

from search.data.request import DataRequest
from search.data.sources import load, load_test
from search.retraining.predict import as_line, predict
from search.retraining.retrain import RetrainRequest, _config
from search.retraining.seed_run import SeedOrder, train_seed

ROOT = Path(__file__).parents[2]


def trained(root: Path, request: DataRequest) -> Path:
    """The folder of one network, trained on these data."""
    search(f"sqlite:///{root}/s.db", request)
    made = export(f"sqlite:///{root}/s.db", root / "best.yaml")
    order = RetrainRequest(root / "best.yaml", root, seeds=1)
    config = _config(order, made, load(request), torch.device("cpu"))
    seed = SeedOrder(config, request, True, "cpu", root, 1, config.trained.seeds[0])
    train_seed(seed, lambda kind, what: None)
    return root / "seed-1"


@pytest.fixture(scope="module")
def coloured(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("coloured")
    return trained(root, DataRequest(str(make_folder(root / "images")), root / "data"))


@pytest.fixture(scope="module")
def grey(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("grey")
    return trained(root, DataRequest("digits", root / "data"))


def told(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def test_the_test_files_get_the_recorded_accuracy_in_a_new_process_to_the_last_digit(coloured):
    files = coloured.parent / "images" / "test"
    words = [sys.executable, "-m", "search.cli", "predict", str(coloured), str(files), "--json", "--top", "3"]
    predictions = json.loads(subprocess.check_output(words, cwd=ROOT, stderr=subprocess.DEVNULL))
    right = sum(Path(one["path"]).parent.name == one["class"] for one in predictions)
    assert right / len(predictions) == told(coloured)["accuracy"]
    assert [one["path"] for one in predictions] == [str(path) for path in sorted(files.rglob("*.png"))]
    for one in predictions:
        shares = [answer["probability"] for answer in one["top"]]
        assert sum(shares) == pytest.approx(1, abs=1e-6)
        assert shares == sorted(shares, reverse=True)
        assert one["top"][0] == {"name": one["class"], "probability": one["probability"]}


def test_digits_as_files_of_any_mode_get_the_recorded_accuracy(grey, tmp_path):
    test = load_test(DataRequest("digits", grey.parent / "data"))
    for mode in ("L", "RGB", "RGBA"):
        (tmp_path / mode).mkdir()
    for index, (image_HWC, label) in enumerate(zip(test.images_NHWC, test.labels_N, strict=True)):
        for mode in ("L", "RGB", "RGBA"):
            image = Image.fromarray(image_HWC[:, :, 0]).convert(mode)
            image.save(tmp_path / mode / f"{index:04} {label}.png")
    for mode in ("L", "RGB", "RGBA"):
        predictions = list(predict(grey, [tmp_path / mode]))
        right = sum(Path(one.path).stem.split()[1] == one.top[0].name for one in predictions)
        assert right / len(predictions) == told(grey)["accuracy"], mode


def test_images_of_another_size_are_resized_as_those_of_a_data_set(coloured, tmp_path):
    source = sorted((coloured.parent / "images" / "test").rglob("*.png"))[0]
    with Image.open(source) as image:
        image.resize((31, 17), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    with Image.open(tmp_path / "large.png") as image:
        image.resize((8, 8), Image.Resampling.BILINEAR).save(tmp_path / "small.png")
    large, small = predict(coloured, [tmp_path / "large.png", tmp_path / "small.png"])
    assert large.top == small.top


def test_a_line_holds_the_file_and_its_likeliest_classes(coloured):
    source = sorted((coloured.parent / "images" / "test").rglob("*.png"))[0]
    (one,) = predict(coloured, [source], top=2)
    name, _, answers = as_line(one).partition(".png: ")
    assert name == str(source.with_suffix(""))
    assert answers.startswith(one.top[0].name)
    assert answers.count("%") == 2


def test_hidden_and_other_files_of_a_folder_are_passed_over(coloured, tmp_path):
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / ".b.png").write_text("hidden")
    (tmp_path / "notes.txt").write_text("no image")
    assert [Path(one.path).name for one in predict(coloured, [tmp_path])] == ["a.png"]


def test_what_is_no_image_is_refused_by_its_name(coloured, tmp_path):
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=r"notes\.txt: must be an image"):
        list(predict(coloured, [tmp_path / "notes.txt"]))
    with pytest.raises(ValueError, match="there is no image in this folder"):
        list(predict(coloured, [tmp_path]))
    with pytest.raises(ValueError, match=r"gone\.png"):
        list(predict(coloured, [tmp_path / "gone.png"]))


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("config.yaml", None, r"config\.yaml: cannot be read"),
        ("model.safetensors", None, "safetensors"),
        ("model.safetensors", b"PK\x03\x04 a pickle", "safetensors"),
        ("config.yaml", ("widths: [4]", "widths: [8]"), r"model\.safetensors"),
        ("config.yaml", ("  mean: [", "  mean: [0.1, "), "trained.mean"),
        ("config.yaml", ("  mean: [", "  main: ["), "trained.mean"),
        ("config.yaml", ("trained:", "untrained:"), "trained"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused(coloured, tmp_path, file, content, said):
    for name in ("config.yaml", "model.safetensors"):
        (tmp_path / name).write_bytes((coloured / name).read_bytes())
    if content is None:
        (tmp_path / file).unlink()
    elif isinstance(content, bytes):
        (tmp_path / file).write_bytes(content)
    else:
        text = (tmp_path / file).read_text()
        assert content[0] in text
        (tmp_path / file).write_text(content[1].join(text.rsplit(content[0], 1)))
    with pytest.raises(ValueError, match=said) as refused:
        list(predict(tmp_path, [coloured / "filters.png"]))
    assert "\n" not in str(refused.value)
