"""The table of bad input, line by line: what is given, and what the one line of the refusal says.

Each is refused by the command itself with one line (rule, value, and what to do where that is not plain),
exit code 2, nothing on the other stream, and no file made or changed. What is not here is in other files:

    unknown names, --trials, --epochs, sizes      search_tests/test_cli.py, test_data_split.py
    mistakes of other commands                    search_tests/test_repeat.py, test_retrain.py,
                                                  test_exporting.py, test_report_command.py
    stop, delete, rename, a lowered total         search_tests/test_upkeep_commands.py
    a batch larger than the training set          search_tests/test_cli.py
    a label outside the classes                   search_tests/test_noise.py
    images: other modes, link loops, devices,     search_tests/test_data_folder.py
        empty classes, names, sizes, bombs
    archives: wrong hash, cut, climbing, links    search_tests/test_data_archives.py, test_data_imagenette.py
    the cache of images: disk full, damaged       search_tests/test_data_cache.py
    YAML as text                                  spaces_tests/test_spaces_text.py
    spaces: every rule                            spaces_tests/test_spaces_refusals.py
    configurations: every bound                   spaces_tests/test_spaces_config.py
    exports: edited by hand                       studies_tests/test_export.py, search_tests/test_verify.py
    spaces, configurations, exports, at random    spaces_tests/test_spaces_fuzz.py, studies_tests/
                                                  test_export_fuzz.py
    markup in the report and in the dashboard     studies_tests/test_report.py, search_tests/test_dashboard.py
    another search under the same name            studies_tests/test_study.py
    wrong passwords, hosts and databases          studies_tests/test_storage_urls.py, test_storage_outages.py,
                                                  search_tests/test_cli.py
    passwords in pages, notes and exports         studies_tests/test_export.py, test_report.py, search_tests/
                                                  test_dashboard.py, test_screen.py, test_ray.py
    SQLite files: read-only, damaged, no database studies_tests/test_storage_sqlite.py
    SQLite on another host                        studies_tests/test_storage_hosts.py
    tables of another Optuna                      studies_tests/test_storage.py
    a full disk under the database                studies_tests/test_storage_full.py
    connections exhausted, outages of a minute    studies_tests/test_storage_outages.py
    connections that end in any way, late commits studies_tests/test_storage_ends.py
    networks that swallow packets                 studies_tests/test_storage_black_hole.py, search_tests/
                                                  test_recovery_commands.py
    locks lost, held by the frozen                studies_tests/test_storage_locks.py
    the clock set back                            studies_tests/test_heartbeat.py
    memory exhausted                              search_tests/test_objective.py, test_driver.py,
                                                  test_capture.py
    checkpoints: disk full, changed by hand       search_tests/test_recovery.py
    workers killed, frozen, hung, told to leave   search_tests/test_recovery.py
    two coordinators; the database away           search_tests/test_run.py, test_recovery_commands.py
    nodes of a cluster lost, strangers            search_tests/test_ray.py, test_slurm.py
    all of it at random                           chaos/
"""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from commands import called, refused
from made_studies import make_study, run_all
from PIL import Image
from rich.console import Console

from search.tables import summary_view
from studies.export import of_best, write_export
from studies.storage import open_storage
from studies.study import SearchStudy
from studies.summary import summarize

RUN = ("run", "--space", "regularization", "--dataset", "digits")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty working folder."""
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def check(folder: Path, words: tuple[str, ...], parts: list[str]) -> None:
    line = refused(folder, *words)
    assert line.isprintable()
    assert len(line) < 500
    for part in parts:
        assert part in line


OPTIONS = [
    # --- numbers
    (("--trials", "1e3"), ["--trials", "whole number of at least 1", "'1e3'"]),
    (("--trials", "1_000"), ["--trials", "whole number of at least 1", "'1_000'"]),
    (("--trials", "٣"), ["--trials", "whole number of at least 1", "'٣'"]),
    (("--trials", "1000001"), ["--trials", "at most 1000000", "'1000001'"]),
    (("--trials", "9" * 5000), ["--trials", "whole number", "'9999"]),
    (("--trials", ""), ["--trials: must not be empty"]),
    (("--trials=",), ["--trials: must not be empty"]),
    (("--timeout", "0"), ["--timeout", "positive time such as 90, 90s, 10m or 2h", "'0'"]),
    (("--timeout", "0.0h"), ["--timeout", "positive time", "'0.0h'"]),
    (("--timeout", "-1h"), ["--timeout", "positive time", "'-1h'"]),
    (("--timeout", "1e3"), ["--timeout", "positive time", "'1e3'"]),
    (("--timeout", "nan"), ["--timeout", "positive time", "'nan'"]),
    (("--timeout", "9" * 400), ["--timeout", "at most 10000h", "'9999"]),
    (("--workers", "-1"), ["--workers", "whole number of at least ", "'-1'"]),
    (("--workers", "1.5"), ["--workers", "whole number of at least ", "'1.5'"]),
    (("--workers", "1025"), ["--workers", "at most 1024", "'1025'"]),
    (("--seed", "1.5"), ["--seed", "whole number of at least 0", "'1.5'"]),
    (("--seed", str(2**63)), ["--seed", f"at most {2**63 - 1}", f"'{2**63}'"]),
    (("--epochs", "-3"), ["--epochs", "whole number of at least 1", "'-3'"]),
    (("--epochs", "100001"), ["training.epochs", "less than or equal to 100000", "100001"]),
    (("--val-size", "0"), ["--val-size", "share between 0 and 1 or a whole number", "'0'"]),
    (("--val-size", "-0.1"), ["--val-size", "share between 0 and 1 or a whole number", "'-0.1'"]),
    (("--val-size", "0.0000001"), ["--val-size", "1e-07: 0 of 1438 images"]),
    (("--val-size", "nan"), ["--val-size", "share between 0 and 1", "'nan'"]),
    (("--train-size", "2000"), ["--train-size", "at most the 1294 images", "2000"]),
    (("--image-size", "0"), ["--image-size", "at least 1", "'0'"]),
    (("--image-size", "100000"), ["--image-size", "at most 1024", "'100000'"]),
    # --- names and places
    (("--study", "a\udcffb"), ["--study: must be UTF-8 text", r"'a\udcffb'"]),
    (("--study", "a\nb"), ["--study", "1 to 200 printable characters", r"'a\nb'"]),
    (("--study", "a\tb"), ["--study", "1 to 200 printable characters", r"'a\tb'"]),
    (("--study", "a\u202eb"), ["--study", "1 to 200 printable characters", r"'a\u202eb'"]),
    (("--study", "a\x1b[31mb"), ["--study", "1 to 200 printable characters", r"'a\x1b[31mb'"]),
    (("--study", ""), ["--study: must not be empty"]),
    (("--study", "a/confirm"), ["--study: must not end in /confirm or /ablate", "'a/confirm'"]),
    (("--study", "a/confirm-5-fold"), ["--study: must not end in /confirm or /ablate"]),
    (("--study", "a/ablate"), ["--study: must not end in /confirm or /ablate"]),
    (("--dataset", ""), ["--dataset: must not be empty"]),
    (("--dataset", "x" * 5000), ["--dataset", "unknown data set 'xxx", "existing folder"]),
    (("--dataset", "[red]x[/y]"), ["--dataset", "unknown data set '[red]x[/y]'"]),
    (("--data-dir", ""), ["--data-dir: must not be empty"]),
    (("--data-dir", "\udcff"), ["--data-dir: must be UTF-8 text", r"'\udcff'"]),
    (("--data-dir", "/dev/null/x"), ["/dev/null/x", "cannot be written", "--data-dir"]),
    (("--storage", "sqlite:///\udcff.db"), ["--storage: must be UTF-8 text", "rename it"]),
    (("--space", "\udcff.yaml"), ["--space: must be UTF-8 text", r"'\udcff.yaml'"]),
]  # fmt: skip


@pytest.mark.parametrize(("words", "parts"), OPTIONS, ids=lambda value: ascii(" ".join(value))[:40])
def test_options(folder: Path, words: tuple[str, ...], parts: list[str]) -> None:
    check(folder, (*RUN, *words), parts)


OTHER_COMMANDS = [
    (("show", "\udcff"), ["must be UTF-8 text", r"'\udcff'"]),
    (("show", ""), ["must not be empty"]),
    (("data", "digits", "--preview", "\udcff.png"), ["--preview: must be UTF-8 text"]),
    (("dashboard", "--port", "65536"), ["--port", "at most 65535", "'65536'"]),
    (("verify", "none.yaml"), ["none.yaml: cannot be read (No such file or directory)"]),
    (("verify", "."), [".: cannot be read (Is a directory)"]),
    (("spaces", "x" * 300 + ".yaml"), ["cannot be read: File name too long"]),
]


@pytest.mark.parametrize(("words", "parts"), OTHER_COMMANDS, ids=lambda value: ascii(" ".join(value))[:40])
def test_other_commands(folder: Path, words: tuple[str, ...], parts: list[str]) -> None:
    check(folder, words, parts)


SPACE = """question: What?
base: {training: {epochs: 1}}
parameters:
  model.dropout: {float: [0.0, 0.5], role: scientific}
"""
BASE = "{training: {epochs: 1}}"
SPACES = [
    # --- as text
    (SPACE + "base: {}\n", ["line 5: duplicate key 'base'"]),
    ("a: &a [x]\nb: &b [*a, *a]\nc: [*b, *b]\n", ["line 1: anchors and aliases are not allowed"]),
    (SPACE.replace("What?", "!!python/object:os.system x"), ["tags are not allowed", "python/object"]),
    (SPACE.replace("What?", "!custom x"), ["line 1: tags are not allowed, but got '!custom'"]),
    (SPACE + "---\n" + SPACE, ["line 5: expected a single document"]),
    ("\t" + SPACE, ["line 1: found character", "cannot start any token"]),
    (b"\xff" + SPACE.encode(), ["must be UTF-8 text, but byte 0 is not"]),
    (SPACE.encode("utf-16"), ["must be UTF-8 text, but byte 0 is not"]),
    (SPACE.replace("What?", "What\0?"), ["line 1: character 0 is not allowed"]),
    (SPACE.replace("What?", r'"What\0?"'), [r"line 1: character '\x00' is not allowed"]),
    (SPACE.replace("What?", r'"What\udcff?"'), [r"line 1: character '\udcff' is not allowed"]),
    (SPACE.replace("What?", r'"What\e[31m?"'), ["question: must be printable text", r"'What\x1b[31m?'"]),
    (SPACE.replace("What?", r'"What\u202e?"'), ["question: must be printable text", r"'What\u202e?'"]),
    ("[1, 2]", ["must be a mapping with question, base and parameters, but got [1, 2]"]),
    ("", ["must be a mapping with question, base and parameters, but got None"]),
    ("question: " + "x" * 10_000_000, ["is too large: at most 1000000 bytes are read"]),
    ("- " * 10_000, ["line 1: nested more than 50 levels deep"]),
    ("{a: " * 10_000, ["line 1: nested more than 50 levels deep"]),
    # --- values
    (SPACE.replace("epochs: 1", "epochs: yes"), ["training.epochs", "valid integer, but got 'yes'"]),
    (SPACE.replace("epochs: 1", "epochs: true"), ["training.epochs", "valid integer, but got True"]),
    (SPACE.replace("epochs: 1", "epochs: 1e0"), ["training.epochs", "valid integer, but got 1.0"]),
    (SPACE.replace("epochs: 1", "epochs: " + "9" * 400), ["training.epochs", "100000, but got 999"]),
    (SPACE.replace("0.5]", ".nan]"), ["model.dropout: float: must be finite, but got nan"]),
    (SPACE.replace("0.5]", ".inf]"), ["model.dropout: float: must be finite, but got inf"]),
    (SPACE.replace("0.5]", "1e400]"), ["model.dropout: float: must be finite, but got inf"]),
    (SPACE.replace("0.5]", "9" * 400 + "]"), ["model.dropout: float: must be finite, but got 999"]),
    (SPACE.replace("0.5]", "on]"), ["model.dropout: float: must be a number, but got 'on'"]),
    (SPACE.replace(BASE, "{model: {name: vgg, widths: [%s]}}" % ("9" * 20)), ["model.widths.0", "65536"]),
    (SPACE.replace(BASE, "{data: {noise_seed: %s}}" % ("9" * 400)), ["data.noise_seed", "less than"]),
    (SPACE.replace(BASE, "{optimizer: {name: sgd, lr: .nan}}"), ["optimizer.lr", "finite", "nan"]),
    (SPACE.replace(BASE, r'{data: {noise_file: "a\eb"}}'), ["data.noise_file", "printable text"]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "parts"), SPACES, ids=lambda value: ascii(value)[-50:])
def test_space_files(folder: Path, content: str | bytes, parts: list[str]) -> None:
    (folder / "mine.yaml").write_bytes(content.encode() if isinstance(content, str) else content)
    check(folder, ("spaces", "mine.yaml"), ["mine.yaml", *parts])


def test_what_yaml_1_1_would_misread_is_read(folder: Path) -> None:
    (folder / "mine.yaml").write_text(SPACE.replace("0.5]", "1e-1]"))
    assert "uniform 0 to 0.1" in called(folder, "spaces", "mine.yaml")[1]


EXPORTS = [
    ("\nexported: ", "\nexported: 1 # ", ["exported", "must be a time such as", "got 1"]),
    ("\nexported: ", "\nexported: '1' # ", ["exported", "must be a time such as", "got '1'"]),
    ("format: 1", "format: 99", ["format: input should be 1, but got 99"]),
    ("\nquestion:", "\nquestoin:", ["question: field required"]),
    ("\nscore:", "\nspeed: 1\nscore:", ["unknown key 'speed'"]),
    ("precision: fp32\nscore", "precision: fp64\nscore", ["precision", "fp32|bf16", "'fp64'"]),
    ("  mean: 0.5", "  mean: yes", ["score.mean", "valid number", "'yes'"]),
    ("  mean: 0.5", "  mean: .inf", ["score.mean", "finite number", "inf"]),
    ("    seed: 0\n", "    seed: -1\n", ["runs.0.split: seed", "from 0 on", "-1"]),
    ("    fold: null", "    fold: 3", ["runs.0.split: fold and folds", "fold=3, folds=None"]),
    ("    dropout: 0", "    dropout: 1.5", ["configuration: model.dropout", "1.5"]),
    ("  training:\n    epochs: 4", "  training:\n    epochs: " + "9" * 400, ["training.epochs", "100000"]),
    ("    patience: 0\n", "", ["configuration.training.patience: must be given", "its default is 0"]),
    ("  source: ''", r'  source: "a\0b"', [r"character '\x00' is not allowed"]),
    ("  image_size: null", "  image_size: 9999", ["--image-size must be 1 to 1024 pixels, but got 9999"]),
    ("  hash: d\n", "  hash: e\n", ["have the hash e, but digits here has 8eeee500c2c6"]),
]  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The text of an export."""
    folder = tmp_path_factory.mktemp("export")
    with closing(open_storage(f"sqlite:///{folder}/s.db", create=True)) as storage:
        study = make_study(storage, MARKED, 1)
        run_all(study, lambda _: 0.5)
        write_export(of_best(study, "sqlite:///s.db")[0], folder / "best.yaml")
    return (folder / "best.yaml").read_text()


@pytest.mark.parametrize(("old", "new", "parts"), EXPORTS, ids=[edit[1].strip()[:30] for edit in EXPORTS])
def test_exports_changed_by_hand(folder: Path, exported: str, old: str, new: str, parts: list[str]) -> None:
    assert old in exported
    (folder / "mine.yaml").write_text(new.join(exported.rsplit(old, 1)))
    check(folder, ("verify", "mine.yaml"), parts)


def test_a_changed_export_trains_nothing(folder: Path, exported: str) -> None:
    (folder / "mine.yaml").write_text(exported.replace("  hash: d\n", "  hash: e\n"))
    check(folder, ("retrain", "mine.yaml", "-o", "out"), ["have the hash e", "8eeee500c2c6"])
    assert not (folder / "out").exists()


def test_a_changed_fingerprint_is_nothing_to_verify_against(folder: Path, exported: str) -> None:
    (folder / "mine.yaml").write_text(exported.replace("\nfingerprint: ", "\nfingerprint: f"))
    check(folder, ("verify", "mine.yaml"), ["not the one that its runs trained", "retrain trains it"])


def png(mode: int, bits: int, side: int = 6, pixels: bytes = b"") -> bytes:
    """A PNG file of one of its own modes (2: colour, 4: grey and alpha, 6: colour and alpha)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, bits, mode, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(pixels))
        + chunk(b"IEND", b"")
    )


def sixteen_bits(mode: int, channels: int) -> bytes:
    return png(mode, 16, 6, b"".join(b"\0" + bytes(6 * 2 * channels) for _ in range(6)))


FILES = [
    ("a.png", sixteen_bits(2, 3), ["8 bits a channel", "RGB;16B"]),
    ("a.png", sixteen_bits(4, 2), ["8 bits a channel", "LA;16B"]),
    ("a.png", sixteen_bits(6, 4), ["8 bits a channel", "RGBA;16B"]),
    ("a.ppm", b"P6 6 6 65535\n" + bytes(6 * 6 * 6), ["8 bits a channel", "RGB with values to 65535"]),
    ("a.png", png(2, 8, 20_000), ["400000000 pixels) exceeds limit", "decompression bomb"]),
    ("a.png", png(2, 8, 8_000), ["truncated"]),
    ("a.jpg", b"", ["must be an image (JPEG, PNG, ", "but is none, or damaged"]),
    ("a.jpg", b"dear diary", ["must be an image (JPEG, PNG, ", "but is none, or damaged"]),
    ("a.png", b"GIF89a" + bytes(20), ["must be an image (JPEG, PNG, ", "but is none, or damaged"]),
]  # fmt: skip


@pytest.fixture
def pets(folder: Path) -> Path:
    """A folder of images of two classes."""
    for name in ("cat", "dog"):
        (folder / "pets/train" / name).mkdir(parents=True)
        for number in range(6):
            Image.new("RGB", (6, 6), (number, 0, 0)).save(folder / f"pets/train/{name}/{number}.png")
    return folder / "pets"


@pytest.mark.parametrize(("name", "content", "parts"), FILES)
def test_image_files(folder: Path, pets: Path, name: str, content: bytes, parts: list[str]) -> None:
    (pets / "train/cat" / name).write_bytes(content)
    check(folder, ("data", "pets"), [f"train/cat/{name}", *parts])


def link_to_itself(pets: Path) -> None:
    shutil.rmtree(pets)
    pets.symlink_to("pets")


def dangling_link(pets: Path) -> None:
    (pets / "train/cat/9.png").symlink_to("nowhere.png")


def class_is_a_link_to_its_parent(pets: Path) -> None:
    (pets / "train/cat/all").symlink_to("..")


FOLDERS: list[tuple[Callable[[Path], None], list[str]]] = [
    (link_to_itself, ["--dataset", "a path must be an existing folder"]),
    (dangling_link, ["train/cat/9.png: cannot be read (No such file or directory)"]),
    (class_is_a_link_to_its_parent, ["train/cat/all: a class must hold its images itself"]),
]


@pytest.mark.parametrize(("damage", "parts"), FOLDERS)
def test_folders_of_images(
    folder: Path, pets: Path, damage: Callable[[Path], None], parts: list[str]
) -> None:
    damage(pets)
    check(folder, ("data", "./pets"), parts)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything, whatever its mode")
def test_an_image_that_may_not_be_read(folder: Path, pets: Path) -> None:
    (pets / "train/cat/0.png").chmod(0)
    line = called(folder, "data", "pets")[2]
    assert "train/cat/0.png: " in line
    assert "Permission denied" in line


def test_images_are_turned_as_their_exif_data_say(folder: Path) -> None:
    from search.data.decode import decode, image_size

    seen = np.random.default_rng(0).integers(0, 256, (4, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    Image.fromarray(np.rot90(seen)).save(folder / "a.png", exif=exif)
    assert image_size(folder / "a.png") == (4, 7)
    np.testing.assert_array_equal(np.asarray(decode(folder / "a.png", (4, 7), resize=False)[0]), seen)


# --- names that are markup somewhere

NAMES = ["[red]x[/y]", "<script>alert(1)</script>", "# *a* | `b` [x](y)", "a/../../b", "x' \"; rm -rf"]
MARKED = """
question: '[bold]Which[/y] <b>?'
base: {training: {epochs: 4}}
parameters:
  model.activation@[i]: {choice: {'[/red]': relu, '<b>': tanh}, role: scientific}
  model.dropout: {float: [0.0, 0.2], step: 0.1, role: scientific}
"""


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies of such names, whose space, parameters and options are markup, too."""
    file = tmp_path_factory.mktemp("names") / "cifar-search.db"
    with closing(open_storage(f"sqlite:///{file}", create=True)) as storage:
        for name in NAMES:
            run_all(make_study(storage, MARKED, 3, name), lambda parameters: parameters["model.dropout"])
    return file


@pytest.mark.parametrize("name", NAMES)
def test_names_are_shown_as_they_are(folder: Path, database: Path, name: str) -> None:
    shutil.copy(database, folder)
    for words in (["studies"], ["show", name], ["effects", name]):
        code, out, err = called(folder, *words)
        assert (code, err) == (0, "")
        assert name in out
        assert "model.activation@[i]" in out or words == ["studies"]


@pytest.mark.parametrize("name", NAMES)
def test_names_go_into_no_path_and_no_page(folder: Path, database: Path, name: str) -> None:
    shutil.copy(database, folder)
    assert called(folder, "export", name, "-o", "best.yaml")[0] == 0
    (answer,) = [line for line in (folder / "best.yaml").read_text().splitlines() if "answer:" in line]
    assert repr(name)[1:-1] in answer
    assert called(folder, "report", name, "-o", "page.html")[0] == 0
    assert "<script>alert" not in (folder / "page.html").read_text()
    made = {path.name for path in folder.parent.rglob("*")}
    assert made <= {"here", "cifar-search.db", "cifar-search.db.lock", "best.yaml", "page.html"}


def test_what_a_search_shows_at_its_end_is_no_markup(database: Path) -> None:
    with closing(open_storage(f"sqlite:///{database}", create=False)) as storage:
        view = summary_view(summarize(SearchStudy(storage, NAMES[0])))
    console = Console(file=io.StringIO(), width=200)
    console.print(view)
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert NAMES[0] in shown
    assert "activation@[i] [/red]" in shown or "activation@[i] <b>" in shown


# --- a database that is damaged beyond its first page


@pytest.mark.parametrize(
    "words",
    [
        ("studies",),
        ("show", "s"),
        ("effects", "s"),
        ("report", "s", "-o", "page.html"),
        ("worker", "s"),
        ("confirm", "s"),
        ("run", "--space", "regularization", "--dataset", "digits", "--trials", "1"),
    ],
    ids=lambda words: words[0],
)
def test_a_damaged_database_is_refused_and_not_touched(folder: Path, words: tuple[str, ...]) -> None:
    database = folder / "cifar-search.db"
    with closing(open_storage(f"sqlite:///{database}", create=True)) as storage:
        run_all(make_study(storage, MARKED, 3, "s"), lambda _: 0.5)
    with closing(sqlite3.connect(database)) as connection:
        roots = "SELECT rootpage FROM sqlite_master WHERE name IN ('trials', 'trial_user_attributes')"
        pages = [page for (page,) in connection.execute(roots)]
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with database.open("r+b") as file:
        for page in pages:
            file.seek((page - 1) * size)
            file.write(b"\xa5" * size)
    check(folder, words, [f"{database.name}: the database is damaged: "])


# --- a place for checkpoints that is none


def test_checkpoints_that_can_never_be_kept(folder: Path, postgres_url: str) -> None:
    run = (*RUN, "--trials", "1", "--workers", "1")
    (folder / "cifar-search.db.checkpoints").write_text("mine")
    parts = [
        "checkpoints: must be kept in",
        "cifar-search.db.checkpoints is none (Not a directory)",
        "rename it",
    ]
    check(folder, run, parts)
    (folder / "file").write_text("mine")
    words = (*run, "--storage", postgres_url)
    for shared in (str(folder / "file"), str(folder / "file" / "below"), "/proc/none"):
        line = refused(folder, *words, CIFAR_SEARCH_SHARED=shared)
        assert "checkpoints: must be kept in a folder that can be written, but /" in line
        assert line.endswith("let $CIFAR_SEARCH_SHARED name another")


# --- images of another data set


def test_workers_take_no_other_images(folder: Path) -> None:
    with closing(open_storage(f"sqlite:///{folder / 'cifar-search.db'}", create=True)) as storage:
        make_study(storage, MARKED, 3, "s")
    for words, part in (
        (("--dataset", "cifar10"), "those of digits, but got cifar10: leave the option out"),
        (("--dataset", "digits"), "those of digits, have the hash d, but digits here has"),
    ):
        code, out, error = called(folder, "worker", "s", *words)
        assert (code, out, len(error.splitlines())) == (2, "", 1)
        assert error.startswith("cifar-search: --dataset: the study's images")
        assert part in error


# --- a study of another space


def test_the_same_study_name_with_another_space(folder: Path) -> None:
    with closing(open_storage(f"sqlite:///{folder / 'cifar-search.db'}", create=True)) as storage:
        make_study(storage, MARKED, 3, "s")
    (folder / "other.yaml").write_text(MARKED)
    for space, named in (("schedule", "schedule"), ("./other.yaml", "other")):
        words = ("run", "--space", space, "--dataset", "digits", "--study", "s", "--trials", "2")
        parts = ["study 's' cannot be continued: the ", "the space is mine (", f"{named} ("]
        check(folder, words, [*parts, "choose another --study NAME"])


# --- disk full


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("only root on Linux can mount a small disk")
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "none", place], capture_output=True
    ).returncode:
        pytest.skip("this machine lets nobody mount")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_no_part_of_the_cache(folder: Path, small_disk: Path) -> None:
    words = ("data", "digits", "--data-dir", str(small_disk))
    check(folder, words, ["No space left on device", "choose another folder by --data-dir"])
    assert list(small_disk.rglob("*")) == [small_disk / "cache"]
    subprocess.run(["mount", "-o", "remount,size=1m", small_disk], check=True)
    assert called(folder, *words)[0] == 0
