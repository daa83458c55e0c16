"""Long work shows how far it is, to people at a terminal and to nobody else."""

import os
import subprocess
import sys

import pytest

WORK = """
from quotagate.progress import progress
with progress("Importing keys", 40, as_json={as_json}) as tick:
    for _ in range(3):
        tick(10)
    tick(1)
"""


def stderr_of(work: str, *, terminal: bool) -> str:
    ours, theirs = os.openpty() if terminal else os.pipe()
    environment = {**os.environ, "TERM": "xterm"}
    subprocess.run([sys.executable, "-c", work], stderr=theirs, env=environment, timeout=60, check=True)
    os.close(theirs)
    shown = b""
    try:
        while part := os.read(ours, 65536):
            shown += part
    except OSError:  # of a terminal that nobody writes to any more
        pass
    os.close(ours)
    return shown.decode()


def test_a_terminal_shows_how_much_of_it_is_done() -> None:
    shown = stderr_of(WORK.format(as_json=False), terminal=True)
    assert "Importing keys" in shown
    assert "31/40" in shown


@pytest.mark.parametrize(("as_json", "terminal"), [(False, False), (True, True)], ids=["piped", "with --json"])
def test_a_pipe_and_a_program_see_nothing(as_json: bool, terminal: bool) -> None:
    assert stderr_of(WORK.format(as_json=as_json), terminal=terminal) == ""
