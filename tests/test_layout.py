"""The rules that hold for the project as a whole: which package imports which, and what documents say."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
import warm

from studies.folders import CHECKPOINTS, folder_of
from studies.hosts import host_file
from studies.locks import lock_file

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {"spaces": set(), "studies": {"spaces"}, "search": {"spaces", "studies"}}
NEVER = {"spaces": {"torch", "optuna", "sqlalchemy"}, "studies": {"torch"}, "search": set()}


def imported(file: Path) -> set[str]:
    """The top-level packages that a file imports, at any place in it."""
    names = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_point_one_way(package):
    files = list((ROOT / package).rglob("*.py"))
    assert files
    for file in files:
        names = imported(file)
        others = names & set(MAY_IMPORT) - {package}
        assert others <= MAY_IMPORT[package], file
        assert not names & NEVER[package], file


def test_training_knows_nothing_of_studies_and_only_the_objective_joins_them():
    for file in (ROOT / "search" / "training").rglob("*.py"):
        assert not imported(file) & {"studies", "optuna"}, file


@pytest.mark.parametrize("command", [["--help"], ["spaces"], ["spaces", "regularization"], ["run", "--help"]])
def test_help_and_spaces_import_nothing_heavy(command):
    program = (
        "import sys\n"
        f"sys.argv = ['cifar-search', *{command!r}]\n"
        "from search.cli import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code, end.code\n"
        "print('HEAVY', sorted({'torch', 'optuna', 'sqlalchemy', 'sklearn', 'numpy'} & set(sys.modules)))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "HEAVY []"


def commands() -> dict[str, set[str]]:
    """Every command and its options, as its help shows them."""

    def help_of(*words: str) -> str:
        return warm.run([*words, "--help"], cwd=ROOT).stdout

    names = re.findall(r"^  (\w+) +\S", help_of().split("Commands:")[1], re.MULTILINE)
    return {name: set(re.findall(r"^  (--[\w-]+)", help_of(name), re.MULTILINE)) for name in names}


def test_every_command_and_option_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    found = commands()
    assert {"run", "spaces", "data", "studies", "show"} <= set(found)
    for name, options in found.items():
        assert f"cifar-search {name}" in readme, name
        missing = {option for option in options - {"--help"} if f"`{option}" not in readme}
        assert not missing, (name, missing)


def test_every_built_in_space_is_in_the_readme():
    readme = (ROOT / "README.md").read_text()
    for file in (ROOT / "spaces" / "library").glob("*.yaml"):
        assert f"`{file.stem}`" in readme, file.stem


def test_no_document_names_a_path_of_somebodys_machine():
    words = ["git", "ls-files", "*.md", "*.py", "*.yaml", "*.toml"]
    tracked = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in tracked:
        text = (ROOT / name).read_text()
        assert not re.search(r"(?<![\w.])/(?:work|home/(?!me/)|root|Users)/\w", text), name


def test_what_the_program_leaves_beside_a_database_is_not_committed(tmp_path):
    database = tmp_path / "cifar-search.db"
    url = f"sqlite:///{database}"
    folders = [folder_of(url, kind) / "x" for kind in (CHECKPOINTS, "artifacts")]
    of_sqlite = [database.with_name(f"{database.name}-{kind}") for kind in ("wal", "shm", "journal")]
    left = [database, *of_sqlite, lock_file(database), host_file(database), *folders]
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / ".gitignore").write_text((ROOT / ".gitignore").read_text())
    listed = subprocess.run(
        ["git", "-C", tmp_path, "check-ignore", *left], capture_output=True, text=True, check=True
    ).stdout
    assert listed.split() == [str(path) for path in left]
