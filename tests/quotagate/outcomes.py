"""What commands of the command line come to, on stores that a test names."""

import json
import os
import subprocess
import sys
from pathlib import Path

FORKS = Path(__file__).with_name("forks.py")


def outcomes_of(commands: tuple[str, ...], dsn: str, redis_url: str, directory: Path) -> dict[str, tuple[int, str]]:
    """Exit code of each, and what it says is wrong."""
    secrets = {"QUOTAGATE_JWT_SECRET": "of-the-tests-and-long-enough-for-hs256", "QUOTAGATE_ADMIN_TOKEN": "x" * 32}
    env = {**os.environ, **secrets, "QUOTAGATE_POSTGRES_DSN": dsn, "QUOTAGATE_REDIS_URL": redis_url}
    done = subprocess.run(
        [sys.executable, "-P", str(FORKS), json.dumps([command.split() for command in commands])],
        env=env,
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=240,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    outcomes = {}
    for command, (exit_code, printed, wrong) in zip(commands, json.loads(done.stdout), strict=True):
        # Of the doctor its findings are its output.
        outcomes[command] = (exit_code, " | ".join(printed.splitlines()) if command == "doctor" else wrong)
    return outcomes


def assert_plain(results: dict[str, tuple[int, str]], *words: str) -> None:
    for command, (exit_code, line) in results.items():
        assert exit_code in {1, 2}, (command, exit_code, line)
        assert len(line.splitlines()) == 1, (command, line)
        assert any(word in line for word in words), (command, line)
