"""What `.ci/rows` shows of tests that run beside each other, and which of them `.ci/tests` runs once more."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

CI = Path(__file__).parents[1] / ".ci"
ROWS = CI / "rows"
FAILING = "echo 'FAILED tests/test_some.py::test_that_fails - assert 0'; echo 'ERROR tests/test_some.py'; exit 3"

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="it is a script of bash")


def started(*rows: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([str(ROWS), *rows], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def is_running(number: int) -> bool:
    """Not one that has ended and that nobody has waited for: a container may have no init that does."""
    try:
        return bool(psutil.Process(number).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_each_line_is_shown_as_it_comes_with_the_row_that_it_is_of(tmp_path: Path) -> None:
    waits = tmp_path / "waits"
    with started("first", f"echo begun; until [ -e {waits} ]; do sleep 0.05; done; echo over >&2") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "[first] begun\n"
        waits.touch()
        assert process.stdout.readline() == "[first] over\n"
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_the_last_lines_are_the_failed_tests_of_all_rows_and_the_rows_that_failed() -> None:
    with started("first", FAILING, "second", "sleep 0.5; echo much; echo more") as process:
        lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 1
    assert lines[-4:] == [
        "",
        "[first] FAILED tests/test_some.py::test_that_fails - assert 0",
        "[first] ERROR tests/test_some.py",
        "[first] failed with exit code 3",
    ]
    assert "[second] more" in lines[:-4]


def test_what_pytest_says_of_a_failed_test_is_among_the_last_lines() -> None:
    said = "===== FAILURES ====;___ test_that_fails ___;>   assert 1 == 0;=== short test summary info ==="
    failing = f"echo '{said}' | tr ';' '\\n'"
    with started("first", f"{failing}; exit 1", "second", f"{failing}; sleep 0.5; echo much; exit 1") as process:
        lines = process.communicate(timeout=60)[0].splitlines()
    last = lines[lines.index("[second] much") + 1 :]
    assert last[:8] == [f"[{row}] {line}" for row in ("first", "second") for line in said.split(";")]


@pytest.mark.parametrize(("first", "second"), [("exit 0", "exit 2"), ("exit 2", "exit 0")])
def test_one_row_that_fails_is_enough_to_fail(first: str, second: str) -> None:
    with started("first", first, "second", second) as process:
        process.communicate(timeout=60)
    assert process.returncode == 1


def test_a_time_limit_leaves_the_failed_tests_for_the_last_lines_and_no_process(tmp_path: Path) -> None:
    lasting = f"trap '' TERM; echo $$ >{tmp_path}/process; echo begun; while true; do sleep 0.05; done"
    with started("first", FAILING, "second", lasting) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(3)]
        assert "[second] begun\n" in lines
        process.send_signal(signal.SIGTERM)
        lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 1
    assert lines[-1] == "[second] was not run to its end"
    assert "[first] FAILED tests/test_some.py::test_that_fails - assert 0" in lines
    number = int((tmp_path / "process").read_text())
    deadline = time.monotonic() + 30
    while is_running(number):
        assert time.monotonic() < deadline
        time.sleep(0.05)


UNSTEADY = """
from pathlib import Path

def test_that_fails_once():
    seen = Path(__file__).with_suffix(".seen")
    if not seen.exists():
        seen.touch()
        assert False

def test_that_passes():
    pass
"""
BROKEN = "def test_that_fails():\n    assert False\n"


def run_tests(folder: Path, tests: dict[str, str], arguments: str = "") -> tuple[int, list[str]]:
    """The exit status and the lines of a row whose tests these are, by their paths."""
    # The `tests` of a folder above, whose settings are not these.
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "Makefile").write_text(f"test:\n\t{sys.executable} -m pytest --import-mode=importlib $(ARGS)\n")
    for path, text in tests.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    command = [str(CI / "tests"), "some", "test", arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("arguments", ["", "-n 2 --dist loadfile"])
def test_a_test_that_passes_when_it_is_run_once_more_is_told_as_unsteady(tmp_path: Path, arguments: str) -> None:
    status, lines = run_tests(tmp_path, {"tests/control/test_some.py": UNSTEADY}, arguments)
    assert status == 0, lines
    assert any(line.startswith("FAILED tests/control/test_some.py::test_that_fails_once") for line in lines)
    assert lines[-1] == "UNSTEADY tests/control/test_some.py::test_that_fails_once"


def test_a_test_that_fails_again_fails_the_row(tmp_path: Path) -> None:
    status, lines = run_tests(tmp_path, {"tests/test_some.py": UNSTEADY, "tests/test_other.py": BROKEN})
    assert status != 0
    assert not any(line.startswith("UNSTEADY") for line in lines)


def test_more_than_three_that_failed_are_not_run_once_more(tmp_path: Path) -> None:
    status, lines = run_tests(tmp_path, {f"tests/test_{number}.py": UNSTEADY for number in range(4)})
    assert status != 0
    assert sum("passed" in line for line in lines) == 1, "one run"


@pytest.mark.parametrize("folder", ["faults", "quota", "control/regions"])
def test_what_guards_units_is_not_run_once_more(tmp_path: Path, folder: str) -> None:
    status, _ = run_tests(tmp_path, {f"tests/{folder}/test_some.py": UNSTEADY})
    assert status != 0


def test_a_row_that_fails_before_a_test_fails_is_not_run_once_more(tmp_path: Path) -> None:
    status, lines = run_tests(tmp_path, {"tests/test_some.py": "import nothing_of_that_name\n"}, "--unknown-option")
    assert status != 0
    assert not any(line.startswith(("UNSTEADY", "These")) for line in lines)


def test_an_unsteady_test_is_among_the_last_lines_of_all() -> None:
    with started(
        "first", "echo 'UNSTEADY tests/test_some.py::test_that_fails_once'", "second", "sleep 0.5; echo much"
    ) as process:
        lines = process.communicate(timeout=60)[0].splitlines()
    assert process.returncode == 0
    assert lines[-1] == "[first] UNSTEADY tests/test_some.py::test_that_fails_once"
