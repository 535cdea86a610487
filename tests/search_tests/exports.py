"""For tests of trained networks: small data, a search of them that really trained, and its export."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path

import torch
from PIL import Image
from sklearn.datasets import load_digits

from search.data.request import DataRequest
from search.data.sources import load
from search.data.split import make_split
from search.objective import TrialRun
from search.prepare import adapt, data_record, split_record
from search.training.resident import make_resident
from spaces.space import Space
from studies.export import ExportedConfiguration, of_best, write_export
from studies.record import Drawing, StudyRecord
from studies.storage import open_storage
from studies.study import SearchStudy, open_study

SPACE = """
question: A test?
base:
  model: {name: vgg, widths: [4], convolutions: 1, head: 0}
  training: {epochs: 2, batch_size: 16, patience: 1}
parameters:
  optimizer.lr: {float: [0.02, 0.1], log: true, role: nuisance}
"""


def make_folder(root: Path, train: int = 24, test: int = 10, classes: int = 3) -> Path:
    """A folder of handwritten digits in colour files: so many of each class to train and to test."""
    digits = load_digits()
    for label in range(classes):
        images = iter(digits.images[digits.target == label])
        for part, count in (("train", train), ("test", test)):
            if count:
                (root / part / f"digit {label}").mkdir(parents=True)
            for index, image in enumerate(itertools.islice(images, count)):
                pixels = Image.fromarray((image * 15.9375).astype("uint8")).convert("RGB")
                pixels.save(root / part / f"digit {label}" / f"{index:03}.png")
    return root


def search(url: str, request: DataRequest, trials: int = 1, space: str = SPACE, name: str = "s") -> None:
    """A search that has trained so many trials, in this process."""
    data = load(request)
    split = make_split(data.labels_N, data.n_train, 0.25, None, 0, data.classes)
    adapted = adapt(Space.read(space, "tiny.yaml", "tiny"), data, None, "fp32").space
    record = StudyRecord(
        space_name="tiny", space=adapted.to_yaml(), space_fingerprint=adapted.fingerprint(),
        data=data_record(data, request), split=split_record(split), epochs=adapted.base.training.epochs,
        precision="fp32", seed=0, sampler="random", pruner="none",
    )  # fmt: skip
    resident = make_resident(data, split, torch.device("cpu"))
    with closing(open_storage(url, create=True)) as storage:
        study = open_study(storage, name, record, trials)
        for _ in range(trials):
            claim = study.claim("here", Drawing(sampler="random"))
            assert claim is not None
            run = TrialRun(study, claim, resident)
            while run.advance():
                pass


def export(url: str, path: Path, name: str = "s") -> ExportedConfiguration:
    """The search's best configuration, written to a file."""
    with closing(open_storage(url, create=False)) as storage:
        return write_export(of_best(SearchStudy(storage, name), url)[0], path)
