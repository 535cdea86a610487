"""Names of processes, and which of them are certainly dead."""

from __future__ import annotations

import os
import subprocess
import sys

from studies.processes import is_dead, process_name, short_name

UNTIL_TOLD = [sys.executable, "-c", "import sys; sys.stdin.read()"]


def test_a_process_is_dead_from_when_it_ends_and_not_before():
    with subprocess.Popen(UNTIL_TOLD, stdin=subprocess.PIPE) as process:
        name = process_name(process.pid)
        assert not is_dead(name)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and nobody has collected it
        assert is_dead(name)
    assert is_dead(name)


def test_another_process_with_the_same_number_does_not_pass_for_the_dead_one():
    mine = process_name(os.getpid())
    former = mine.rpartition(":")[0] + ":1"
    assert not is_dead(mine)
    assert is_dead(former)


def test_nothing_is_known_of_processes_elsewhere():
    host, place, pid, start = process_name(os.getpid()).split(":")
    assert not is_dead(f"{host}x:{place}:{pid}:1")
    assert not is_dead(f"{host}:{place}x:{pid}:1")
    assert not is_dead(f"x{host}:{place}:{pid}:{start}")
    assert not is_dead("")
    assert not is_dead("worker 7")


def test_people_see_host_and_number_of_a_process():
    assert short_name("lab-3:0f3a:4711:99") == "lab-3:4711"
    assert short_name("") == ""
