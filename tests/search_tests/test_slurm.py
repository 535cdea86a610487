"""The recipe for SLURM: the README's script, run by a SLURM of one node."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from one_node_slurm import Slurm, one_node, why_not
from optuna.trial import TrialState
from running import Command, closed_exactly, run_words, soon, start, training, trials_of

from studies.record import outcome_of, slot_of

__all__ = ["start"]
README = Path(__file__).parents[2] / "README.md"


def recipe() -> str:
    """The README's script."""
    lines = README.read_text().partition("    #!/bin/bash\n")[2].splitlines()
    indented = "\n".join(lines).partition("\n\n")[0]
    return "#!/bin/bash\n" + re.sub(r"^    ", "", indented, flags=re.MULTILINE) + "\n"


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    """A SLURM of this machine alone."""
    if reason := why_not():
        pytest.skip(reason)
    with one_node() as running:
        yield running


@pytest.mark.slow
def test_an_array_of_workers_closes_the_study_though_one_is_preempted(
    slurm: Slurm,
    start: Callable[..., Command],
    tmp_path: Path,
    postgres_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CIFAR_SEARCH_DATA", str(tmp_path / "data"))
    (tmp_path / "workers.sbatch").write_text(recipe())
    (tmp_path / ".venv").symlink_to(sys.prefix)
    slurm.environment |= {"CIFAR_SEARCH_STORAGE": postgres_url, "CIFAR_SEARCH_DATA": str(tmp_path / "data")}
    slurm.environment |= {"CIFAR_SEARCH_SHARED": str(tmp_path / "shared")}
    made = start(*run_words(postgres_url, 6, 0, "--epochs", "400"))
    assert made.ended() == 0, made.output

    words = ["sbatch", "--parsable", "--array=1-2", "workers.sbatch", "s"]
    sent = subprocess.run(words, cwd=tmp_path, env=slurm.environment, capture_output=True, text=True)
    job = sent.stdout.strip()
    assert job, sent.stderr

    def logs() -> str:
        return "\n".join(log.read_text() for log in tmp_path.glob("slurm-*.out"))

    assert soon(lambda: len(training(postgres_url)) == 2), logs()
    slurm.call("scontrol", "requeue", f"{job}_1")  # as a job of higher priority would
    assert soon(lambda: ended(postgres_url, "interrupted")), logs()
    assert soon(lambda: "(BeginTime)" in slurm.call("squeue", "-h", "-r", "-o", "(%r)")), logs()
    slurm.call("scontrol", "update", f"JobId={job}_1", "StartTime=now")  # else in two minutes
    assert soon(lambda: not slurm.jobs()), logs()

    assert closed_exactly(postgres_url, 6)
    (preempted,) = ended(postgres_url, "interrupted")
    attempts = [trial for trial in trials_of(postgres_url) if slot_of(trial) == slot_of(preempted)]
    assert [trial.state for trial in attempts] == [TrialState.FAIL, TrialState.COMPLETE]
    assert logs().count("study 's': ") == 3
    assert "Traceback" not in logs()


def ended(url: str, reason: str) -> list:
    """The attempts that ended for a reason."""
    return [t for t in trials_of(url) if (outcome := outcome_of(t)) and outcome.reason == reason]
